"""A real database without a WAL, changed at random, and an archiver of it as plain as can be."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory, TemporaryFile
from typing import BinaryIO, cast

import apsw

from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.difference import Difference, PageHashes
from portfolio_ops.sqlite.increment import Head, Increment, scan
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from portfolio_ops.sqlite.look import Looker, opened
from portfolio_ops.sqlite.snapshot import Position
from tests.integration.increment.live import NOON

MODES = ["delete", "truncate", "persist", "memory", "off"]
VACUUMS = ["none", "full", "incremental"]


class Rollback:
    """The site's own connection; what it does follows from the seed."""

    def __init__(self, folder: Path, page_size: int, seed: int) -> None:
        self.database = folder / "live.sqlite"
        self.chooser, self.page_size = Random(seed), page_size
        self.connection = apsw.Connection(str(self.database))
        vacuum, mode = self.chooser.choice(VACUUMS), self.chooser.choice(MODES)
        for pragma in (
            f"page_size={page_size}",
            f"auto_vacuum={vacuum}",
            f"journal_mode={mode}",
            f"secure_delete={self.chooser.choice([0, 1])}",
            "synchronous=off",
            "cache_size=5",  # what is larger reaches the file before it is committed
        ):
            self.connection.execute(f"PRAGMA {pragma}").fetchall()
        self.connection.create_scalar_function("noise", lambda *length: self.chooser.randbytes(int(length[0])))
        self.connection.execute("CREATE TABLE rows(id INTEGER PRIMARY KEY, body BLOB)")
        self.connection.execute("CREATE INDEX by_body ON rows(body)")

    def close(self) -> None:
        self.connection.close()

    def image(self) -> bytes:
        """All its bytes; nobody writes now."""
        return self.database.read_bytes()

    def change(self) -> str:
        """Something at random; gives what."""
        what = self.chooser.choices(
            ["insert", "update", "delete", "vacuum", "in parts", "roll back", "back", "grow"], [6, 4, 4, 1, 2, 2, 2, 1]
        )[0]
        getattr(self, f"_{what.replace(' ', '_')}")()
        return what

    def age(self) -> None:
        """As if the last change were long ago: then it is read without a lock."""
        os.utime(self.database, (time.time() - 9.5, time.time() - 9.5))

    def _insert(self) -> None:
        length = self.chooser.randint(0, 3 * min(self.page_size, 4096))
        self.connection.execute("INSERT INTO rows(body) VALUES(noise(?))", (length,))

    def _grow(self) -> None:
        self.connection.execute("BEGIN")
        for _ in range(self.chooser.randint(5, 60)):
            self._insert()
        self.connection.execute("COMMIT")

    def _update(self) -> None:
        third = self.chooser.randrange(3)
        self.connection.execute("UPDATE rows SET body = noise(length(body)) WHERE id % 3 = ?", (third,))

    def _delete(self) -> None:
        self.connection.execute("DELETE FROM rows WHERE id % 2 = ?", (self.chooser.randrange(2),))

    def _vacuum(self) -> None:
        self._delete()
        self.connection.execute("VACUUM")

    def _in_parts(self) -> None:
        self._delete()
        self.connection.execute(f"PRAGMA incremental_vacuum({self.chooser.randint(1, 5)})").fetchall()

    def _roll_back(self) -> None:
        if self.connection.pragma("journal_mode") == "off":
            return  # there is no way back from such a transaction
        self.connection.execute("BEGIN")
        self.connection.execute("UPDATE rows SET body = noise(length(body))")
        self._insert()
        self.connection.execute("ROLLBACK")

    def _back(self) -> None:
        """A page that is changed, and changed back by another transaction."""
        before = self.connection.execute("SELECT id, body FROM rows ORDER BY id LIMIT 1").fetchall()
        for row, body in before:
            self.connection.execute("UPDATE rows SET body = zeroblob(length(body)) WHERE id = ?", (row,))
            self.connection.execute("UPDATE rows SET body = ? WHERE id = ?", (body, row))


@contextlib.contextmanager
def made(scratch: Path, page_size: int, seed: int) -> Iterator[Rollback]:
    with TemporaryDirectory(dir=scratch) as folder:
        live = Rollback(Path(folder), page_size, seed)
        try:
            yield live
        finally:
            live.close()


@dataclass
class Archived:
    """A timeline of it, in some files.

    Attributes:
        images: The database at each state that was looked at, and the base.
    """

    live: Rollback
    looker: Looker
    folder: Path
    hashes: PageHashes
    base: Position
    images: dict[Position, bytes] = field(default_factory=dict)
    files: list[Increment] = field(default_factory=list)
    seconds: float = 0.0

    def look(self, content: BinaryIO) -> Difference | None:
        return self.looker.look(lambda chunks: self.hashes.compared(chunks, content), lambda: None)

    def flush(self, writer: IncrementWriter, seconds: float) -> Cut | None:
        """Look, and archive what differs; None if nothing does."""
        with TemporaryFile() as file:
            found = self.look(cast("BinaryIO", file))
            if found is None or not found.numbers:
                assert self.images[self.hashes.position] == self.live.image()
                return None
            self.seconds += seconds
            seen = NOON + timedelta(seconds=self.seconds)
            cut = writer.append(found.pages(), found.database_pages, self.hashes.position, found.position, seen)
            self.hashes.take(found)
        self.images[found.position] = self.live.image()
        return cut

    @contextlib.contextmanager
    def file(self) -> Iterator[IncrementWriter]:
        """The next file; it is among `files` afterwards, if there is anything in it."""
        path = self.folder / f"{len(self.files)}.wal.zst"
        path.unlink(missing_ok=True)
        link = self.files[-1].link if self.files else None
        with IncrementWriter.create(path, Head("shop", "t1", self.live.page_size, 1, link)) as writer:
            yield writer
        if (increment := scan(path)).cuts:
            self.files.append(increment)


@contextlib.contextmanager
def archiving(live: Rollback, folder: Path) -> Iterator[Archived]:
    """Begin a timeline with a base."""
    with opened(live.database, folder) as looker:
        hashes = looker.look(lambda chunks: PageHashes.of(live.page_size, chunks), lambda: None)
        assert hashes is not None
        yield Archived(live, looker, folder, hashes, hashes.position, {hashes.position: live.image()})
