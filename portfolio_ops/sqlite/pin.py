"""A hold on a live WAL, so that every frame of every generation can be read before it is overwritten.

SQLite begins a WAL anew only when all of it is in the main file and no reader needs it
(<https://www.sqlite.org/wal.html>, "Concurrency"; `walRestartLog` in wal.c). A reader is in one of two places:

- The WAL is not all in the main file: the reader holds a *mark* (read lock 1 to 4). While it does, the WAL is not begun
  anew, so every frame stays readable.
- It is all in the main file: the reader holds lock 0. A writer may then begin the WAL anew, once: lock 0 forbids that
  anything of the new generation reaches the main file, so that one cannot end.

Therefore: keep a reader open always, begin the next before the last ends, and let a mark go in exchange for lock 0
only when every frame of the generation is archived. Then nothing passes unseen, whatever other processes do, and
nothing need be written into the site's database.

The same marks make it safe to checkpoint beside a site whose SQLite is of 3.7.0 to 3.51.2. There, a checkpoint that
read the index before another process began the WAL anew takes the new generation's frames for its own
(<https://www.sqlite.org/wal.html#walresetbug>). Each checkpoint of ours runs under a mark of ours, under which no WAL
is begun anew, or under lock 0, under which it does nothing.

Traps: a process that pins a database may not open and close any other descriptor or connection of it, for closing one
drops the locks of all (fcntl(2)); a snapshot is taken in another process. A checkpoint of kind RESTART or TRUNCATE by
someone else holds the site's writers off while it waits for our mark, for as long as its own busy timeout. Sealed at
rest, the pin holds lock 0, and there is nothing to wait for.
"""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from time import perf_counter, sleep

import apsw

from portfolio_ops.errors import BusyError, PortfolioOpsError, RefusedError
from portfolio_ops.host.files import open_plain
from portfolio_ops.sqlite.connection import require_usable, writing
from portfolio_ops.sqlite.emptying import empty_from_outside
from portfolio_ops.sqlite.lineage import (
    TimelineEndedError,
    holds_all,
    is_same_file,
    require_continuation,
    require_same_file,
)
from portfolio_ops.sqlite.look import tick_of
from portfolio_ops.sqlite.place import located, side
from portfolio_ops.sqlite.wal import HEADER
from portfolio_ops.sqlite.wal_header import parse_header
from portfolio_ops.sqlite.wal_index import WalIndex, read_wal_index
from portfolio_ops.sqlite.wal_locks import others_are_connected

_ROUNDS = 3
_CONNECTIONS = 3
_PAUSE = 0.001
_EMPTYING_MILLISECONDS = 1000
_UNKNOWN = -1


class Outcome(StrEnum):
    """What became of a seal.

    Attributes:
        SEALED: All of the generation is archived and in the main file: the site's next write begins another.
        PARTIAL: Another's reader or checkpoint was in the way. The generation goes on.
        BUSY: The write lock was not got in time. The generation goes on.
    """

    SEALED = "sealed"
    PARTIAL = "partial"
    BUSY = "busy"


@dataclass(frozen=True)
class Seal:
    """A seal, or an attempt.

    Attributes:
        outcome: What became of it.
        stall: Seconds for which the site's writers were held off.
    """

    outcome: Outcome
    stall: float


class Pin:
    """A hold on a WAL. Made by `pinned`.

    Attributes:
        page_size: The database's, in bytes.
        wal: The open `-wal`, to read frames from. It is closed with the pin, by nobody else.
        looked: When the last look began, UTC: what was committed before is in what it saw.
        holds_writers: Whether the site's writers are held off now, so that every millisecond counts.
    """

    def __init__(self, files: "dict[Path, int]", connections: list[apsw.Connection]) -> None:
        self._files = files
        self._main, self.wal, self._shm = files.values()
        self._writer, self._holder, self._spare = connections
        self.page_size = int(self._holder.pragma("page_size"))
        _begin(self._holder)
        self._last = read_wal_index(self._shm)
        self.holds_writers = False
        self._mark = 0  # the held mark is at this frame or beyond it
        self._may_end = self._whole = self._last.frames == self._last.backfilled
        self._written = self._main_written()
        self._settled: WalIndex | None = None
        self._failed: apsw.Error | None = None
        self.look()

    @property
    def may_end(self) -> bool:
        """Whether all of the generation was in the main file when our lock last moved: it may be overwritten any time.

        After `advance` and `seal` all of it is archived then. Where a pin has only just been taken, nothing is said of
        that.
        """
        return self._may_end

    def look(self) -> WalIndex:
        """The WAL of now. Its frames up to `frames` stay readable until `advance` or `seal` is called, or it `may_end`.

        Raises:
            TimelineEndedError: It is not the continuation of what was seen before. The pin is of no more use.
            BusyError: The index did not come to rest.
        """
        self.looked = datetime.now(UTC)
        index = read_wal_index(self._shm)
        if index.salts == self._last.salts and index.backfilled < self._last.backfilled:
            self._whole = False  # a process of the site died, and the index was made anew: it copies once more
        written = self._whole and self._main_written() != self._written
        try:
            for path, descriptor in self._files.items():
                require_same_file(descriptor, path)
            require_continuation(self._last, index, may_end=self._may_end, written=written)
        except TimelineEndedError:
            self._empty_wal(index)
            raise
        # A TRUNCATE may have come between the two looks; then the index has changed as well.
        if not holds_all(self.wal, index, self.page_size) and read_wal_index(self._shm) == index:
            raise TimelineEndedError(f"the WAL ends before frame {index.frames}, which its index says is committed")
        self._last = index
        self._may_end = self._may_end and index.frames == index.backfilled
        return index

    def _empty_wal(self, index: WalIndex) -> None:
        """Let no frame stay that is in the main file, where that is another by now.

        Whoever opens the database next, when nobody has it open, takes the WAL for what a crash has left, and would
        replay it over the file that was put there. A WAL that holds more than the main file is left to SQLite.
        """
        if not self._whole or index.frames != index.backfilled:
            return
        database, wal, _ = self._files
        with contextlib.suppress(apsw.Error, OSError, PortfolioOpsError, subprocess.SubprocessError):
            header = parse_header(os.pread(self.wal, HEADER, 0))
            if header is None or header.salts != index.salts:
                return  # another's was put there with the file
            self._holder.execute("ROLLBACK")  # it may hold a mark, which would be in the way
            # Where there is none any more, whoever has one open has the one that we have.
            if is_same_file(self._main, database) or not os.path.lexists(database):
                self._writer.set_busy_timeout(_EMPTYING_MILLISECONDS)
                self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            elif is_same_file(self.wal, wal):
                # Of what the site commits meanwhile, we would copy into the file that was there before.
                empty_from_outside(Path(str(wal).removesuffix("-wal")), _EMPTYING_MILLISECONDS)

    @property
    def inode(self) -> int:
        """The database file's, whatever stands at its name now."""
        return os.fstat(self._main).st_ino

    @property
    def reader(self) -> apsw.Connection:
        """A connection to ask the database something: it holds nothing, so whatever fails on it, the hold stays."""
        return self._writer

    def advance(self, archived: WalIndex) -> WalIndex:
        """Move the held mark to the present, so that checkpoints can copy what is archived into the main file.

        Args:
            archived: What `look` gave, once every frame up to its `frames` is archived.

        Raises:
            ValueError: Frames would be let go that are not archived; the mark stays where it is.
            TimelineEndedError: As `look`.
            apsw.BusyError: No read transaction could be begun for 10 s; the mark stays where it is.
        """
        with self._begun_anew() as index:
            mark = _required_archived(archived, index)
        self._let_go()
        self._mark = mark
        self._may_end = self._whole = index.frames == index.backfilled
        self._written = self._main_written()
        return index

    def leave_nothing(self) -> bool:
        """Copy all of the WAL into the main file, if nobody else has the database open; gives whether nobody has.

        The site was stopped then, and who stops it may put another file in the place of that one at once. So it is done
        before anything is archived: a mark stays held, under which no WAL is begun anew.

        Raises:
            TimelineEndedError: As `look`.
        """
        if others_are_connected(self._shm):
            return False
        self.copy_on()
        return True

    def copy_on(self) -> bool:
        """Copy what is in the WAL into the main file, archived or not: under a mark, so that all of it stays readable.

        Once the site has begun the WAL anew it goes on under our lock 0, beside which no checkpoint gets anywhere. Yet
        from the 1,000th frame on each of its commits tries one, and for that SQLite sorts all pages that are not in the
        main file (`walIteratorInit` in wal.c): a commit would take the longer, the larger the WAL is. Behind a mark up
        to which all is copied there is nothing to sort, and nothing that the site would have to write and sync.

        Where the disk fails, `seal` tells of it: what is committed is archived before that. Where it is full, that may
        pass, and else `seal` meets it.

        Returns:
            Whether there was anything to copy.

        Raises:
            TimelineEndedError: As `look`.
        """
        with self._begun_anew() as index:
            is_whole = index.backfilled == index.frames
        if is_whole:
            self._spare.execute("ROLLBACK")  # it may hold lock 0, under which what is not archived could be overwritten
            return False
        self._let_go()
        self._mark, self._whole = 0, False
        try:
            frames, done = self._checkpoint()
        except apsw.FullError:
            return True
        except apsw.Error as error:
            self._failed = error
            return True
        # No checkpoint copies what is committed behind our mark, so nobody may write the main file until it moves.
        self._whole, self._written = done == frames, self._main_written()
        return True

    @contextlib.contextmanager
    def _begun_anew(self) -> Iterator[WalIndex]:
        """A reader that begins beside the one that holds; if the block fails, it ends again. Gives the WAL of now."""
        try:
            _begin(self._spare)
        except (apsw.NotADBError, apsw.CorruptError) as error:  # as while another file is copied over this one
            self.look()  # which may know more, and does what is to be done then
            raise TimelineEndedError(f"the database cannot be read any more, while it is in use: {error}") from error
        try:
            yield self.look()
        except BaseException:
            self._spare.execute("ROLLBACK")
            raise

    def _let_go(self) -> None:
        """Let the reader that has begun anew hold, and the one before it go."""
        self._holder.execute("ROLLBACK")
        self._holder, self._spare = self._spare, self._holder

    def seal(self, archive: Callable[[WalIndex], None], budget: float) -> Seal:
        """End a generation with nothing of it unseen, so that the WAL does not grow for ever.

        Where writers leave a gap of a few milliseconds, that needs no lock of theirs. Where they leave none they are
        held off for the last few frames; not so while a reader of the site's makes it vain.

        Args:
            archive: Archives every frame up to the index's `frames`. It is called several times, the last time while
                writers may be held off (`holds_writers`): then it need not wait for the disk.
            budget: Seconds to wait for the write lock at most, and to hold it at most before the checkpoint is given
                up. One that has begun is not broken off.

        Raises:
            TimelineEndedError: As `look`.
            apsw.Error: A checkpoint failed, for example for want of space, or one of `copy_on` did. A mark is held all
                the same.
        """
        if self._failed is not None:  # the kernel tells of it once, and takes what it could not write for written
            raise self._failed
        for _ in range(_ROUNDS):
            frames, done = self._checkpoint()
            if done < frames:
                os.fdatasync(self._main)  # else the last checkpoint waits for all that this one wrote
            vain = _UNKNOWN < done < self._mark  # a reader of the site's needs an older state
            index = self.look()
            archive(index)
            self.advance(index)
            if self._may_end:
                return Seal(Outcome.SEALED, 0.0)
        if vain:
            return Seal(Outcome.PARTIAL, 0.0)
        self._writer.set_busy_timeout(int(budget * 1000))
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            return Seal(Outcome.BUSY, 0.0)
        return self._sealed_alone(archive, perf_counter(), budget)

    def _sealed_alone(self, archive: Callable[[WalIndex], None], began: float, budget: float) -> Seal:
        """Finish a seal under the write lock, which is let go."""
        self.holds_writers = True
        try:
            index = self.look()
            archive(index)
            self.advance(index)
            while not self._may_end and perf_counter() - began < budget:
                frames, done = self._checkpoint()
                if done == frames:
                    self.advance(index)
                else:
                    sleep(_PAUSE)  # a reader or a checkpoint that is about to end
        finally:
            self._writer.execute("ROLLBACK")
            self.holds_writers = False
        return Seal(Outcome.SEALED if self._may_end else Outcome.PARTIAL, perf_counter() - began)

    def settle(self, archived: WalIndex, *, checkpoint: bool) -> int | None:
        """End with all that is archived in the main file, and nothing else: so that its next change shows.

        A pin that ends so leaves the files as the site does: who closes last deletes the WAL.

        Args:
            archived: What `look` gave, once every frame up to its `frames` is archived.
            checkpoint: Copy what is not in the main file yet. Else only a WAL without a frame will do.

        Returns:
            When the main file was changed last, as `changed`; None where a reader of the site's is in the way, the disk
            fails, or the site writes on: but into a WAL that it began anew after a seal, it may, since nothing of that
            gets into the main file while this pin lasts.

        Raises:
            TimelineEndedError: As `look`.
        """
        if archived.frames and not checkpoint:
            return None
        try:
            if archived.frames:
                self._checkpoint()
            index = self.look()
            if _same_place(index, archived):
                self.advance(archived)
            elif not self._has_begun_anew(archived, index):
                return None
            os.fsync(self._main)
        except (apsw.Error, OSError, BusyError):
            return None
        # Nobody writes the file as long as our lock is held; what is written then must not bear the time of now.
        sleep(tick_of(self.changed))
        changed = self.changed
        index = self.look()
        if self._whole and _same_place(index, archived):
            self._settled = archived
        elif not self._has_begun_anew(archived, index):
            return None
        return changed

    def _has_begun_anew(self, archived: WalIndex, index: WalIndex) -> bool:
        """Whether all that is archived is in the main file, and the site goes on in another generation.

        Our lock is 0 then: it was got when all was archived, and under a mark no WAL is begun anew.
        """
        return self._whole and index.salts != archived.salts and not index.backfilled

    @property
    def changed(self) -> int:
        """When the main file, its owner or its mode was changed last, in nanoseconds: its ctime, which nobody sets."""
        return os.fstat(self._main).st_ctime_ns

    def first_page(self) -> tuple[bytes, int] | None:
        """The first page and the number of pages, where all is in the main file; None where that is not known."""
        if not self._may_end:
            return None
        page, pages = os.pread(self._main, self.page_size, 0), os.fstat(self._main).st_size // self.page_size
        if len(page) < self.page_size:
            return None
        # <https://www.sqlite.org/fileformat2.html#in_header_database_size>: the file may be longer.
        stated = int.from_bytes(page[28:32], "big") if page[24:28] == page[92:96] else 0
        return page, min(stated or pages, pages)

    @property
    def is_settled(self) -> bool:
        """Whether it is still as `settle` left it."""
        try:
            return self._settled is not None and _same_place(self.look(), self._settled)
        except (PortfolioOpsError, OSError):
            return False

    def _main_written(self) -> int:
        """When the main file was last written, in nanoseconds of its clock, which ticks each few milliseconds."""
        return os.fstat(self._main).st_mtime_ns

    def _checkpoint(self) -> tuple[int, int]:
        """Copy what may be copied into the main file, waiting for nobody.

        Returns:
            The frames of the WAL, and those of them that are in the main file now: `_UNKNOWN` where another process
            is at it.
        """
        try:
            return self._spare.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            return 0, _UNKNOWN


@contextlib.contextmanager
def pinned(database: Path) -> Iterator[Pin]:
    """Pin a live database in WAL mode for as long as the block runs.

    It leaves the site's files as `writing` does, but that a WAL which is not empty at the end is kept, unless it is
    settled: the next pin can go on from it.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is not a database, or not in WAL mode.
        BusyError: It is locked exclusively.
    """
    with contextlib.ExitStack() as descriptors, contextlib.ExitStack() as connections:
        path = located(database)
        require_usable(path)
        files = {database: _opened(descriptors, path)}
        opened = [connections.enter_context(writing(path)) for _ in range(_CONNECTIONS)]
        if opened[0].pragma("journal_mode") != "wal":
            raise RefusedError(
                f"{database} is not in WAL mode", suggestion="let the site run PRAGMA journal_mode=WAL, once"
            )
        for ending in ("-wal", "-shm"):
            name = side(path, ending)
            files[name] = _opened(descriptors, name)
        connections.callback(lambda: _keep_wal(opened, files[side(path, "-wal")], pin))
        pin: Pin | None = None
        pin = Pin(files, opened)
        yield pin


def _opened(descriptors: contextlib.ExitStack, path: Path) -> int:
    """Open a file until after the connections are closed."""
    descriptor = open_plain(path)
    descriptors.callback(os.close, descriptor)
    return descriptor


def _keep_wal(connections: list[apsw.Connection], wal: int, pin: Pin | None) -> None:
    """Let no close of ours delete a WAL that holds anything but what is settled.

    Whether it holds anything, `writing` looked when the site may have been stopped.
    """
    keep = os.fstat(wal).st_size > 0 and not (pin is not None and pin.is_settled)
    for connection in connections:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(keep))


def _required_archived(archived: WalIndex, index: WalIndex) -> int:
    """How many frames of the present generation are archived.

    Raises:
        ValueError: Fewer than are in the main file. If the new reader got lock 0 these may be overwritten.
    """
    frames = archived.frames if archived.salts == index.salts else 0
    if index.backfilled > frames:
        raise ValueError(f"{index.backfilled} frames may be overwritten, {frames} are archived")
    return frames


def _same_place(index: WalIndex, archived: WalIndex) -> bool:
    """Whether nothing was committed behind what is archived."""
    return (index.salts, index.frames) == (archived.salts, archived.frames)


def _begin(connection: apsw.Connection) -> None:
    """Begin a read transaction: only the first read takes the lock."""
    connection.execute("BEGIN")
    try:
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    except BaseException:
        connection.execute("ROLLBACK")
        raise
