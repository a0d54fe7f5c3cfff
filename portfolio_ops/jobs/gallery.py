"""The backup on an event: a gallery was added. Its name is anything that people write; the file's name is safe."""

import hashlib
import re
import unicodedata
from datetime import timedelta

from portfolio_ops.config import Site
from portfolio_ops.errors import UsageError
from portfolio_ops.jobs.database import back_up
from portfolio_ops.jobs.run import GALLERY, Outcome, Task, run_job
from portfolio_ops.store import catalogue, sightings
from portfolio_ops.store.artifact import Artifact, Kind

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
        raise UsageError("the gallery's name is empty", suggestion='for example: portfolio-ops backup gallery "Winter"')
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
    """Under the lock of the job: another run, of an archive that was killed, may have made it."""
    known = sightings.read(task.site.state)
    if known is None or known.begun is None:
        return []
    batch = known.begun
    events = catalogue.scan(task.site.backups, task.site.name, [Kind.EVENT])
    if any(each.metadata.details.get("request") == batch.request for each in events.artifacts):
        return []
    details = {
        "event": "gallery-added",
        "name": batch.name,
        "names": list(batch.names),
        "more": batch.more,
        "table": known.table,
        "rowids": [batch.first, batch.last],
        "before": batch.before,
        "request": batch.request,
    }
    return [back_up(task, _stem(batch.name), details)]


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
