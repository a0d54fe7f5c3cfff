"""How the archive is doing: whether it runs, how far it has come, how far it is behind."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.timers import archive_is_off
from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.look import change_counter_of
from portfolio_ops.sqlite.place import located, side
from portfolio_ops.sqlite.wal import FRAME_HEADER
from portfolio_ops.sqlite.wal_index import wal_index_of
from portfolio_ops.store import lock, runs, timeline


@dataclass(frozen=True)
class ArchiveHealth:
    """The archive of a site that has one.

    Attributes:
        timeline: The newest one.
        running: Whether a daemon follows the database now.
        last: The newest restore point; None where there is none yet.
        lag_seconds: For how long there have been commits that are not archived; 0 where there are none.
        lag_bytes: Of the WAL, that are not archived; 0 where there is none.
        why: Why nothing is archived although it runs; empty if it is.
        off: Whether it does not run because somebody turned it off.
    """

    timeline: str
    running: bool
    last: datetime | None
    lag_seconds: float
    lag_bytes: int
    why: str
    off: bool

    @property
    def finding(self) -> str:
        """What needs a person; empty if all is well."""
        if self.running:
            return f"nothing is archived: {self.why}" if self.why else ""
        if self.off:
            return ""
        since = f"since {self.last:%Y-%m-%d %H:%M:%S} UTC" if self.last is not None else "yet"
        return f"the archive does not run: no moment {since} can be restored (portfolio-ops archive run, or its unit)"


def assess(site: Site, now: datetime) -> ArchiveHealth | None:
    """Look at the newest timeline, the lock and the WAL; None where nothing was ever archived."""
    names = timeline.ids(site.backups)
    if not names:
        return None
    newest = timeline.newest(site.backups, names[-1], site.name)
    last = None if newest is None else newest.cuts[-1]
    seconds, size = (0.0, 0) if last is None else _lag(site.database, last, now)
    running = lock.is_held(site.state, lock.ARCHIVING)
    record = runs.read(site.state, lock.ARCHIVING)
    failed = record is not None and record.latest.state == runs.FAILED
    why = record.latest.message if record is not None and failed else ""
    off = not running and archive_is_off(site.name)
    return ArchiveHealth(names[-1], running, None if last is None else last.seen, seconds, size, why, off)


def _lag(database: Path, last: Cut, now: datetime) -> tuple[float, int]:
    """How long ago the database was first written after the last restore point, at most; and how the WAL has grown.

    Without a WAL, its change counter tells.
    """
    try:
        path = located(database)
        index = wal_index_of(path)
        written = path if index is None else side(path, "-wal")
        changed = datetime.fromtimestamp(written.stat().st_mtime, UTC)
    except (OSError, PortfolioOpsError):
        return 0.0, 0
    if index is None:
        behind = change_counter_of(path) not in {None, last.position.frame}
        return ((now - last.seen).total_seconds() if behind and changed > last.seen else 0.0), 0
    archived = last.position.frame if index.salts.hex() == last.position.salts else 0
    size = (index.frames - archived) * (FRAME_HEADER + index.page_size)
    return ((now - last.seen).total_seconds() if size and changed > last.seen else 0.0), size
