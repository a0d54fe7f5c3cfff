"""Following a pinned database: what was committed goes into the archive, at most once a second, until told to stop."""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host import messages
from portfolio_ops.host.files import fsync_directory
from portfolio_ops.host.inotify import Watch
from portfolio_ops.host.journal import Log, notify
from portfolio_ops.jobs import child
from portfolio_ops.jobs.chapter import Chapter
from portfolio_ops.jobs.detect import Detector
from portfolio_ops.sqlite.increment import Increment
from portfolio_ops.sqlite.pin import Outcome, Pin
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.tail import Tail
from portfolio_ops.sqlite.wal_header import Checksum
from portfolio_ops.sqlite.wal_index import WalIndex
from portfolio_ops.store import catalogue, timeline

if TYPE_CHECKING:
    import subprocess

_EVERY = 1.0
"""Seconds between two flushes at least: the resolution of what can be restored."""

_AT_REST = 1.0
_SEAL_FRAMES = 800
"""A WAL of so many frames is sealed: fewer than the 1,000 at which SQLite lets the site checkpoint."""

_SEAL_AGAIN = 5.0
_ALIVE = 20.0  # a third of the unit's WatchdogSec=
_BASE_BYTES_PER_SECOND = 5e6
"""Bases follow each other no faster than that: some 5 % of the time that a disk takes for them."""

_BASE_AGAIN = 600.0
_MEMORY = "archive-position"


@dataclass
class Orders:
    """What a follower is told while it runs."""

    stop: bool = False
    """End, with everything archived that is committed by then."""

    give_way: Callable[[], bool] = lambda: False
    """Whether a restore waits to exchange the database: the same then."""


class Follower:
    """One timeline, while its database is pinned.

    Args:
        pin: Held by the caller.
        orders: Looked at all the time.
    """

    def __init__(self, site: Site, pin: Pin, log: Log, watch: Watch, orders: Orders) -> None:
        self._site, self._pin, self._log, self._watch, self._orders = site, pin, log, watch, orders
        self._index = pin.look()
        self._tail, self._chapter, self.timeline = self._begin()
        self._base = _Base(site, log, timeline.began(self.timeline))
        self._detector = Detector(site, pin, log)
        self._longest_stall = 0.0

    def _begin(self) -> tuple[Tail, Chapter, str]:
        """Go on with the newest timeline if that can be proved, else begin another."""
        site, page_size = self._site, self._pin.page_size
        resumed = _resumable(site, self._index, self._pin)
        if resumed is not None:
            tail, increment = resumed
            name = increment.head.timeline
            words = f"Going on with timeline {name} from frame {tail.position.frame}"
            self._log.event(messages.ARCHIVE_RESUMED, words, timeline=name)
            return tail, Chapter(site, name, page_size, increment.link, increment.cuts[-1].seen), name
        name = timeline.new_id(datetime.now(UTC))
        tail = Tail(self._pin, Position(self._index.salts.hex(), self._index.frames))
        tail.begin()
        folder = timeline.folder_of(site.backups, name)
        folder.mkdir(mode=0o750, parents=True)
        fsync_directory(folder.parent)
        self._log.event(messages.TIMELINE_BEGUN, f"Timeline {name} begins", timeline=name)
        return tail, Chapter(site, name, page_size, None, None), name

    def run(self, *, once: bool) -> None:
        """Follow until told to stop, or, if `once`, until what is committed now is archived and a base is there."""
        with contextlib.closing(self._chapter), self._base, self._detector:
            flushed = sealed = time.monotonic()
            dirty, seal_at = True, 0.0
            while True:
                now = time.monotonic()
                if dirty and (now - flushed >= _EVERY or self._orders.stop or once):
                    self._flush_all()
                    if not once:
                        self._detector.look()
                    flushed, dirty, sealed = now, False, 0.0
                    seal_at = now if self._index.frames >= _SEAL_FRAMES else now + _AT_REST
                if not sealed and now >= seal_at and self._index.frames:
                    sealed = now if self._seal() else 0.0
                    seal_at = now + _SEAL_AGAIN
                if self._orders.stop or self._orders.give_way() or (once and self._base.is_there()):
                    self._flush_all()
                    return
                self._base.look()
                self._detector.tend()
                dirty |= self._sleep(
                    self._next(now, dirty=dirty, flushed=flushed, sealed=bool(sealed), seal_at=seal_at)
                )

    def _next(self, now: float, *, dirty: bool, flushed: float, sealed: bool, seal_at: float) -> float:
        """Seconds until there is something to do even if nothing happens."""
        moments = [now + _ALIVE]
        if dirty:
            moments.append(flushed + _EVERY)
        if not sealed and self._index.frames:
            moments.append(seal_at)
        if (due := self._detector.due()) is not None:
            moments.append(due)
        return max(0.0, min(moments) - now)

    def _sleep(self, seconds: float) -> bool:
        """Wait for a change; gives whether the database's files changed."""
        notify(f"WATCHDOG=1\nSTATUS={self._status()}")
        changed = self._watch.wait(seconds)
        name = self._site.database.resolve().name
        names = {name, f"{name}-wal"}
        return any(path.name in names for path in changed)

    def _status(self) -> str:
        last = f"last restore point {self._chapter.last:%H:%M:%S} UTC" if self._chapter.last else "no restore point yet"
        return f"Timeline {self.timeline}: {last}, {self._index.frames} frames in the WAL"

    def _flush_all(self) -> None:
        """Archive what is committed, and let the held mark move on."""
        self._index = self._pin.look()
        self._flush(self._index)
        self._index = self._pin.advance(self._index)

    def _flush(self, index: WalIndex) -> None:
        chain = b""
        with self._tail.changes(index) as changes:
            if changes is not None:
                chain = self._chapter.append(
                    changes.pages(), changes.database_pages, changes.since, changes.position, self._pin.looked
                )
        if chain:
            remember(self._site.state, chain, self._tail.checksum)

    def _seal(self) -> bool:
        """Try to end the WAL's generation, so that it does not grow; gives whether that was done."""
        budget = self._site.archive.stall_budget.total_seconds()
        seal = self._pin.seal(self._flush, budget)
        self._index = seal.index
        if seal.stall > max(budget, self._longest_stall):
            self._log.event(
                messages.WRITERS_HELD,
                f"The site's writers were held for {seal.stall * 1000:.0f} ms, the budget is {budget * 1000:.0f} ms",
                stall=round(seal.stall, 4),
            )
        self._longest_stall = max(self._longest_stall, seal.stall)
        return seal.outcome is Outcome.SEALED


def _resumable(site: Site, index: WalIndex, pin: Pin) -> tuple[Tail, Increment] | None:
    """Where the newest timeline ended, if the WAL still holds all that came since: same salts, and not fewer frames.

    The last archived frame must be the same to its checksum. After a power cut, a database whose `synchronous` is
    NORMAL may have lost commits that are archived, and made others in their place. What is remembered of it is not
    synced: it outlives a killed daemon, and where a power cut takes it, a new timeline is right.
    """
    names = timeline.ids(site.backups)
    last = timeline.newest(site.backups, names[-1]) if names else None
    if last is None or last.damaged or last.head.page_size != pin.page_size:
        return None
    cut = last.cuts[-1]
    if cut.position.salts != index.salts.hex() or cut.position.frame > index.frames:
        return None
    tail = Tail(pin, cut.position)
    try:
        tail.begin()
    except PortfolioOpsError:
        return None
    return (tail, last) if _remembered(site.state) == _memory(cut.chain, tail.checksum) else None


def remember(state: Path, chain: bytes, checksum: Checksum) -> None:
    """Note what the WAL's running checksum is where a flush ended; by one small write that nobody waits for."""
    descriptor = os.open(state / _MEMORY, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        os.pwrite(descriptor, _memory(chain, checksum), 0)
    finally:
        os.close(descriptor)


def _remembered(state: Path) -> bytes:
    try:
        return (state / _MEMORY).read_bytes()
    except OSError:
        return b""


def _memory(chain: bytes, checksum: Checksum) -> bytes:
    return f"{chain.hex()} {checksum[0]:08x} {checksum[1]:08x}\n".encode()


class _Base:
    """A whole backup for the beginning of a timeline."""

    def __init__(self, site: Site, log: Log, since: datetime) -> None:
        self._site, self._log = site, log
        self._process: subprocess.Popen[bytes] | None = None
        newest = catalogue.newest_database(catalogue.scan(site.backups, site.name))
        # Whatever was taken since the timeline began, lies in it.
        self._needed = newest is None or newest.taken < since
        self._due = self._first_due()

    def _first_due(self) -> float:
        """Now; but a service that is started again and again does not fill the disk with bases."""
        newest = timeline.newest_base(self._site.backups, self._site.name)
        if newest is None:
            return 0.0
        apart = timedelta(seconds=newest.metadata.content.bytes / _BASE_BYTES_PER_SECOND)
        wait = (newest.taken + apart - datetime.now(UTC)).total_seconds()
        return time.monotonic() + min(max(0.0, wait), apart.total_seconds())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        child.end(self._process)

    def is_there(self) -> bool:
        """Whether nothing is left to be made."""
        self.look()
        return not self._needed

    def look(self) -> None:
        """Begin it when it is due, and see whether it has ended."""
        if self._process is None and self._needed and time.monotonic() >= self._due:
            self._process = child.begin(self._site, "archive", "base")
        if self._process is None or self._process.poll() is None:
            return
        self._needed = self._process.returncode != 0
        if self._needed:
            self._due = time.monotonic() + _BASE_AGAIN
            self._log.event(
                messages.ARCHIVE_FAILED,
                f"The base of the timeline could not be made (exit code {self._process.returncode}); again in 10 min",
            )
        self._process = None
