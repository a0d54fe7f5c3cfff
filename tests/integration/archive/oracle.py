"""A site whose every state is known, and the archive beside it: what a restore gives must be one of those states.

Each writer has a table of its own. What it writes follows from its number and the number of the commit, so the state
after any number of commits can be computed, without the database. What it has committed it says on its standard output.
"""

import contextlib
import hashlib
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw

from portfolio_ops import config
from portfolio_ops.config import Site
from portfolio_ops.host.journal import Log
from portfolio_ops.restore.stage import decode_to
from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.increment import Increment
from portfolio_ops.sqlite.increment_content import extract
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.store import catalogue, timeline
from portfolio_ops.store.artifact import Artifact

TOOL = Path(sys.executable).with_name("portfolio-ops")

# Commit n of writer w changes one row of 200 and adds or removes others; all follows from (w, n).
WRITER = """
import hashlib, os, sqlite3, sys, time
database, pragmas = sys.argv[1], sys.argv[5]
number, first, pause = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
connection = sqlite3.connect(database, timeout=30, isolation_level=None)
for pragma in filter(None, pragmas.split(";")):
    connection.execute("PRAGMA " + pragma)
parent, n = os.getppid(), first
while os.getppid() == parent:
    n += 1
    text = hashlib.sha256(f"{number} {n}".encode()).hexdigest() * (1 + n % 20)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"INSERT OR REPLACE INTO w{number}(id, n, text) VALUES(?, ?, ?)", (n * 7919 % 200, n, text))
    if n % 500 == 0:
        connection.execute(f"DELETE FROM w{number} WHERE id % 2")
    connection.execute(f"UPDATE counters SET n = ? WHERE w = {number}", (n,))
    connection.execute("COMMIT")
    print(n, time.time_ns(), flush=True)
    time.sleep(pause)
"""


def expected(number: int, commits: int) -> str:
    """The hash of a writer's table after so many commits."""
    rows: dict[int, tuple[int, str]] = {}
    for n in range(1, commits + 1):
        rows[n * 7919 % 200] = (n, hashlib.sha256(f"{number} {n}".encode()).hexdigest() * (1 + n % 20))
        if n % 500 == 0:
            rows = {key: row for key, row in rows.items() if key % 2 == 0}
    return digest([(key, *row) for key, row in sorted(rows.items())])


def digest(rows: list[tuple[object, ...]]) -> str:
    """The hash of some rows."""
    return hashlib.sha256(repr([tuple(row) for row in rows]).encode()).hexdigest()


class Writer:
    """A process that commits."""

    def __init__(self, database: Path, number: int, first: int, pause: float, pragmas: str) -> None:
        command = [sys.executable, "-c", WRITER, str(database), str(number), str(first), str(pause), pragmas]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.told: list[tuple[int, int]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                n, at = map(int, line.split())
                self.told.append((n, at))

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End it; gives how many commits there are for certain."""
        self.process.send_signal(number)
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.told[-1][0] if self.told else 0


@dataclass(frozen=True)
class State:
    """What a database holds: by writer the number of its last commit."""

    counters: dict[int, int]


def state_of(database: Path) -> State:
    """The state of a database, which must be exactly that of its counters."""
    connection = apsw.Connection(str(database))
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows_of_counters = connection.execute("SELECT w, n FROM counters").fetchall()
        counters = {int(str(number)): int(str(commits)) for number, commits in rows_of_counters}
        for number, commits in counters.items():
            rows = connection.execute(f"SELECT id, n, text FROM w{number} ORDER BY id").fetchall()
            assert digest(rows) == expected(number, commits), f"writer {number} after {commits} commits"
    finally:
        connection.close()
    return State(counters)


class Yard:
    """A site, its writers, and the archive."""

    def __init__(self, folder: Path, writers: int = 2, journal_mode: str = "wal") -> None:
        self.folder = folder
        root = folder / "site"
        (root / "data").mkdir(parents=True)
        (root / "backups").mkdir()
        self.file = folder / "shop.toml"
        self.file.write_text(f'[site]\nroot = "{root}"\n')
        self.site: Site = config.load(self.file)
        self.database = self.site.database
        self.writers: dict[int, Writer] = {}
        self.commits = dict.fromkeys(range(writers), 0)
        self.acknowledged: dict[int, list[tuple[int, int]]] = {number: [] for number in range(writers)}
        self.archive: subprocess.Popen[bytes] | None = None
        self._number = 0
        connection = sqlite3.connect(self.database, isolation_level=None)
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
        connection.execute("CREATE TABLE counters(w INTEGER PRIMARY KEY, n INTEGER)")
        for number in range(writers):
            connection.execute(f"CREATE TABLE w{number}(id INTEGER PRIMARY KEY, n INTEGER, text TEXT)")
            connection.execute("INSERT INTO counters VALUES(?, 0)", (number,))
        connection.close()

    def write(self, number: int, *, pause: float = 0.001, pragmas: str = "") -> None:
        """Start a writer."""
        self.writers[number] = Writer(self.database, number, self.commits[number], pause, pragmas)

    def stop_writing(self, number: int, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill a writer. What it has committed is asked of the database: it may not have come to say the last."""
        writer = self.writers.pop(number)
        writer.end(how)
        self.acknowledged[number] += writer.told
        with contextlib.closing(sqlite3.connect(self.database, timeout=30, isolation_level=None)) as connection:
            # Killed between a commit's frames and its entry in the index, it leaves one that a recovery may find, or
            # the next writer may overwrite. Overwritten it is none, whatever comes.
            connection.execute("UPDATE counters SET n = n WHERE w = ?", (number,))
            self.commits[number] = connection.execute("SELECT n FROM counters WHERE w = ?", (number,)).fetchone()[0]

    def start_archive(self) -> None:
        """The daemon, until it has the database open."""
        followed = self._followed()
        with (self.folder / "archive.log").open("ab") as log:
            command: list[str | Path] = [TOOL, "--config", self.file, "archive", "run"]
            self.archive = subprocess.Popen(command, stderr=log)
        self.until(lambda: self._followed() > followed, "it follows the database")

    def _followed(self) -> int:
        """How often it has said that it follows the database."""
        return sum("begins" in line or "Going on" in line for line in self.said().splitlines())

    def end_archive(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.archive is not None
        self.archive.send_signal(how)
        self.archive.wait(30)
        self.archive = None

    def until(self, true: "Callable[[], bool]", what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.said()}"
            time.sleep(0.02)

    def said(self) -> str:
        """What the daemon said so far."""
        path = self.folder / "archive.log"
        return path.read_text() if path.exists() else ""

    def wait_for_base(self, count: int = 1) -> None:
        self.until(lambda: len(self.bases()) >= count, "the base is made")

    def bases(self) -> list[Artifact]:
        return [
            each for each in catalogue.scan(self.site.backups, "shop").artifacts if each.metadata.kind.holds_database
        ]

    def replayed(self, base: Artifact, cuts: "list[tuple[Increment, Cut]]") -> Path:
        """A base with some increments on it, applied by SQLite itself."""
        self._number += 1
        target = self.folder / f"restored-{self._number}.sqlite"
        decode_to(base, target, Log(site="shop", job="test"))
        for increment, cut in cuts:
            extract(increment, cut, target.with_name(f"{target.name}-wal"))
            connection = apsw.Connection(str(target))
            connection.execute("PRAGMA synchronous=off")
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            assert connection.pragma("page_count") == cut.pages
            connection.close()
        return target

    def points(self) -> "Iterator[tuple[str, Artifact, list[tuple[Increment, Cut]]]]":
        """Every restore point of every timeline that has a base: the base, and what goes on it."""
        names = timeline.ids(self.site.backups)
        for name, after in zip(names, [*names[1:], None], strict=True):
            found = timeline.read(self.site.backups, name, self.site.name)
            assert not found.problems
            assert not any(increment.damaged for increment in found.increments)
            whole = [(increment, cut) for increment in found.increments for cut in increment.cuts]
            for base in self.bases():
                # An empty WAL has no salts: its position is the same in any database.
                if base.taken < timeline.began(name) or (after is not None and base.taken >= timeline.began(after)):
                    continue
                start = place(base, [cut for _, cut in whole])
                if start is None:
                    continue
                for end in range(start, len(whole)):
                    files: dict[Path, tuple[Increment, Cut]] = {}
                    for increment, cut in whole[start : end + 1]:
                        files[increment.path] = (increment, cut)
                    yield name, base, list(files.values())
                break

    def end(self) -> None:
        for writer in self.writers.values():
            writer.end()
        if self.archive is not None:
            self.archive.kill()
            self.archive.wait()


def place(base: Artifact, cuts: list[Cut]) -> int | None:
    """The index of the cut that a base lies in; None if it is of another timeline."""
    stated = base.metadata.details["position"]
    at = Position(stated["salts"], stated["frame"])
    for index, cut in enumerate(cuts):
        if cut.since == at:
            return index
        inside = cut.position.salts == at.salts and at.frame <= cut.position.frame
        if inside and (cut.since.salts != at.salts or cut.since.frame <= at.frame):
            return index
    return None


def require_in_order(states: list[tuple[Cut, State]], acknowledged: dict[int, list[tuple[int, int]]]) -> None:
    """No restore point is older than the one before it, and none lacks what was acknowledged before it was seen."""
    before: dict[int, int] = {}
    for cut, state in states:
        seen = (cut.seen - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
        for number, commits in state.counters.items():
            assert commits >= before.get(number, 0)
            sure = max((n for n, at in acknowledged.get(number, []) if at < seen), default=0)
            assert commits >= sure, f"writer {number}: {commits} restored, {sure} acknowledged before"
        before = state.counters
