"""The backup on an event: a gallery was added. Its name is anything that people write; the file's name is safe."""

import hashlib
import re
import unicodedata
from datetime import timedelta
from typing import Any

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import UsageError
from portfolio_ops.jobs.database import back_up
from portfolio_ops.jobs.run import GALLERY, Outcome, Task, run_job
from portfolio_ops.store import catalogue, sightings
from portfolio_ops.store.artifact import Artifact, Kind
from portfolio_ops.store.requests import Batch

_NAME_MOST = 10_000
_SLUG_MOST = 60


def backup_gallery(site: Site, name: str, *, wait: timedelta) -> Outcome:
    """Make, verify and publish `event-triggered/gallery-added-<name>-YYYY-MM-DD-HHMMSS.sqlite.zst`.

    Args:
        name: The gallery's true name; it stands in the metadata.

    Raises:
        UsageError: The name is empty or longer than 10,000 characters.
        PortfolioOpsError: Nothing was published, and nothing pruned.
    """
    if not name.strip():
        raise UsageError("the gallery's name is empty", suggestion=f'for example: {tool()} backup gallery "Winter"')
    if len(name) > _NAME_MOST:
        raise UsageError(f"the gallery's name has {len(name):,} characters", suggestion=f"use at most {_NAME_MOST:,}")
    details = {"event": "gallery-added", "name": name}
    return run_job(site, GALLERY, lambda task: [back_up(task, _stem(name), details)], wait=wait)


def backup_seen(site: Site, *, wait: timedelta) -> Outcome:
    """The same for the rows that the archive has seen being added, and remembers; once, whoever died meanwhile.

    Raises:
        PortfolioOpsError: Nothing was published, and nothing pruned.
    """
    return run_job(site, GALLERY, _seen, wait=wait)


def _seen(task: Task) -> list[Artifact]:
    known = sightings.read(task.site.state)
    if known is None or known.begun is None:
        return []
    batch = known.begun
    details = {
        "names": list(batch.names),
        "more": batch.more,
        "table": known.table,
        "rowids": [batch.first, batch.last],
        "before": batch.before,
    }
    return _once(task, batch.request, batch.name, details)


def backup_asked(site: Site, batch: Batch, *, wait: timedelta) -> Artifact:
    """The same for galleries that were asked for; one backup for all of them, once.

    Raises:
        PortfolioOpsError: Nothing was published, and nothing pruned.
    """
    names = list(dict.fromkeys(request.name for request in batch.requests))
    outcome = run_job(site, GALLERY, lambda task: _once(task, batch.token, names[-1], {"names": names}), wait=wait)
    return ([*outcome.made] or _events_of(site, batch.token))[0]


def _once(task: Task, request: str, name: str, details: dict[str, Any]) -> list[Artifact]:
    """Under the lock of the job: another run, that was killed before it could say so, may have made it."""
    if _events_of(task.site, request):
        return []
    return [back_up(task, _stem(name), {"event": "gallery-added", "name": name, **details, "request": request})]


def _events_of(site: Site, request: str) -> list[Artifact]:
    events = catalogue.scan(site.backups, site.name, [Kind.EVENT])
    return [each for each in events.artifacts if each.metadata.details.get("request") == request]


def _stem(name: str) -> str:
    return f"gallery-added-{file_name_part(name)}-%Y-%m-%d-%H%M%S"


def file_name_part(name: str) -> str:
    """What of a name may stand in a file's name: a-z, A-Z, 0-9 and `-`, at most 60 of them.

    A name that had to change gets six digits of its hash, so that two names never meet in one.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")[:_SLUG_MOST].strip("-")
    if slug == name:
        return slug
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{slug}-{digest}" if slug else digest
