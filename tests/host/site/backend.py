"""A backend as busy as a site can be: commits and logs without a pause to speak of, and counts what goes wrong.

python3 backend.py ROOT     until SIGTERM; ROOT/state.json says how it is doing

It is asked how it is at http://127.0.0.1:3000/health. Beside this file, `sick` makes it answer 503, and `deaf` makes it
ignore SIGTERM, as a program does that is PID 1 of a container and asks for no signal.

POST /galleries {"slug", "ask"} adds a gallery, and asks for a backup of that: over `http`, by a `file`, or not at all.
"""

import contextlib
import http.client
import http.server
import json
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
from pathlib import Path
from types import FrameType

SCHEMA = """
CREATE TABLE IF NOT EXISTS galleries(id INTEGER PRIMARY KEY, slug TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS images(id INTEGER PRIMARY KEY, body BLOB);
CREATE TABLE IF NOT EXISTS comments(id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS likes(image INTEGER, visitor TEXT, PRIMARY KEY(image, visitor)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS user_sessions(token TEXT PRIMARY KEY, seen INTEGER);
CREATE TABLE IF NOT EXISTS social_interactions(id INTEGER PRIMARY KEY, kind TEXT);
CREATE TABLE IF NOT EXISTS mirror(id INTEGER PRIMARY KEY, body TEXT);
"""


HERE = Path(__file__).parent


class Connection(http.client.HTTPConnection):
    """To the API of the host, through the folder that is mounted."""

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(Health.root / "run/portfolio-ops.sock"))


def ask_over_http(slug: str) -> int:
    """Ask for a backup, and wait for it; gives the answer's status."""
    with contextlib.closing(Connection("localhost", timeout=60)) as connection:
        body, headers = json.dumps({"galleryName": slug}), {"Content-Type": "application/json"}
        connection.request("POST", "/api/admin/backup-on-gallery-add", body, headers)
        return connection.getresponse().status


def ask_by_file(slug: str) -> int:
    """Ask for a backup, and do not wait."""
    hidden = Health.root / f"run/triggers/.{slug}"
    hidden.write_text("")
    hidden.rename(hidden.with_name(slug))
    return 0


WAYS = {"http": ask_over_http, "file": ask_by_file}


class Health(http.server.BaseHTTPRequestHandler):
    """Whether it is well, and its one other endpoint."""

    root: Path

    def do_POST(self) -> None:
        """Add a gallery."""
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with contextlib.closing(sqlite3.connect(self.root / "data/portfolio.sqlite", timeout=10)) as connection:
            connection.execute("INSERT INTO galleries(slug) VALUES(?)", (wanted["slug"],))
            connection.commit()
        status = WAYS[wanted["ask"]](wanted["slug"]) if wanted["ask"] in WAYS else 0
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"status": status}).encode())

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(503 if (HERE / "sick").exists() else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing of it."""


def main() -> None:
    """Write until told to stop. Every commit puts the same text into `comments` and `mirror`."""
    root = Path(sys.argv[1])
    os.umask(0o027)
    connection = sqlite3.connect(root / "data/portfolio.sqlite", timeout=2, isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.executescript(SCHEMA)
    if not connection.execute("SELECT count(*) FROM images").fetchone()[0]:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO images(body) VALUES(?)", ((os.urandom(20_000),) for _ in range(1500)))
        connection.execute("COMMIT")
    log = os.open(root / "logs/backend.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (signal(2)'s signature)
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, signal.SIG_IGN if (HERE / "deaf").exists() else stop)
    Health.root = root
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    commits, errors, told = 0, [], 0.0
    while not stopping:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO comments(body) VALUES(?)", (f"number {commits}",))
            connection.execute("INSERT INTO mirror(body) VALUES(?)", (f"number {commits}",))
            connection.execute("COMMIT")
            os.write(log, f"line {commits} of {os.getpid()}\n".encode())
            commits += 1
        except (sqlite3.Error, OSError) as error:
            errors.append(str(error))
        if time.monotonic() - told > 0.2:
            told = time.monotonic()
            report(root, commits, errors)
        time.sleep(0.004)
    connection.close()
    report(root, commits, errors)


def report(root: Path, commits: int, errors: list[str]) -> None:
    """Tell how it goes, so that a reader sees a whole report or the one before."""
    new = root / "state.json.new"
    new.write_text(json.dumps({"commits": commits, "errors": errors}))
    new.replace(root / "state.json")


if __name__ == "__main__":
    main()
