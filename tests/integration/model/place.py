"""A site on a disk of its own: a database with a program that writes it, a log, and what may befall them."""

import contextlib
import itertools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from portfolio_ops import config
from portfolio_ops.config import Site
from tests.integration.model import writer
from tests.integration.model.writer import State

SOCIAL = ("comments", "likes")
_SCHEMA = """
CREATE TABLE images(id INTEGER PRIMARY KEY, body BLOB);
CREATE TABLE comments(id INTEGER PRIMARY KEY AUTOINCREMENT, image INTEGER, body TEXT);
CREATE TABLE likes(image INTEGER, visitor TEXT, PRIMARY KEY(image, visitor)) WITHOUT ROWID;
CREATE INDEX comments_image ON comments(image);
"""
_CONFIGURATION = """
[site]
root = "{root}"
[social]
tables = ["comments", "likes"]
[retention]
daily = "2d"
social = "3d"
event = "2d"
logs = "1d"
wal = "10d"
minimum = 2
[backend]
stop = ["true"]
start = ["true"]
status = ["false"]
patience = "1s"
"""


class Place:
    """The site, and the site's own program, which has the database open or not.

    Attributes:
        live: What the database holds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        root = folder / "site"
        for each in (root / "data", root / "logs", root / "backups", folder / "copies"):
            each.mkdir(parents=True)
        file = folder / "shop.toml"
        file.write_text(_CONFIGURATION.format(root=root))
        self.site: Site = config.load(file)
        self.database, self.log = self.site.database, self.site.logs[0]
        self.log.touch()
        self._numbers = itertools.count(1)
        self._program: subprocess.Popen[str] | None = None
        self._pending = 0
        self._make(self.database, "wal", 4096)
        self.live = self.look()

    def _make(self, path: Path, journal_mode: str, page_size: int) -> None:
        number = next(self._numbers)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA page_size={page_size}")
            connection.execute(f"PRAGMA journal_mode={journal_mode}")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version={number}")
            connection.executemany("INSERT INTO images(body) VALUES(?)", [(_noise(number, n),) for n in range(20)])
            connection.executemany("INSERT INTO comments(image, body) VALUES(?, ?)", [(n, "'\n") for n in range(20)])
            connection.commit()

    def is_open(self) -> bool:
        """Whether the site's program runs."""
        return self._program is not None

    def open(self) -> None:
        """Start the site's program, if it does not run."""
        if self._program is None:
            command = [sys.executable, "-S", "-E", writer.__file__, str(self.database)]
            self._program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self.told(self.tell([])) == [self.live]

    def close(self, *, crash: bool = False) -> None:
        """End the site's program, if it runs: as a site does that stops, or by a kill."""
        if self._program is None:
            return
        if crash:
            self._program.kill()
        self._program.communicate()
        self._program = None

    def tell(self, *transactions: Sequence[str], pause: float = 0) -> int:
        """Have transactions made, one after the other; gives how many there are, for `told`."""
        assert self._program is not None
        assert self._program.stdin is not None
        for statements in transactions:
            self._program.stdin.write(json.dumps([pause, [*statements]]) + "\n")
        self._program.stdin.flush()
        return len(transactions)

    def told(self, count: int) -> list[State]:
        """Wait for transactions that were told; gives what the database held after each."""
        assert self._program is not None
        assert self._program.stdout is not None
        answers = [json.loads(self._program.stdout.readline()) for _ in range(count)]
        assert all("state" in each for each in answers), answers
        return [each["state"] for each in answers]

    def change(self, *statements: str) -> None:
        """Make one transaction, and wait for it."""
        with self.opened():
            self.live = self.told(self.tell(statements))[-1]

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """With the site's program, which is started for the block if it does not run."""
        before = self.is_open()
        self.open()
        yield
        if not before:
            self.close()

    def number(self) -> int:
        """Another one each time, for content that was not there before."""
        return next(self._numbers)

    def look(self) -> State:
        """What the database holds, whether the program runs or crashed; nothing is changed by looking."""
        if self._program is not None:
            [state] = self.told(self.tell([]))
            return state
        copy = self.folder / "copies/look"
        for ending in ("", "-wal", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{self.database}{ending}", f"{copy}{ending}")
        state = writer.read(copy)
        for path in copy.parent.glob("look*"):
            path.unlink()
        return state

    def replace(self, journal_mode: str, page_size: int, *, over: bool) -> None:
        """Put another database in the place of this one.

        Args:
            over: Copied over it, into the same file, as cp(1) does; else under its name, as mv(1) does.
        """
        self.close()
        another = self.database.with_name("another")
        self._make(another, journal_mode, page_size)
        for ending in ("-wal", "-shm", "-journal"):
            Path(f"{self.database}{ending}").unlink(missing_ok=True)
        if over:
            shutil.copyfile(another, self.database)
            another.unlink()
        else:
            another.replace(self.database)
        self.live = self.look()

    def append(self, data: bytes) -> None:
        """Write to the log as a site does."""
        with self.log.open("ab") as file:
            file.write(data)

    def kept(self) -> tuple[int, int, int]:
        """Whose the database is, and its mode."""
        status = self.database.stat()
        return status.st_uid, status.st_gid, status.st_mode

    def beside(self) -> list[str]:
        """What lies beside the database, but for what is SQLite's."""
        ours = {f"{self.database.name}{ending}" for ending in ("", "-wal", "-shm", "-journal")}
        return sorted(name for name in os.listdir(self.database.parent) if name not in ours)  # noqa: PTH208

    def copy(self) -> Path:
        """A name for something to be restored to."""
        return self.folder / "copies" / f"{next(self._numbers)}.sqlite"

    def remove(self) -> None:
        """Leave nothing behind."""
        self.close(crash=True)
        shutil.rmtree(self.folder)


def _noise(*seed: int) -> bytes:
    return random.Random(repr(seed)).randbytes(700)
