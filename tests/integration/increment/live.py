"""A real database with writers, and an archiver of it as plain as can be."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import apsw

from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.increment import Head, Increment, Link, scan
from portfolio_ops.sqlite.increment_content import extract
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.wal import frame_offset
from portfolio_ops.sqlite.wal_header import Cursor, parse_header
from portfolio_ops.sqlite.wal_reader import committed
from tests.integration.wal.files import replayed

NOON = datetime(2025, 10, 14, 12, 0, 0, 250_000, tzinfo=UTC)
ORIGIN = Position("00" * 8, 0)


@dataclass(frozen=True)
class Flush:
    """What an archiver hands to a writer."""

    pages: list[tuple[int, bytes]]
    database_pages: int
    since: Position
    position: Position
    seen: datetime

    def append_to(self, writer: IncrementWriter) -> Cut:
        return writer.append(self.pages, self.database_pages, self.since, self.position, self.seen)


class Live:
    """A database that SQLite changes at random; `base` is the state before the first flush."""

    def __init__(self, scratch: Path, page_size: int, seed: int) -> None:
        self._scratch = scratch
        self._folder = TemporaryDirectory(dir=scratch)
        self._database = Path(self._folder.name) / "live.sqlite"
        self._wal = self._database.with_name("live.sqlite-wal")
        self.page_size, self.chooser = page_size, Random(seed)
        self._connection = apsw.Connection(str(self._database))
        for pragma in (f"page_size={page_size}", "journal_mode=wal", "synchronous=off", "wal_autocheckpoint=0"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        self._connection.create_scalar_function("noise", lambda *length: self.chooser.randbytes(int(length[0])))
        self._connection.execute("CREATE TABLE rows(id INTEGER PRIMARY KEY, body BLOB)")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.base = self._database.read_bytes()
        self._position, self._seen = ORIGIN, NOON
        self._cursor: Cursor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._folder.cleanup()

    def image(self) -> bytes:
        """The database's bytes now, as SQLite makes them of a copy."""
        return replayed(self._database.read_bytes(), self._wal.read_bytes(), self._scratch)

    def change(self) -> None:
        """One to three transactions; seldom, the WAL is begun anew before them."""
        if self._position != ORIGIN and self.chooser.random() < 0.15:
            self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        for _ in range(self.chooser.randint(1, 3)):
            self.chooser.choice([self._insert, self._insert, self._update, self._delete, self._vacuum])()

    def flush(self, seconds: float) -> Flush:
        """What was committed since the last flush, seen so many seconds after it."""
        wal = self._wal.read_bytes()
        header = parse_header(wal)
        assert header is not None
        known = self._cursor if self._position.salts == header.salts.hex() else None
        cursor = known or header.start
        begin = 32 + cursor.frame * (24 + self.page_size)
        found = committed(header, cursor, [memoryview(wal)[begin:]])
        newest = {page: cursor.frame + index for index, page in enumerate(found.pages.tolist(), 1)}
        pages = [(page, self._page(wal, frame)) for page, frame in newest.items()]
        since, self._cursor = self._position, found.end
        self._position = Position(header.salts.hex(), found.end.frame)
        self._seen += timedelta(seconds=seconds)
        return Flush(pages, int(found.sizes[-1]), since, self._position, self._seen)

    def _page(self, wal: bytes, frame: int) -> bytes:
        at = frame_offset(frame, self.page_size)
        return wal[at : at + self.page_size]

    def _insert(self) -> None:
        length = self.chooser.randint(0, 3 * min(self.page_size, 4096))
        self._connection.execute("INSERT INTO rows(body) VALUES(noise(?))", (length,))

    def _update(self) -> None:
        third = self.chooser.randrange(3)
        self._connection.execute("UPDATE rows SET body = noise(length(body)) WHERE id % 3 = ?", (third,))
        self._insert()  # an update of nothing commits nothing

    def _delete(self) -> None:
        self._insert()
        self._connection.execute("DELETE FROM rows WHERE id % 2 = ?", (self.chooser.randrange(2),))

    def _vacuum(self) -> None:
        self._delete()
        self._connection.execute("VACUUM")


def head(page_size: int, resolution: int = 1, predecessor: Link | None = None, *, timeline: str = "t1") -> Head:
    return Head("shop", timeline, page_size, resolution, predecessor)


def written(path: Path, made: Head, flushes: list[Flush]) -> Increment:
    """A file with these flushes."""
    with IncrementWriter.create(path, made) as writer:
        for flush in flushes:
            flush.append_to(writer)
    return scan(path)


def small(page_size: int, count: int, origin: Position = ORIGIN, seed: int = 1) -> list[Flush]:
    """Flushes of a few pages of a database that never was: for what no SQLite has to replay."""
    chooser, flushes = Random(seed), list[Flush]()
    for number in range(1, count + 1):
        pages = [(page, bytes([chooser.randrange(256)]) * page_size) for page in chooser.sample(range(1, 9), 2)]
        position = Position("11" * 8, origin.frame + 2 * number)
        flushes.append(Flush(pages, 8, origin if not flushes else flushes[-1].position, position, at(number)))
    return flushes


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def restored(base: bytes, increments: list[Increment], cut: Cut, scratch: Path) -> bytes:
    """A base brought to a cut of the last of some increments, by SQLite."""
    for increment in increments:
        last = cut if increment is increments[-1] else increment.cuts[-1]
        base = replayed(base, content(increment, last, scratch), scratch)
    return base


def content(increment: Increment, cut: Cut, scratch: Path) -> bytes:
    target = scratch / f"extracted-{os.getpid()}"
    extract(increment, cut, target)
    wal = target.read_bytes()
    target.unlink()
    return wal
