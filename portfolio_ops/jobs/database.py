"""A whole database as an artifact: snapshot, compress, read back, check, publish."""

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, cast

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import BusyError, RefusedError
from portfolio_ops.host import messages
from portfolio_ops.host.files import TEMPORARY_PREFIX, require_space
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs.run import Task
from portfolio_ops.sqlite.check import check_database
from portfolio_ops.sqlite.difference import Fingerprint
from portfolio_ops.sqlite.place import located
from portfolio_ops.sqlite.snapshot import Snapshot, snapshot
from portfolio_ops.store import catalogue, timeline, witness
from portfolio_ops.store import image as handed
from portfolio_ops.store.artifact import Artifact, Kind, Metadata
from portfolio_ops.store.lock import PINNED, held, holder_of, is_held
from portfolio_ops.store.publish import Draft

SUFFIX = ".sqlite.zst"
_MARGIN = 1.2


def back_up(task: Task, stem_format: str, details: dict[str, Any]) -> Artifact:
    """Make, verify and publish a backup of the site's database, of the job's kind.

    Args:
        task: The run that it is part of.
        stem_format: The name without its suffix, as a format of strftime(3); the moment is the snapshot's, local.
        details: Goes into the metadata, beside what the database tells of itself.

    Raises:
        PortfolioOpsError: As the snapshot, the space, the disk or the verification failed; nothing is published.
    """
    site, kind, log, began = task.site, task.job.kind, task.log, time.monotonic()
    timelines = timeline.own(site.backups, site.name)  # before the snapshot: what is taken now lies in the last
    last = next(reversed(timelines), "")
    with Draft(task.folder) as draft:
        with _held_still(site) as (image, taken):
            _require_content(site, image)
            require_space(task.folder, _needed(site, kind, image.bytes))
            fingerprint = Fingerprint(image.page_size)
            draft.write(_with_progress(image, fingerprint, task), size=image.bytes)
            details = {**details, **_described(image, fingerprint), "timeline": last}
        log.progress("Verifying the backup")
        with NamedTemporaryFile(prefix=TEMPORARY_PREFIX, dir=task.folder) as scratch:
            content = draft.read_back(cast("BinaryIO", scratch))
            scratch.flush()
            facts = check_database(Path(scratch.name))
        details |= {
            "rows": facts.rows,
            "schema_sha256": facts.schema_sha256,
            "user_version": facts.user_version,
            "foreign_key_violations": facts.foreign_key_violations,
            "verified": {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "checks": ["sha256", "quick_check" if facts.unchecked else "integrity_check", "foreign_key_check"],
            },
        }
        stem = taken.astimezone().strftime(stem_format)
        artifact = draft.publish(stem, SUFFIX, Metadata(kind, site.name, taken, content, details))
    _report(site, artifact, log, time.monotonic() - began, facts.unchecked)
    return artifact


@contextlib.contextmanager
def _held_still(site: Site) -> Iterator[tuple[Snapshot, datetime]]:
    """A snapshot, and when it was taken. The archive hears of it, so that a restore point comes where it stands."""
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as lock:
            alone = _is_alone(site, lock)
            image = stack.enter_context(snapshot(site.database, site.state))
            taken = datetime.now(UTC)
            if image.position is not None:
                witness.ask(site.state, image.position, image.looked)
            elif alone and _is_followed(site):
                handed.offer(site.state, image)
        yield image, taken


def _is_followed(site: Site) -> bool:
    """Whether the archive follows the database. A restore holds its lock, too, and puts a former database away."""
    return is_held(site.state, PINNED) and holder_of(site.state, PINNED) != os.getpid()


def _is_alone(site: Site, lock: contextlib.ExitStack) -> bool:
    """Whether the archive does not look meanwhile. Where it hangs in a look, the backup matters more."""
    try:
        lock.enter_context(held(site.state, handed.LOCK, wait=handed.PATIENCE, on_wait=lambda _: None))
    except BusyError:
        return False
    return True


def _needed(site: Site, kind: Kind, image_bytes: int) -> int:
    """Bytes needed for a while: the copy that is checked, and the artifact if it compresses as the last one did."""
    earlier = catalogue.scan(site.backups, site.name, [kind]).artifacts
    ratio = 1.0
    if earlier and earlier[-1].metadata.content.bytes:
        ratio = min(1.0, _MARGIN * earlier[-1].bytes / earlier[-1].metadata.content.bytes)
    return image_bytes + int(ratio * image_bytes)


def _require_content(site: Site, image: Snapshot) -> None:
    """Check that there is something to back up: SQLite takes a file that was emptied for a sound database.

    Raises:
        RefusedError: There is nothing. Published each day, that would crowd out what there was.
    """
    if not image.pages:
        raise RefusedError(
            f"{site.database} is empty: it holds no table, not even a header",
            suggestion=f"if it should hold something: `{tool()} restore database latest --in-place`;"
            " if not yet, this passes with the site's first write",
        )


def _with_progress(image: Snapshot, fingerprint: Fingerprint, task: Task) -> Iterator[memoryview]:
    """The image's content, as long as there is room: meanwhile the WAL grows, and the artifact may be a large one.

    Raises:
        NoRoomError: The disk has come to the site's reserve.
    """
    done = 0
    for chunk in image.chunks():
        require_space(task.folder, 0)
        if image.position is None:
            fingerprint.add(chunk)
        yield chunk
        done += len(chunk)
        task.log.progress(f"Reading the database, {100 * done // image.bytes} % of {image.bytes:,} bytes")


def _described(image: Snapshot, fingerprint: Fingerprint) -> dict[str, Any]:
    position = image.position or fingerprint.position
    return {
        "page_size": image.page_size,
        "pages": image.pages,
        "journal_mode": image.journal_mode,
        "position": {"salts": position.salts, "frame": position.frame},
    }


def _report(site: Site, artifact: Artifact, log: Log, seconds: float, unchecked: str) -> None:
    content = artifact.metadata.content.bytes
    verified = f"verified but for what its indexes hold ({unchecked})" if unchecked else "verified"
    log.event(
        messages.BACKUP_PUBLISHED,
        f"Published {artifact.path.name}: {artifact.bytes:,} bytes of {content:,}, {verified}, in {seconds:.1f} s",
        artifact=artifact.path.name,
        artifact_id=artifact.id,
        bytes=artifact.bytes,
        content_bytes=content,
        duration=round(seconds, 3),
    )
    owner = site.database.stat().st_uid
    for ending in ("-wal", "-shm"):
        side = Path(f"{located(site.database)}{ending}")
        if side.exists() and side.stat().st_uid != owner:
            log.event(
                messages.SIDE_FILES_FOREIGN,
                f"{side.name} belongs to uid {side.stat().st_uid}, the database to {owner}: the site may fail to write",
                file=str(side),
            )
