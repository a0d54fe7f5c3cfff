"""Following a database that has no WAL: what a look finds changed goes into the archive, as often as looks may cost.

A look reads the whole database. So the pause between two of them grows with what they take: less than a twentieth of a
core, and of the site's time where its writers are held up.
"""

import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from portfolio_ops.config import Site
from portfolio_ops.errors import BusyError, PortfolioOpsError
from portfolio_ops.host import messages
from portfolio_ops.host.inotify import Watch
from portfolio_ops.host.journal import Log, notify, unhurried
from portfolio_ops.jobs.base import Base, Leads
from portfolio_ops.jobs.chapter import Chapter, require_room
from portfolio_ops.jobs.detect import Detector
from portfolio_ops.jobs.following import ALIVE, EVERY, Orders, Rest, Stalls, begin_timeline
from portfolio_ops.moment import local
from portfolio_ops.restore.history import History, history_of
from portfolio_ops.sqlite.difference import Difference, PageHashes
from portfolio_ops.sqlite.increment import Increment, Link
from portfolio_ops.sqlite.lineage import TimelineEndedError
from portfolio_ops.sqlite.look import Looker, RestlessError, living
from portfolio_ops.sqlite.place import located, side
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.store import image, timeline
from portfolio_ops.store.lock import held
from portfolio_ops.store.pages import Memory

_SHARE = 20.0
"""Between two looks, so many times as long as the last one took."""

_SETTLED = 0.2
"""Seconds after the first sign of a change: the transaction that made it is over mostly, and the file at rest."""

_PATIENCE = 60.0
"""Seconds after which it is told that a database finds no rest, and cannot be read."""

_TOO_LONG = 5.0
"""Seconds of a look after which a stop does not wait for another one: the next start sees what came since."""

_WAIT = timedelta(seconds=ALIVE)
_SLICE = 1.0
_MEMORY_MOST = 4 << 20


@dataclass(frozen=True)
class _Start:
    """Where a timeline is begun, or gone on with.

    Attributes:
        hashes: The last state that is archived.
        link: What the next file follows on; None where the timeline has none.
        seen: When the last flush was seen.
        resumed: Whether it is gone on with.
        based: When the newest backup was taken that stands there; of interest only where nothing was flushed.
    """

    name: str
    hashes: PageHashes
    link: Link | None
    seen: datetime | None
    resumed: bool
    based: datetime | None = None


class PageFollower:
    """One timeline of a database without a WAL.

    Args:
        looker: Held by the caller.
        orders: Looked at all the time.
        ended: A timeline that is in doubt: it is not gone on with.
    """

    def __init__(self, site: Site, looker: Looker, log: Log, watch: Watch, orders: Orders, *, ended: str = "") -> None:
        self._site, self._looker, self._log, self._orders = site, looker, log, orders
        self._memory = Memory(site.state)
        self._seen: PageHashes | None = None
        with self._alone():
            start = self._resumed(ended) or self._begun()
            self._memory.write(looker.inode, start.hashes)
        self.timeline, self._hashes = start.name, start.hashes
        self._chapter = Chapter(site, start.name, looker.page_size, start.link, start.seen, based=start.based)
        self._leads = Leads(site, start.name, lambda: self._hashes.position)
        self._base = Base(site, log, self._leads, resumed=start.resumed)
        self._has_base = self._base.is_there
        self._detector = Detector(site, looker, log)
        self._interval, self._stalls = 0.0, Stalls(site, log)
        self._restless = 0.0  # since when it cannot be read, as of time.monotonic(3)
        database = located(site.database)
        names = {database, side(database, "-journal"), image.path_of(site.state)}
        self._rest = Rest(watch, names)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While no backup makes a copy."""
        ends = time.monotonic() + image.PATIENCE.total_seconds()
        with contextlib.ExitStack() as lock:
            while True:
                try:
                    lock.enter_context(held(self._site.state, image.LOCK, wait=_WAIT, on_wait=lambda _: None))
                except BusyError:
                    notify("WATCHDOG=1")
                    if time.monotonic() > ends:
                        raise
                else:
                    break
            yield

    def _living(self) -> None:
        """For the watchdog, while a large file is read; and what differs in it goes to the disk meanwhile.

        Raises:
            PortfolioOpsError: That has come to the site's reserve.
        """
        require_room(self._site.backups)
        self._log.progress(f"Looking at {self._site.database.name}")
        notify("WATCHDOG=1")

    def _resumed(self, ended: str) -> _Start | None:
        """Go on with the newest timeline if what it ended with is known, or is what there is."""
        site, looker = self._site, self._looker
        names = timeline.own(site.backups, site.name)
        if not names or names[-1] == ended:
            return None
        history = history_of(site, names[-1])
        last = timeline.newest(site.backups, names[-1], site.name)
        if last is not None and (last.damaged or last.head.page_size != looker.page_size):
            return None
        hashes = self._known(_ends_of(history, last))
        if hashes is None:
            return None
        end = hashes.position
        words = f"Going on with timeline {names[-1]} from change {end.frame}"
        self._log.event(messages.ARCHIVE_RESUMED, words, timeline=names[-1])
        link, seen = (last.link, last.cuts[-1].seen) if last is not None else (None, None)
        based = max((base.artifact.taken for base in history.bases if base.position == end), default=None)
        return _Start(names[-1], hashes, link, seen, resumed=True, based=based)

    def _known(self, ends: Collection[Position]) -> PageHashes | None:
        """The hashes of the state with which a timeline ended, which is among some."""
        for end in ends:
            hashes = self._memory.read(self._looker.inode, self._looker.page_size, end)
            if hashes is not None and self._looker.counter >= end.frame:
                return hashes
        hashes = self._learned() if len(ends) == 1 else None
        return hashes if hashes is not None and hashes.position in ends else None

    def _begun(self) -> _Start:
        """Begin a timeline."""
        image.withdraw(self._site.state)  # it is of another
        hashes = self._learned()
        name = begin_timeline(self._site, self._log)
        return _Start(name, hashes, None, None, resumed=False)

    def _learned(self) -> PageHashes:
        """The hashes of what there is now."""
        size = self._looker.page_size
        self._seen = self._looker.look(lambda chunks: PageHashes.of(size, chunks), self._living) or self._seen
        if self._seen is None:
            raise AssertionError("the first look found nothing")
        return self._seen

    def run(self, *, once: bool) -> None:
        """Follow until told to stop, or, if `once`, until what is committed now is archived and a base is there."""
        with contextlib.closing(self._chapter), self._base, self._detector:
            dirty, due = True, 0.0
            while True:
                self._flush_offered()
                now = time.monotonic()
                if dirty and (now >= due or self._orders.stop or once):
                    dirty = not self._flush(insist=once)
                    if not once:
                        self._detector.look()
                    due = time.monotonic() + self._interval
                self._chapter.require_named(datetime.now(UTC))
                self._base.look()
                if once:
                    self._base.require_no_failure()
                if self._orders.stop or self._orders.give_way() or (once and self._base.is_there):
                    self._end()
                    return
                self._require_base()
                self._detector.tend()
                before = dirty
                dirty = self._rest.take(self._next(due, dirty=dirty), self._status(), dirty=dirty)
                dirty = dirty or self._looker.is_behind()
                if dirty and not before:
                    due = max(due, time.monotonic() + _SETTLED)

    def _end(self) -> None:
        self._flush_offered()
        if self._looker.cost < _TOO_LONG:
            self._flush(insist=False)
        self._require_base()

    def _next(self, due: float, *, dirty: bool) -> float:
        """Seconds until there is something to do even if nothing happens."""
        now = time.monotonic()
        moments = [now + ALIVE, self._base.next_look(now)]
        if dirty:
            moments += [due, now + _SLICE]  # a copy may be handed over meanwhile
        if (detecting := self._detector.due()) is not None:
            moments.append(detecting)
        return max(0.0, min(moments) - now)

    def _status(self) -> str:
        last = f"last restore point {local(self._chapter.last)}" if self._chapter.last else "no restore point yet"
        return f"Timeline {self.timeline}: {last}, a look every {self._interval:.0f} s at most"

    def _flush(self, *, insist: bool) -> bool:
        """Look at the database, and archive what has changed; gives whether that could be done.

        Raises:
            RestlessError: It could not, and whoever asks does `insist`. Else it is told if it lasts.
        """
        try:
            self._look()
        except RestlessError as error:
            if insist:
                raise
            self._restless = self._restless or time.monotonic()
            if time.monotonic() - self._restless > _PATIENCE:
                self._restless = float("inf")
                words = f"Nothing is archived: {error.message}"
                self._log.event(messages.ARCHIVE_FAILED, words, error=error.code, suggestion=error.suggestion)
            return False
        finally:
            self._interval = max(EVERY, _SHARE * self._looker.cost)
            self._stalls.tell(self._looker.held, ", while the database was looked at")
        self._restless = 0.0
        return True

    def _look(self) -> None:
        with self._alone(), SpooledTemporaryFile(max_size=_MEMORY_MOST, dir=str(self._site.state)) as file:
            self._take_offered()
            content = cast("BinaryIO", file)
            found = self._looker.look(lambda chunks: self._hashes.compared(chunks, content), self._living)
            if found is not None:
                self._require_no_older(found)
                self._append(found, self._looker.looked)

    def _flush_offered(self) -> None:
        """Archive the state in which a backup's copy shows the database, if there is one."""
        if image.path_of(self._site.state).exists():
            with self._alone():
                self._take_offered()

    def _take_offered(self) -> None:
        with (
            image.offered(self._site.state) as copy,
            SpooledTemporaryFile(max_size=_MEMORY_MOST, dir=str(self._site.state)) as file,
        ):
            if copy is None:
                return
            in_time = self._chapter.last is None or self._chapter.last <= copy.seen
            if in_time and copy.image.page_size == self._looker.page_size:
                found = self._hashes.compared(living(copy.image.chunks(), self._living), cast("BinaryIO", file))
                if found.position.frame >= self._hashes.position.frame:
                    if found.numbers:
                        # It may be older than what was looked at to begin with, which is to be archived after it then.
                        self._looker.forget()
                    self._append(found, copy.seen)
                    self._has_base = True
        image.withdraw(self._site.state)

    def _append(self, found: Difference, seen: datetime) -> None:
        """Archive what leads from the last state to another, if that is another."""
        since = self._hashes.position
        if not found.numbers:
            return
        with unhurried(len(found.numbers) * self._looker.page_size):
            self._chapter.append(found.pages(), found.database_pages, since, found.position, seen, durable=True)
        self._hashes.take(found)
        self._memory.update(self._hashes, found)

    def _require_no_older(self, found: Difference) -> None:
        """Check that the database was not exchanged for an older one, within its file.

        Raises:
            TimelineEndedError: It was.
        """
        before, now = self._hashes.position.frame, found.position.frame
        if now < before:
            raise TimelineEndedError(
                f"the database went back from change {before} to change {now}: another was copied over it"
            )

    def _require_base(self) -> None:
        """Check that a base that was made stands at a restore point.

        Raises:
            PortfolioOpsError: It does not: its copy was not handed over.
        """
        copy = image.path_of(self._site.state)
        if not self._base.is_there or self._has_base or copy.exists():
            return
        self._has_base = self._leads()
        if not self._has_base:
            raise PortfolioOpsError(
                "the base of the timeline stands at no restore point: its copy was not handed over",
                suggestion=f"is there room in {self._site.state}? Another base is made",
            )


def _ends_of(history: History, last: Increment | None) -> set[Position]:
    """The last state of a timeline; where nothing was seen to change in it, it is among those of its backups."""
    if last is not None:
        return {last.cuts[-1].position}
    if history.timeline.increments or history.timeline.problems:
        return set()
    return {base.position for base in history.bases}
