"""A site that changes, and an archiver of it as plain as can be, which remembers what it has seen."""

import contextlib
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from portfolio_ops.config import Site
from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.increment import RAW, Head, Link
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from portfolio_ops.sqlite.pin import Pin, pinned
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.wal_header import Cursor, parse_header
from portfolio_ops.sqlite.wal_index import WalIndex
from portfolio_ops.sqlite.wal_reader import committed
from portfolio_ops.store import timeline

_WRITER = """
import hashlib, json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
for line in sys.stdin:
    words = json.loads(line)
    if words:
        answer = connection.execute(words).fetchall()
    else:
        answer = hashlib.sha256("\\n".join(connection.iterdump()).encode()).hexdigest()
    print(json.dumps(answer), flush=True)
connection.close()
"""

_BASE = """
import sys
from pathlib import Path
from portfolio_ops import config
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs.database import back_up
from portfolio_ops.jobs.run import Job, Task
from portfolio_ops.store.artifact import Kind
site = config.load(Path(sys.argv[1]))
folder = site.backups / "wal"
back_up(Task(site, Job("base", None, Kind.WAL), folder, Log(site=site.name, job="base")), "base-%Y-%m-%d-%H%M%S", {})
"""


class Writer:
    """The site's own program: a process that has the database open."""

    def __init__(self, database: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *statements: str) -> None:
        for each in statements:
            self._ask(each)

    def digest(self) -> str:
        """The hash of all that it sees."""
        return str(self._ask(""))

    def _ask(self, words: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def digest_of(database: Path) -> str:
    """The hash of all that a database holds."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()


@dataclass
class Archiver:
    """Follows a site with one timeline.

    Attributes:
        seen: Each cut, with the hash of what the site saw then.
    """

    site: Site
    pin: Pin
    writer: Writer
    name: str
    position: Position
    cursor: Cursor | None = None
    link: Link | None = None
    hours: int = 0
    file: IncrementWriter | None = None
    seen: list[tuple[Cut, str]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return timeline.folder_of(self.site.backups, self.name)

    def flush(self) -> Cut:
        """Archive what was committed since the last flush: something was."""
        digest, before = self.writer.digest(), len(self.seen)
        index = self.pin.look()
        self._archive(index)
        self.pin.advance(index)
        [(cut, _)] = self.seen[before:]
        self.seen[before] = cut, digest
        return cut

    def seal(self) -> None:
        """Let the site begin the WAL anew."""
        assert self.pin.seal(self._archive, 1).outcome == "sealed"

    def change(self, *statements: str) -> Cut:
        self.writer.run(*statements)
        return self.flush()

    def next_file(self) -> None:
        """As when the hour is over."""
        assert self.file is not None
        self.file.close()
        self.file = None
        self.hours += 1

    def base(self) -> Path:
        """Publish a base; gives its file."""
        folder = self.site.backups / "wal"
        before = set(folder.glob("base-*"))
        subprocess.run([sys.executable, "-c", _BASE, str(self.site.file)], check=True, stderr=subprocess.DEVNULL)
        [made] = set(folder.glob("base-*")) - before
        return made

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def _archive(self, index: WalIndex) -> None:
        position = Position(index.salts.hex(), index.frames)
        if index.frames == 0 or position == self.position:
            return
        header = parse_header(os.pread(self.pin.wal, 32, 0))
        assert header is not None
        cursor = self.cursor if self.cursor and self.position.salts == position.salts else header.start
        step = 24 + self.pin.page_size
        data = os.pread(self.pin.wal, (index.frames - cursor.frame) * step, 32 + cursor.frame * step)
        found = committed(header, cursor, [data])
        assert found.end.frame == index.frames
        newest = {page: at for at, page in enumerate(found.pages.tolist())}
        if self.position.salts == position.salts and self.cursor is None:
            newest = {page: at for page, at in newest.items() if at >= self.position.frame}
        pages = [(page, data[at * step + 24 : (at + 1) * step]) for page, at in newest.items()]
        if self.file is None:
            moment = datetime.now(UTC) + timedelta(hours=self.hours)
            head = Head(self.site.name, self.name, self.pin.page_size, RAW, self.link)
            self.file = IncrementWriter.create(self.folder / timeline.name_of(moment), head)
        cut = self.file.append(pages, int(found.sizes[-1]), self.position, position, datetime.now(UTC))
        self.position, self.cursor, self.link = position, found.end, self.file.link
        self.seen.append((cut, ""))


@contextlib.contextmanager
def archiving(site: Site) -> Iterator[Archiver]:
    """Follow a site in a new timeline, without a base."""
    name = timeline.new_id(datetime.now(UTC))
    timeline.folder_of(site.backups, name).mkdir(parents=True)
    site.state.mkdir(exist_ok=True)
    writer = Writer(site.database)
    writer.run("SELECT count(*) FROM comments")
    try:
        with pinned(site.database) as pin:
            index = pin.look()
            archiver = Archiver(site, pin, writer, name, Position(index.salts.hex(), index.frames))
            try:
                yield archiver
            finally:
                if archiver.file is not None:
                    archiver.file.close()
    finally:
        writer.close()
