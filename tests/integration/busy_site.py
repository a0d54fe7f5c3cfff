"""A small site whose processes write to its database as fast as they can, and what becomes of it."""

import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.integration.wal_reference import Reference

PAGE = 1024

WRITER = """
import os, random, sqlite3, sys, time
database, number, autocheckpoint, pause, timeout, log, stop = sys.argv[1:]
chooser = random.Random(int(number))
connection = sqlite3.connect(database, timeout=float(timeout), isolation_level=None)
connection.execute("PRAGMA synchronous=NORMAL")
connection.execute(f"PRAGMA wal_autocheckpoint={autocheckpoint}")
counter = connection.execute("SELECT ifnull(max(counter), 0) FROM log WHERE writer = ?", (number,)).fetchone()[0]
with open(log, "a") as file:
    while not os.path.exists(stop):
        counter += 1
        began = time.perf_counter()
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO log VALUES(?, ?)", (number, counter))
            connection.execute("UPDATE rows SET body = ? WHERE id = ?", (counter, chooser.randint(1, 500)))
            if counter % 50 == 0:
                connection.execute("INSERT INTO notes(body) VALUES(randomblob(?))", (chooser.randint(10, 9000),))
                connection.execute("DELETE FROM notes WHERE id <= (SELECT max(id) - 20 FROM notes)")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            print("WRITER FAILED", error, flush=True)
            raise
        print(number, counter, time.perf_counter() - began, file=file, flush=True)
        if pause != "0":
            time.sleep(float(pause))
connection.close()
"""

CHECKPOINTER = """
import os, random, sqlite3, sys, time
database, stop = sys.argv[1:]
while not os.path.exists(stop):
    connection = sqlite3.connect(database, timeout=0.02, isolation_level=None)
    for mode in random.choices(["PASSIVE", "FULL", "RESTART", "TRUNCATE"], k=5):
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        time.sleep(0.01)
    connection.close()
"""

VACUUM = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("VACUUM")
connection.close()
"""


def make_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA page_size={PAGE}")
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE log(writer TEXT, counter INTEGER)")
    connection.execute("CREATE TABLE rows(id INTEGER PRIMARY KEY, body TEXT)")
    connection.execute("CREATE TABLE notes(id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB)")
    connection.executemany("INSERT INTO rows VALUES(?, ?)", [(number, "x" * 200) for number in range(1, 501)])
    connection.commit()
    connection.close()


@dataclass
class Busy:
    """A site with writers at full speed, and what became of it."""

    folder: Path
    autocheckpoint: int = 1000
    pause: str = "0"
    timeout: int = 30
    running: "list[subprocess.Popen[str]]" = field(default_factory=list)
    started: int = 0

    def __post_init__(self) -> None:
        self.database = self.folder / "site.sqlite"
        make_database(self.database)
        self.base = self.database.read_bytes()
        self.before = self.database.stat()
        self.stopper = self.folder / "stop"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind, whatever became of the test."""
        for process in self.running:
            with process:
                process.kill()

    def start(self, count: int = 2) -> None:
        """Writers as fast as they can, or with a pause in seconds after each commit."""
        self.stopper.unlink(missing_ok=True)
        for _ in range(count):
            self.started += 1
            settings = (str(self.started), str(self.autocheckpoint), self.pause, str(self.timeout))
            self._run(WRITER, *settings, str(self.folder / f"log-{self.started}"))

    def start_checkpoints(self) -> None:
        """A process that opens the database, checkpoints it in every way, and closes it, again and again."""
        self._run(CHECKPOINTER)

    def start_vacuum(self) -> None:
        """A process that rewrites the whole database, once."""
        self._run(VACUUM)

    def _run(self, script: str, *arguments: str) -> None:
        command = [sys.executable, "-c", script, str(self.database), *arguments, str(self.stopper)]
        self.running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))

    def stop(self) -> None:
        """Every writer closes its connection and ends; none may have met an error."""
        self.stopper.touch()
        outputs = [process.communicate()[0] for process in self.running]
        self.running.clear()
        assert not any(outputs), outputs

    def kill(self) -> None:
        """End the writer that was started last, wherever it stands."""
        process = self.running.pop()
        process.send_signal(signal.SIGKILL)
        assert process.communicate()[0] == ""

    def commits(self) -> list[tuple[str, int, float]]:
        """What the writers know to be committed, with the seconds that each commit took."""
        lines = [line.split() for log in self.folder.glob("log-*") for line in log.read_text().splitlines()]
        return [(line[0], int(line[1]), float(line[2])) for line in lines if len(line) == 3]

    def require_restored(self, reference: Reference) -> None:
        """The base and the archived frames are the live database, to the byte; to be called when nobody has it open."""
        connection = sqlite3.connect(self.database)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = set(connection.execute("SELECT writer, counter FROM log").fetchall())
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        connection.close()
        assert tables == {"log", "rows", "notes", "sqlite_sequence"}
        assert {(writer, counter) for writer, counter, _ in self.commits()} <= rows
        assert reference.restored(self.base) == self.database.read_bytes()
        after = self.database.stat()
        assert (after.st_ino, after.st_mode, after.st_uid, after.st_gid) == (
            self.before.st_ino,
            self.before.st_mode,
            self.before.st_uid,
            self.before.st_gid,
        )
