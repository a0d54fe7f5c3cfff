"""Let go of increments that are past their time."""

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from portfolio_ops.config import Site
from portfolio_ops.host import messages
from portfolio_ops.host.files import fsync_directory
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import pruning
from portfolio_ops.jobs.run import waiting
from portfolio_ops.store import timeline
from portfolio_ops.store.artifact import Kind
from portfolio_ops.store.lock import held

ARCHIVE = "archive"
"""Whose pruning this is, in the journal."""


def expired_increments(site: Site, now: datetime) -> list[Path]:
    """What may go, oldest first."""
    if not timeline.own(site.backups, site.name):
        return []
    from portfolio_ops.restore import points  # noqa: PLC0415  (only where there is an archive)
    from portfolio_ops.restore.expiry import expired  # noqa: PLC0415

    return [increment.path for increment in expired(points.read(site), site.retention.wal, now)]


def prune_increments(site: Site, *, wait: timedelta) -> list[Path]:
    """Delete them, while no restore and no base is being made.

    Raises:
        BusyError: One is, for longer than `wait`.
        OSError: They cannot be deleted.
    """
    log = Log(site=site.name, job=ARCHIVE)
    with held(site.state, Kind.WAL.value, wait=wait, on_wait=waiting(log, ARCHIVE)):
        gone = expired_increments(site, datetime.now(UTC))
        for path in gone:
            size = path.stat().st_size
            path.unlink()
            log.event(messages.PRUNED, f"Pruned {path.parent.name}/{path.name}", artifact=path.name, bytes=size)
        for folder in {path.parent for path in gone}:
            with contextlib.suppress(OSError):  # it holds younger ones
                folder.rmdir()
        if gone:
            fsync_directory(site.backups / Kind.WAL.folder)
        pruning.worked(site, ARCHIVE)
    return gone
