"""A site with a backend that runs: a process that writes, answers a health check, and is stopped and started."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops import config
from portfolio_ops.config import Site

TOOL = Path(sys.executable).with_name("portfolio-ops")

# How it behaves is in files of its folder: `sick` answers 503, `deaf` ignores SIGTERM, `clings` holds on.
BACKEND = """
import http.server, os, signal, sqlite3, sys, threading, time
folder, database, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists(folder + "/sick") else 200)
        self.end_headers()
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
connection = sqlite3.connect(database, timeout=5, isolation_level=None)
connection.execute("PRAGMA journal_mode=wal")
threading.Thread(target=server.serve_forever, daemon=True).start()
stopping = False
def stop(*_):
    global stopping
    stopping = True
signal.signal(signal.SIGTERM, signal.SIG_IGN if os.path.exists(folder + "/deaf") else stop)
parent = os.getppid()
while not stopping:
    connection.execute("INSERT INTO comments(image, body) VALUES(1, 'live')")
    time.sleep(0.005)
connection.close()
"""

CONTROL = """
import fcntl, os, signal, subprocess, sys, time
folder, command = sys.argv[1], sys.argv[2]
pidfile = folder + "/pid"
def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
def running():
    try:
        pid = int(open(pidfile).read())
    except (OSError, ValueError):
        return 0
    return pid if alive(pid) else 0
def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
if command == "start":
    lock = open(folder + "/lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)  # two who start it at once start one
    if not running():
        words = open(folder + "/command").read().split("\\n")
        process = subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL,
                                   stdout=open(folder + "/out", "ab"), stderr=subprocess.STDOUT)
        open(pidfile, "w").write(str(process.pid))
        open(folder + "/pids", "a").write(f"{process.pid}\\n")
    open(folder + "/starts", "a").write("x")
elif command == "stop":
    open(folder + "/stops", "a").write("x")
    if os.path.exists(folder + "/clings"):
        sys.exit(0)
    pid, deadline = running(), time.monotonic() + 2
    if pid:
        send(pid, signal.SIGTERM)
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        send(pid, signal.SIGKILL)  # as docker stop does
        while alive(pid):
            time.sleep(0.02)
elif not running():
    sys.exit(3)
"""


class Stage:
    """A site with its backend, and shorthands."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder / "control"
        self.folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        (self.folder / "backend.py").write_text(BACKEND)
        (self.folder / "control.py").write_text(CONTROL)
        database = root / "data/portfolio.sqlite"
        command = [sys.executable, self.folder / "backend.py", self.folder, database, self.port]
        (self.folder / "command").write_text("\n".join(map(str, command)))
        words = [
            f"{verb} = {json.dumps([sys.executable, str(self.folder / 'control.py'), str(self.folder), verb])}"
            for verb in ("stop", "start", "status")
        ]
        self.file = folder / "shop.toml"
        self.file.write_text(
            "\n".join(
                [
                    f'[site]\nroot = "{root}"',
                    "[backend]",
                    *words,
                    f'health = "http://127.0.0.1:{self.port}/health"',
                    'patience = "6s"\n',
                ]
            )
        )
        self.site: Site = config.load(self.file)
        self.data = database.parent

    def control(self, verb: str) -> int:
        return subprocess.run(
            [sys.executable, str(self.folder / "control.py"), str(self.folder), verb], check=False
        ).returncode

    def start(self) -> None:
        assert self.control("start") == 0
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError((self.folder / "out").read_text())

    @property
    def runs(self) -> bool:
        return self.control("status") == 0

    def behaves(self, how: str, *, yes: bool = True) -> None:
        path = self.folder / how
        path.touch() if yes else path.unlink()

    def call(self, *words: str, code: int = 0, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run the tool as a person would."""
        command: list[str | Path] = [TOOL, "--config", self.file, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        assert done.returncode == code, f"exit {done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def asked(self, *words: str, code: int = 0) -> Any:
        answer = json.loads(self.call("--json", *words, code=code).stdout)
        assert bool(answer["errors"]) == (answer["status"] == "error")
        return answer

    def rows(self, table: str = "comments") -> int:
        """What the site sees."""
        with contextlib.closing(sqlite3.connect(self.site.database, timeout=10)) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def change(self, *statements: str) -> None:
        with contextlib.closing(sqlite3.connect(self.site.database, timeout=10)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def kept(self) -> list[str]:
        """The site's folder, but for what SQLite keeps beside an open database."""
        return sorted(path.name for path in self.data.iterdir() if not path.name.endswith(("-wal", "-shm")))

    def end(self) -> None:
        """Whatever was started here is gone after the test."""
        with contextlib.suppress(FileNotFoundError):
            for pid in (self.folder / "pids").read_text().split():
                words = Path(f"/proc/{pid}/cmdline")
                with contextlib.suppress(OSError):
                    if str(self.folder) in words.read_text():
                        os.kill(int(pid), signal.SIGKILL)


@pytest.fixture
def stage(site: Site, tmp_path: Path) -> Iterator[Stage]:
    """A site with a backend, not started."""
    made = Stage(tmp_path, site.root)
    yield made
    made.end()


@pytest.fixture
def live(stage: Stage) -> Stage:
    """A site with a running backend and one daily backup, of before 10 comments were deleted."""
    stage.call("backup", "daily")
    stage.change("DELETE FROM comments WHERE id <= 10")
    stage.start()
    return stage
