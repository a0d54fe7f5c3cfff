"""Following a pinned database: what was committed goes into the archive, at most once a second, until told to stop."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import apsw

from portfolio_ops.config import Site
from portfolio_ops.host import messages
from portfolio_ops.host.inotify import Watch
from portfolio_ops.host.journal import Log, unhurried
from portfolio_ops.jobs.base import Base, Leads
from portfolio_ops.jobs.chapter import Chapter
from portfolio_ops.jobs.detect import Detector
from portfolio_ops.jobs.following import ALIVE, Orders, Rest, Stalls, begin_timeline
from portfolio_ops.jobs.pace import Load, Pace
from portfolio_ops.jobs.resume import beginning, resumable
from portfolio_ops.moment import local
from portfolio_ops.sqlite.pin import Outcome, Pin
from portfolio_ops.sqlite.place import located, side
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.tail import DamagedWalError, Tail
from portfolio_ops.sqlite.wal_index import WalIndex
from portfolio_ops.store import witness
from portfolio_ops.store.standing import Standing, remember


class Follower:
    """One timeline, while its database is pinned.

    Args:
        pin: Held by the caller.
        orders: Looked at all the time.
        ended: A timeline that is in doubt: it is not gone on with.
    """

    def __init__(self, site: Site, pin: Pin, log: Log, watch: Watch, orders: Orders, *, ended: str = "") -> None:
        self._site, self._pin, self._log, self._orders = site, pin, log, orders
        self._index, self._chain = pin.look(), b""
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
        resumed = resumable(site, self._index, self._pin)
        if resumed is not None and resumed.name != ended:
            words = f"Going on with timeline {resumed.name} from frame {resumed.tail.position.frame}"
            self._log.event(messages.ARCHIVE_RESUMED, words, timeline=resumed.name)
            end, self._chain = resumed.end, resumed.end.chain
            chapter = Chapter(site, resumed.name, page_size, end.link, end.seen, based=end.based)
            return resumed.tail, chapter, resumed.name, True
        tail = self._tail_from_here()
        name = begin_timeline(site, self._log)
        self._chain = beginning(name)
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
            pace = Pace(time.monotonic())
            while True:
                now = time.monotonic()
                is_left = not once and self._is_left(now, pace)
                is_due = pace.is_flush_due(now, is_left=is_left, at_once=self._orders.stop or once)
                if is_due:
                    pace.note_flush(now, self._flush_all(copies=not once), once=once)
                if pace.is_seal_due(now, is_left=is_left) and self._index.frames:
                    pace.note_seal(now, done=self._seal())
                if is_due and not once:
                    self._detector.look()
                if pace.is_settling_due(now):
                    self._settle(once=False)
                    pace.settled = True
                self._chapter.require_named(datetime.now(UTC))
                self._base.look()
                if pace.is_copy_due(now):
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
                begins = self._pin.may_end and pace.busy and not once  # before it is looked at again
                pace.note_change(dirty=changed or self._is_behind(), begins=begins)

    def _is_left(self, now: float, pace: Pace) -> bool:
        """Whether the site has left the database; unless the disk is full or fails, all is in the main file then."""
        is_left = pace.may_be_left(now) and self._pin.leave_nothing()
        if self._rest.is_closed:
            pace.note_close(now)
        return is_left

    def _next(self, now: float, pace: Pace) -> float:
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

    def _flush_all(self, *, copies: bool) -> Load:
        """Archive what is committed, and let the held mark move on.

        Where the site would find something to checkpoint soon it is copied at once: but not before it is archived, for
        where that fails, what the WAL still holds can be archived later.

        Args:
            copies: Whether anything may be copied and sealed. A single pass leaves the generation as it is: only in
                that one can the next pass go on.
        """
        before, index = self._index, self._pin.look()
        grown = index.frames - (before.frames if before.salts == index.salts else 0)
        load = Load(index.frames, grown, self._pin.page_size)
        with unhurried(load.size):
            self._flush(index)
            if copies and load.nears_checkpoints:
                self._pin.copy_on()
            else:
                self._pin.advance(index)
        return load

    def _copy_on(self, now: float, pace: Pace) -> None:
        """Copy what a busy site has written into a new WAL, before it comes to `_FULL`."""
        with unhurried(self._pin.look().frames * self._pin.page_size):
            is_copied = self._pin.copy_on()
        pace.note_copy(now, done=is_copied)

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
