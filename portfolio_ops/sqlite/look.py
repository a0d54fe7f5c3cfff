"""Consistent looks at a live database that has no WAL, again and again, hardly in the way of its writers.

With a rollback journal nothing but a reader's shared lock keeps a writer from changing the file. To hold it for as long
as a whole file takes to be read would hold the site up. So:

1. The lock is taken for a moment, to see what the file is (inode, length, time of change, change counter); let go; and
   the file is read. Then the lock is taken for a moment again. If the file is the same by all of that, nothing was
   written meanwhile, and what was read is what was committed. The counter alone would not do: a transaction that is
   too large for its cache writes into the file before it commits, and may be rolled back
   (<https://www.sqlite.org/atomiccommit.html>, "Cache Spill"); and the time alone would not either, for the kernel's
   clock ticks slowly. Therefore a file that was changed a moment ago is not read so.
2. Where the site did write, the lock is held while the filesystem makes a copy that shares all blocks, which takes
   milliseconds; or, where it cannot, while the file is read, but no longer than a writer is known to wait.

A journal that a crash left is rolled back by SQLite as the lock is taken, as it is for any reader. That is right for
the owner of the database only, who may write it: what this runs as.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TypeVar, cast

import apsw

from portfolio_ops.calling import tool
from portfolio_ops.errors import BusyError, PortfolioOpsError, RefusedError
from portfolio_ops.host.files import open_plain, open_regular, require_dense
from portfolio_ops.sqlite.connection import reading, require_usable
from portfolio_ops.sqlite.difference import COUNTED, change_counter
from portfolio_ops.sqlite.lineage import TimelineEndedError, require_same_file
from portfolio_ops.sqlite.place import located
from portfolio_ops.sqlite.snapshot import Snapshot, clone, unnamed, warm

_Result = TypeVar("_Result")

BEHIND = 2e-7
"""Seconds a byte for which who looks may be behind: 20 times what a slow look takes."""

_WAL_VERSION = b"\2"
_VERSION_AT = 19  # the read version in the header (fileformat2.html, section 1.3.3)
_TICK = 0.05
"""Seconds after which the kernel's clock for files has gone on for certain (it ticks 100 to 1,000 times a second)."""

_COARSE_TICK = 2.1  # of filesystems that note whole seconds only, or every other
_SECOND = 1_000_000_000


_HOLD_MOST = 2.0
"""Seconds for which the lock is held at most: less than the 5 s for which many drivers let a writer wait."""


class RestlessError(BusyError):
    """The file is written all the time, and too large to be read while its writers are held up."""

    code = "RESTLESS"


class _ChangedError(Exception):
    """The file was written while it was read without a lock."""


@dataclass(frozen=True)
class _State:
    """What tells that a file was not changed: its inode, length, time of change (ns), and SQLite's own counter."""

    inode: int
    length: int
    changed: int
    counter: int


class Looker:
    """A live database without a WAL, open for looks. Made by `opened`. Between looks it holds no lock.

    Attributes:
        page_size: The database's, in bytes.
        looked: When the last look began, UTC: what was committed before is in what it saw.
        cost: Seconds that it took to read, without waiting for locks.
        held: Seconds of them for which it held writers up.
    """

    def __init__(self, path: Path, main: int, connection: apsw.Connection, scratch: Path) -> None:
        self._path, self._main, self._connection, self._scratch = path, main, connection, scratch
        self._last: _State | None = None
        self._held_pages = bool(connection.pragma("page_count"))
        self.page_size = int(connection.pragma("page_size"))
        self.looked = datetime.now(UTC)
        self.cost = self.held = 0.0

    @property
    def inode(self) -> int:
        """The database file's, whatever stands at its name now."""
        return os.fstat(self._main).st_ino

    @property
    def counter(self) -> int:
        """SQLite's change counter, as it stands in the file now."""
        return change_counter(os.pread(self._main, COUNTED, 0))

    @property
    def reader(self) -> apsw.Connection:
        """A connection to ask the database something between looks."""
        return self._connection

    def is_behind(self) -> bool:
        """Whether the file was changed since the last look, or may have been. It costs nothing, and takes no lock."""
        status = os.fstat(self._main)
        last = self._last
        return last is None or (status.st_size, status.st_mtime_ns) != (last.length, last.changed)

    def forget(self) -> None:
        """Let the next look read, even if nothing was changed since the last: something else was heard since then."""
        self._last = None

    def look(self, read: Callable[[Iterable[memoryview]], _Result], alive: Callable[[], object]) -> _Result | None:
        """See the database as it is, by handing its image from front to back to `read`.

        Args:
            read: Called once or twice; of its results the last counts.
            alive: Called all the time while the file is read.

        Returns:
            What `read` gave; None if nothing was changed since the last look: then nothing was read.

        Raises:
            TimelineEndedError: The file was replaced or emptied, or the site has changed page size or journal mode.
            RefusedError: It is empty.
            RestlessError: It could not be read.
            apsw.BusyError: The lock was not got for 10 s.
            OSError: The disk fails or is full.
        """
        self.looked = datetime.now(UTC)
        with self._still() as (before, pages):
            pass
        if before == self._last:
            return None
        self.cost = self.held = 0.0
        if time.time() - before.changed / _SECOND > tick_of(before.changed):
            began = perf_counter()
            with contextlib.suppress(_ChangedError):
                try:
                    result = read(self._unheld(before, pages, alive))
                finally:
                    self.cost = perf_counter() - began
                with self._still() as (after, _):
                    pass
                if after == before:
                    self._last = after
                    return result
        return self._held(read, alive)

    def _unheld(self, before: _State, pages: int, alive: Callable[[], object]) -> Iterator[memoryview]:
        """The file's content, without a lock."""
        for chunk in living(self._chunks(self._main, pages), alive):
            yield chunk
            if os.fstat(self._main).st_mtime_ns != before.changed:
                raise _ChangedError

    def _held(self, read: Callable[[Iterable[memoryview]], _Result], alive: Callable[[], object]) -> _Result:
        """The look at a file that is written all the time."""
        began = perf_counter()
        warm(self._main, alive)
        self.cost += perf_counter() - began
        self.looked = datetime.now(UTC)
        with unnamed(self._scratch) as copy:
            with self._still() as (state, pages):
                began = perf_counter()
                try:
                    is_there = clone(self._main, copy)
                    result = None if is_there else read(self._hurried(pages, began, alive))
                finally:
                    self.held = perf_counter() - began
                    self.cost += self.held
            if is_there:
                began = perf_counter()
                result = read(living(self._chunks(copy, pages), alive))
                self.cost += perf_counter() - began
        self._last = state
        return cast("_Result", result)

    def _hurried(self, pages: int, began: float, alive: Callable[[], object]) -> Iterator[memoryview]:
        """The file's content, as long as its writers may wait."""
        for chunk in living(self._chunks(self._main, pages), alive):
            yield chunk
            if perf_counter() - began > _HOLD_MOST:
                raise RestlessError(
                    f"{self._path} is written all the time, and cannot be read within {_HOLD_MOST:.0f} s",
                    suggestion="let the site run PRAGMA journal_mode=WAL, once; else it is archived when it rests",
                )

    def _chunks(self, descriptor: int, pages: int) -> Iterator[memoryview]:
        return Snapshot(self.page_size, pages, "", None, self.looked, descriptor).chunks()

    @contextlib.contextmanager
    def _still(self) -> Iterator[tuple[_State, int]]:
        """Hold the shared lock: nobody writes into the file. Gives its state, and its length in pages."""
        connection = self._connection
        connection.execute("BEGIN")
        try:
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            require_same_file(self._main, self._path)
            self._require_same_kind()
            status = os.fstat(self._main)
            state = _State(status.st_ino, status.st_size, status.st_mtime_ns, self.counter)
            yield state, int(connection.pragma("page_count"))
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _require_same_kind(self) -> None:
        if self._connection.pragma("journal_mode") == "wal":
            raise TimelineEndedError("the site has given the database a WAL", in_order=True)
        if not self._connection.pragma("page_count"):
            if self._held_pages:
                raise TimelineEndedError(f"{self._path} was emptied while it was in use")
            raise RefusedError(f"{self._path} is empty", suggestion="it is archived once the site has written into it")
        page_size = int(self._connection.pragma("page_size"))
        if page_size != self.page_size:
            raise TimelineEndedError(f"the page size changed from {self.page_size} to {page_size}", in_order=True)


@contextlib.contextmanager
def opened(database: Path, scratch: Path) -> Iterator[Looker]:
    """Open a live database without a WAL for looks, for as long as the block runs.

    Args:
        scratch: A folder for unnamed copies.

    Raises:
        PortfolioOpsError: As `reading`; or it has a WAL.
    """
    with contextlib.ExitStack() as descriptors:  # entered before the connection, so closed after it
        path = located(database)
        require_usable(path)
        main = open_plain(path)
        descriptors.callback(os.close, main)
        with reading(path) as connection:
            require_dense(main, path)
            if connection.pragma("journal_mode") == "wal":
                raise RefusedError(
                    f"{database} has a WAL, and its header names none",
                    suggestion=f"it may just have been given one; if this stays: {tool()} doctor",
                )
            yield Looker(path, main, connection, scratch)


def has_wal(database: Path) -> bool | None:
    """Whether a database's header names a WAL; None where there is no such file, or where it is too short to tell.

    Never in a process that has it open: closing the file would drop its locks (fcntl(2)).
    """
    header = _header_of(database)
    return None if len(header) <= _VERSION_AT else header[_VERSION_AT : _VERSION_AT + 1] == _WAL_VERSION


def tick_of(changed: int) -> float:
    """Seconds after which a file's clock has gone on for certain, given one of its moments in nanoseconds."""
    return _TICK if changed % _SECOND else _COARSE_TICK


def change_counter_of(database: Path) -> int | None:
    """The change counter in the header of a database that has no WAL; None where it has one or cannot be read.

    Each transaction raises it. Never in a process that has it open, as `has_wal`.
    """
    header = _header_of(database)
    if len(header) < COUNTED or header[_VERSION_AT : _VERSION_AT + 1] == _WAL_VERSION:
        return None
    return change_counter(header)


def _header_of(database: Path) -> bytes:
    try:
        descriptor = open_regular(located(database))
    except PortfolioOpsError:
        return b""
    try:
        return os.pread(descriptor, COUNTED, 0)
    finally:
        os.close(descriptor)


def living(chunks: Iterator[memoryview], alive: Callable[[], object]) -> Iterator[memoryview]:
    """Chunks of an image as they are, with a sign of life after each."""
    for chunk in chunks:
        yield chunk
        alive()
