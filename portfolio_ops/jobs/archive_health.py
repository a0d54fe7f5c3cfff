"""How the archive is doing: whether it runs, how far it has come, how far it is behind."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.timers import archive_is_off
from portfolio_ops.moment import exact, local
from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.look import BEHIND, change_counter_of
from portfolio_ops.sqlite.place import located, side
from portfolio_ops.sqlite.wal import FRAME_HEADER
from portfolio_ops.sqlite.wal_index import wal_index_of
from portfolio_ops.store import lock, runs, timeline
from portfolio_ops.store.catalogue import Catalogue
from portfolio_ops.store.ended import noted

_NORMAL = timedelta(minutes=10)
"""What a running archive may be behind: it waits for minutes while a large copy is made, or a full disk is freed."""

_NO_LAG = 0.0, 0, timedelta()


@dataclass(frozen=True)
class ArchiveHealth:
    """The archive of a site that has one.

    Attributes:
        site: Its name.
        timeline: The newest one; empty where there is none yet.
        running: Whether a daemon follows the database now.
        last: The newest restore point; None where there is none yet.
        lag_seconds: For how long there have been commits that are not archived; 0 where there are none.
        lag_bytes: Of the WAL, that are not archived; 0 where there is none.
        late: For how long a commit has not been archived, at least; nothing where it may come in time.
        why: Why nothing is archived although it runs; empty if it is.
        off: Whether it does not run because somebody turned it off.
        baseless: Since when its moments cannot be restored, because no whole backup leads there; None where one does.
    """

    site: str
    timeline: str
    running: bool
    last: datetime | None
    lag_seconds: float
    lag_bytes: int
    late: timedelta
    why: str
    off: bool
    baseless: datetime | None = None

    @property
    def finding(self) -> str:
        """What needs a person; empty if all is well."""
        if self.running:
            if self.late and not self.why:
                minutes = int(self.late.total_seconds() // 60)
                return (
                    f"the archive runs, and what was committed {minutes} minutes ago is not archived"
                    " (look at its journal, then restart its unit)"
                )
            return f"nothing is archived: {self.why}" if self.why else ""
        if self.off:
            return ""
        since = f"since {local(self.last)}" if self.last is not None else "yet"
        start = f"systemctl start portfolio-archive@{self.site}.service"
        return f"the archive does not run: no moment {since} can be restored ({start})"


def endings(site: Site) -> list[str]:
    """The timelines that ended by another's doing, in words, until a person has seen to it."""
    found = noted(site.state)
    if not found:
        return []
    from portfolio_ops.restore.points import last_before, windows  # noqa: PLC0415  (where nothing ended it is not read)

    words, known = [], windows(site)
    for each in found:
        last = last_before(known, each.at)
        command = f"{tool()} list" if last is None else f"{tool()} restore database --at {exact(last)} --to FILE"
        words.append(
            f"{each.why} (found {local(each.at)}): look at what the database holds now. The last state before:"
            f" {command}. If all is as it should be: {tool()} archive accept"
        )
    return words


def assess(site: Site, found: Catalogue, now: datetime) -> ArchiveHealth | None:
    """Look at the newest timeline, the lock and the WAL.

    Args:
        found: All artifacts of the site.

    Returns:
        None where nothing was ever archived, unless a daemon tries to in vain; without a database a site is a new one.
    """
    running, why = lock.is_held(site.state, lock.ARCHIVING), _why(site)
    names = timeline.own(site.backups, site.name)
    if not names:
        in_vain = running and bool(why) and site.database.exists()
        return ArchiveHealth(site.name, "", True, None, *_NO_LAG, why, False) if in_vain else None
    newest = timeline.newest(site.backups, names[-1], site.name)
    last = None if newest is None else newest.cuts[-1]
    seconds, size, late = _NO_LAG if last is None else _lag(site.database, last, now)
    if lock.is_held(site.state, lock.EXCHANGE):
        late = timedelta()  # it gives way to a restore
    off = not running and archive_is_off(site.name)
    return ArchiveHealth(
        site.name,
        names[-1],
        running,
        None if last is None else last.seen,
        seconds,
        size,
        late,
        why,
        off,
        _baseless(site, names[-1], found),
    )


def _baseless(site: Site, name: str, found: Catalogue) -> datetime | None:
    """Since when nothing of a timeline can be restored, because no whole backup leads there; None where one does.

    Where one says that it is of it, and no try of another has failed since, there is no doubt: its increments are not
    read.
    """
    record = runs.read(site.state, runs.BASE)
    is_stated = any(
        each.metadata.kind.holds_database and each.metadata.details.get("timeline") == name for each in found.artifacts
    )
    if is_stated and (record is None or record.latest.state == runs.SUCCEEDED):
        return None
    from portfolio_ops.restore.history import history_of  # noqa: PLC0415  (where there is no doubt it is not read)

    history = history_of(site, name)
    if history.founding:
        return None
    return min([timeline.began(name), *(each.cuts[0].seen for each in history.increments)])


def _why(site: Site) -> str:
    """Why the archive's last try failed; empty if it did not."""
    record = runs.read(site.state, lock.ARCHIVING)
    return record.latest.message if record is not None and record.latest.state == runs.FAILED else ""


def _lag(database: Path, last: Cut, now: datetime) -> tuple[float, int, timedelta]:
    """How long ago the database was first written after the last restore point, at most; and how the WAL has grown.

    And how long ago it was written at last, which is certain: a site that rests for a night and then commits is not
    behind by that night. Without a WAL, its change counter tells.
    """
    try:
        path = located(database)
        index = wal_index_of(path)
        written = path if index is None else side(path, "-wal")
        status = written.stat()
    except (OSError, PortfolioOpsError):
        return _NO_LAG
    changed = datetime.fromtimestamp(status.st_mtime, UTC)
    if index is None:
        size, behind = 0, change_counter_of(path) not in {None, last.position.frame}
        normal = _NORMAL + timedelta(seconds=status.st_size * BEHIND)
    else:
        archived = last.position.frame if index.salts.hex() == last.position.salts else 0
        size = (index.frames - archived) * (FRAME_HEADER + index.page_size)
        behind, normal = bool(size), _NORMAL
    if not behind or changed <= last.seen:
        return 0.0, size, timedelta()
    late = now - changed
    return (now - last.seen).total_seconds(), size, late if late > normal else timedelta()
