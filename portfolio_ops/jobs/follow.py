"""Following a pinned database: what was committed goes into the archive, at most once a second, until told to stop."""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import apsw

from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host import messages
from portfolio_ops.host.inotify import Watch
from portfolio_ops.host.journal import Log, unhurried
from portfolio_ops.jobs.base import Base, Leads
from portfolio_ops.jobs.chapter import Chapter
from portfolio_ops.jobs.detect import Detector
from portfolio_ops.jobs.following import ALIVE, EVERY, Orders, Rest, Stalls, begin_timeline
from portfolio_ops.moment import local
from portfolio_ops.restore.history import history_of
from portfolio_ops.sqlite.increment import Link
from portfolio_ops.sqlite.pin import Outcome, Pin
from portfolio_ops.sqlite.place import located, side
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.tail import DamagedWalError, Tail
from portfolio_ops.sqlite.wal_index import WalIndex
from portfolio_ops.store import timeline, witness
from portfolio_ops.store.standing import Standing, remember, remembered

_AT_REST = 1.0
_FULL = 1000
"""Frames of a WAL from which on SQLite lets each commit of the site try a checkpoint (`wal_autocheckpoint`)."""

_BUSY = 200
"""Frames between two flushes from which on the site may leave no gap in which a WAL can be sealed."""

_LARGE = 32 << 20
"""Bytes of a WAL that is sealed though the site may have to be held for it. Each such seal stores hot pages anew."""

_SEAL_AGAIN = 5.0
_COPY_ON = 0.05
"""Seconds from the first write into a new WAL until what is in it is copied: before it has come to `_FULL`, mostly."""

_NEXT_CLOSE = 0.05
"""Seconds after a close of the database in which no other is listened for: there may be thousands a second."""


class Follower:
    """One timeline, while its database is pinned.

    Args:
        pin: Held by the caller.
        orders: Looked at all the time.
        ended: A timeline that is in doubt: it is not gone on with.
    """

    def __init__(self, site: Site, pin: Pin, log: Log, watch: Watch, orders: Orders, *, ended: str = "") -> None:
        self._site, self._pin, self._log, self._orders = site, pin, log, orders
        self._index, self._chain, self._is_busy = pin.look(), b"", False
        self._tail, self._chapter, self.timeline, resumed = self._begin(ended)
        leads = Leads(site, self.timeline, lambda: self._tail.position)
        self._base = Base(site, log, leads, resumed=resumed)
        self._detector = Detector(site, pin, log)
        self._stalls = Stalls(site, log)
        database = located(site.database)
        # What is written into the main file was in the WAL before, or `_is_behind` finds that it was not.
        self._rest = Rest(watch, {side(database, "-wal")})
        self._closing = side(database, "-shm")  # whoever leaves the database closes it

    def _begin(self, ended: str) -> tuple[Tail, Chapter, str, bool]:
        """Go on with the newest timeline if that can be proved, else begin another; tells which of both."""
        site, page_size = self._site, self._pin.page_size
        resumed = _resumable(site, self._index, self._pin)
        if resumed is not None and resumed.name != ended:
            words = f"Going on with timeline {resumed.name} from frame {resumed.tail.position.frame}"
            self._log.event(messages.ARCHIVE_RESUMED, words, timeline=resumed.name)
            end, self._chain = resumed.end, resumed.end.chain
            chapter = Chapter(site, resumed.name, page_size, end.link, end.seen, based=end.based)
            return resumed.tail, chapter, resumed.name, True
        tail = self._tail_from_here()
        name = begin_timeline(site, self._log)
        self._chain = _beginning(name)
        remember(site.state, Standing(self._chain, tail.checksum, tail.position))
        return tail, Chapter(site, name, page_size, None, None), name, False

    def _tail_from_here(self) -> Tail:
        """The end of what is committed. Just then the site may begin the WAL anew: that is no damage."""
        while True:
            tail = Tail(self._pin, Position(self._index.salts.hex(), self._index.frames))
            try:
                tail.begin()
            except DamagedWalError:
                salts, self._index = self._index.salts, self._pin.look()
                if self._index.salts == salts:
                    raise
            else:
                return tail

    def run(self, *, once: bool) -> None:
        """Follow until told to stop, or, if `once`, until what is committed now is archived and a base is there."""
        with contextlib.closing(self._chapter), self._base, self._detector:
            pace = _Pace(time.monotonic())
            while True:
                now = time.monotonic()
                is_left = not once and self._is_left(now, pace)
                hurries = is_left and pace.hurries(now)
                is_due = pace.dirty and (now - pace.flushed >= EVERY or hurries or self._orders.stop or once)
                if is_due:
                    ends = self._flush_all(copies=not once)
                    pace.flushed, pace.dirty, pace.sealed, pace.settled = now, False, once, once
                    pace.seal_at = now if ends else now + _AT_REST
                rests = is_left and not pace.dirty
                if not pace.sealed and (now >= pace.seal_at or rests) and self._index.frames:
                    pace.sealed = self._seal()
                    pace.seal_at = now + _SEAL_AGAIN
                if is_due and not once:
                    self._detector.look()
                if pace.sealed and not pace.settled and now >= pace.flushed + _AT_REST:
                    self._settle(once=False)
                    pace.settled = True
                self._chapter.require_named(datetime.now(UTC))
                self._base.look()
                if pace.copies_on(now):
                    self._copy_on(now, pace)
                if once:
                    self._base.require_no_failure()
                gives_way = self._orders.give_way()
                if self._orders.stop or gives_way or (once and self._base.is_there):
                    self._flush_all(copies=False)
                    if not gives_way:
                        self._end(once=once)
                    return
                self._detector.tend()
                closing = self._closing if pace.may_be_left(now) else None
                changed = self._rest.take(self._next(now, pace), self._status(), dirty=pace.dirty, closing=closing)
                begins = self._pin.may_end and self._is_busy and not once  # before it is looked at again
                pace.note(dirty=changed or self._is_behind(), begins=begins)

    def _is_left(self, now: float, pace: "_Pace") -> bool:
        """Whether the site has left the database; unless the disk is full or fails, all is in the main file then."""
        is_left = pace.may_be_left(now) and self._pin.leave_nothing()
        if self._rest.is_closed:
            pace.deaf_until = now + _NEXT_CLOSE
        return is_left

    def _next(self, now: float, pace: "_Pace") -> float:
        """Seconds until there is something to do even if nothing happens."""
        moments = [now + ALIVE, self._base.next_look(now), *pace.moments(now, empty=not self._index.frames)]
        if (due := self._detector.due()) is not None:
            moments.append(due)
        return max(0.0, min(moments) - now)

    def _is_behind(self) -> bool:
        """Whether there are commits that are not archived and that no change of a file tells of any more.

        A commit is in the index only when its frames are synced. Woken by the frames, we may have looked too early.
        """
        index = self._pin.look()
        return (index.salts, index.frames) != (self._index.salts, self._index.frames)

    def _status(self) -> str:
        last = f"last restore point {local(self._chapter.last)}" if self._chapter.last else "no restore point yet"
        return f"Timeline {self.timeline}: {last}, {self._index.frames} frames in the WAL"

    def _flush_all(self, *, copies: bool) -> bool:
        """Archive what is committed, and let the held mark move on; gives whether the WAL is to be sealed now.

        One that may come to `_FULL` before the next flush is, while the site leaves gaps for that; or else when it is
        large. In both cases it is copied at once, so that the site finds nothing to checkpoint: but not before it is
        archived, for where that fails, what the WAL still holds can be archived later.

        Args:
            copies: Whether anything may be copied and sealed. A single pass leaves the generation as it is: only in
                that one can the next pass go on.
        """
        before, index = self._index, self._pin.look()
        grown = index.frames - (before.frames if before.salts == index.salts else 0)
        size = index.frames * self._pin.page_size
        is_full, is_large = index.frames + 2 * grown >= _FULL, size >= _LARGE
        self._is_busy = grown >= _BUSY
        with unhurried(size):
            self._flush(index)
            if copies and (is_full or is_large):
                self._pin.copy_on()
            else:
                self._pin.advance(index)
        return is_large or (is_full and not self._is_busy)

    def _copy_on(self, now: float, pace: "_Pace") -> None:
        """Copy what a busy site has written into a new WAL, before it comes to `_FULL`."""
        with unhurried(self._pin.look().frames * self._pin.page_size):
            is_copied = self._pin.copy_on()
        pace.copy_at = None if is_copied else now + _COPY_ON  # of a long transaction there is nothing yet

    def _flush(self, index: WalIndex) -> None:
        self._mark_empty(index)
        chain = b""
        for part, seen in (*self._witnessed(index), (index, self._pin.looked)):
            with self._tail.changes(part) as changes:
                if changes is not None:
                    chain = self._chapter.append(
                        changes.pages(),
                        changes.database_pages,
                        changes.since,
                        changes.position,
                        seen,
                        durable=not self._pin.holds_writers,
                    )
        self._index = index
        if chain:
            self._chain = chain
            self._remember()

    def _witnessed(self, index: WalIndex) -> Iterator[tuple[WalIndex, datetime]]:
        """Where a backup stands that is being made, and when: there a restore point comes first, for drills to compare.

        Its time must lie between those of the points beside it. Else it would name a state that was not, or not yet.
        """
        asked = witness.asked(self._site.state)
        if asked is None:
            return
        same = asked.position.salts == index.salts.hex()
        if same and asked.position.frame > index.frames:
            return  # for the next flush
        witness.forget(self._site.state)
        in_time = (self._chapter.last or asked.seen) <= asked.seen <= self._pin.looked
        if same and asked.position.frame < index.frames and in_time and self._tail.may_stop_at(asked.position):
            yield replace(index, frames=asked.position.frame), asked.seen

    def _mark_empty(self, index: WalIndex) -> None:
        """Where somebody emptied the WAL, archive a restore point there: backups name the new generation from then on.

        Else none of them could be found in the archive, if the site empties the WAL before each. It costs one page. (A
        WAL without salts is one that was just made: any that is empty has that position.)
        """
        position = Position(index.salts.hex(), 0)
        if index.frames or not any(index.salts) or self._tail.position == position:
            return
        found = self._pin.first_page()
        if found is None:
            return
        page, pages = found
        self._chain = self._chapter.append(
            iter([(1, page)]),
            pages,
            self._tail.position,
            position,
            self._pin.looked,
            durable=not self._pin.holds_writers,
        )
        self._tail = Tail(self._pin, position)
        self._remember()

    def _settle(self, *, once: bool) -> None:
        """Let the next start prove what passed meanwhile, and no WAL stay beside a stopped site's file at the end.

        Such a WAL would be replayed over what somebody may put there. A single pass leaves one that it found.
        """
        changed = self._pin.settle(self._index, checkpoint=not once)
        if changed is not None:
            self._remember(changed)

    def _end(self, *, once: bool) -> None:
        """Let the next start go on with the timeline, also where the site writes on meanwhile.

        In a WAL that it begins anew now it comes to no checkpoint until then, if that is not long.
        """
        if not once:
            with contextlib.suppress(apsw.FullError):
                self._seal()
        self._settle(once=once)

    def _remember(self, changed: int = 0) -> None:
        standing = Standing(self._chain, self._tail.checksum, self._tail.position, changed)
        remember(self._site.state, standing)

    def _seal(self) -> bool:
        """Try to end the WAL's generation, so that it does not grow; gives whether that was done."""
        budget = self._site.archive.stall_budget.total_seconds()
        with unhurried(self._index.frames * self._pin.page_size):
            seal = self._pin.seal(self._flush, budget)
            self._chapter.sync()
        self._stalls.tell(seal.stall)
        return seal.outcome is Outcome.SEALED


@dataclass
class _Pace:
    """How far it is with what was committed last; times are of time.monotonic(3).

    Attributes:
        flushed: When it last archived.
        seal_at: When the WAL is to be sealed at the latest.
        left: When it last archived at once because the site had left the database.
        deaf_until: When it is of interest again that somebody leaves it.
        copy_at: When to copy what is in a new WAL, if it is not archived by then; None where that does not matter.
        dirty: Whether something may not be archived.
        sealed, settled: Whether the WAL is (`Pin.seal`, `Pin.settle`).
    """

    flushed: float
    seal_at: float = 0.0
    left: float = 0.0
    deaf_until: float = 0.0
    copy_at: float | None = None
    dirty: bool = True
    sealed: bool = True
    settled: bool = True

    def may_be_left(self, now: float) -> bool:
        """Whether to look if the site has left the database: where it is dirty or not sealed, and not at each close.

        Its own last close would have copied all into the main file, which whoever stops it may replace at once.
        """
        return self._is_open and now >= self.deaf_until

    @property
    def _is_open(self) -> bool:
        return self.dirty or not self.sealed

    def note(self, *, dirty: bool, begins: bool) -> None:
        """Note whether something may not be archived, and whether a busy site may have begun a WAL anew with it."""
        if dirty and not self.dirty:
            self.copy_at = time.monotonic() + _COPY_ON if begins else None
        self.dirty = dirty

    def copies_on(self, now: float) -> bool:
        """Whether to copy now what is in a new WAL."""
        return self.dirty and self.copy_at is not None and now >= self.copy_at

    def hurries(self, now: float) -> bool:
        """Whether to archive at once because the site has left: not each time, where it leaves after each commit."""
        if now - self.left < EVERY:
            return False
        self.left = now
        return True

    def moments(self, now: float, *, empty: bool) -> Iterator[float]:
        """When there is something to do if nothing happens.

        Args:
            empty: Whether the WAL has no frame.
        """
        if self._is_open and now < self.deaf_until:
            yield self.deaf_until
        if self.dirty and self.copy_at is not None:
            yield self.copy_at
        if self.dirty:
            yield self.flushed + EVERY
        if not empty and not self.sealed:
            yield self.seal_at
        elif not empty and not self.settled:
            yield self.flushed + _AT_REST


@dataclass(frozen=True)
class _Resumed:
    """A timeline that is gone on with, from where it ended."""

    name: str
    tail: Tail
    end: "_End"


def _resumable(site: Site, index: WalIndex, pin: Pin) -> _Resumed | None:
    """Where the newest timeline ended, if the WAL still holds all that came since.

    It does if the main file was not changed since all that was archived was in it, and nothing else: no generation of
    the WAL can have ended meanwhile. If it was changed although it was at rest, it is another.

    It also does with the same salts, and not fewer frames. The last archived frame must be the same to its checksum.
    After a power cut, a database whose `synchronous` is NORMAL may have lost commits that are archived, and made others
    in their place. What is remembered of it is not synced: it outlives a killed daemon, and where a power cut takes it,
    a new timeline is right.

    What came since must be held, too. Where all of it is in the main file already, the site's next write begins the WAL
    anew, before we have read it perhaps.
    """
    names = timeline.own(site.backups, site.name)
    if not names:
        return None
    memory = remembered(site.state)
    end = None if memory is None else _end(site, names[-1], pin.page_size, memory)
    if memory is None or end is None or (memory.chain, memory.position) != (end.chain, end.position):
        return None
    if memory.changed and memory.changed != pin.changed:
        return None
    if pin.may_end and index.frames > (end.position.frame if end.position.salts == index.salts.hex() else 0):
        return None
    tail = Tail(pin, end.position)
    if end.position.salts == index.salts.hex() and end.position.frame:
        try:
            tail.begin()
        except PortfolioOpsError:
            return None
        same = end.position.frame <= index.frames and tail.checksum == memory.checksum
    else:
        # What the site makes durable of its file is the content. Where it empties the WAL, its time comes before that.
        same = bool(memory.changed) and (memory.is_of_this_boot or not index.frames)
    return _Resumed(names[-1], tail, end) if same else None


@dataclass(frozen=True)
class _End:
    """Where a timeline ended, as far as it is archived."""

    position: Position
    chain: bytes
    link: Link | None = None
    seen: datetime | None = None
    based: datetime | None = None


def _end(site: Site, name: str, page_size: int, memory: Standing) -> _End | None:
    """The end of a timeline; one in which nothing was seen to be committed ends where it began, as is remembered."""
    last = timeline.newest(site.backups, name, site.name)
    if last is not None:
        cut = last.cuts[-1]
        usable = not last.damaged and last.head.page_size == page_size
        return _End(cut.position, cut.chain, last.link, cut.seen) if usable else None
    if any(timeline.folder_of(site.backups, name).iterdir()):
        return None
    return _End(memory.position, _beginning(name), based=_based(site, name, memory.position))


def _based(site: Site, name: str, position: Position) -> datetime | None:
    """When the last backup was taken of a timeline's first generation; None where there is none."""
    bases = history_of(site, name).bases
    return max((base.artifact.taken for base in bases if base.position.salts == position.salts), default=None)


def _beginning(name: str) -> bytes:
    """Stands for the beginning of a timeline, as the hash of a flush does for its end."""
    return hashlib.sha256(name.encode()).digest()
