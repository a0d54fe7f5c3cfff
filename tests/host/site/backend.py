"""A backend as busy as a site can be: commits and logs without a pause to speak of, and counts what goes wrong.

python3 backend.py ROOT     until SIGTERM; ROOT/state.json says how it is doing

It is asked how it is at http://127.0.0.1:3000/health. Beside this file, `sick` makes it answer 503, and `deaf` makes it
ignore SIGTERM, as a program does that is PID 1 of a container and asks for no signal.
"""

import http.server
import json
import os
import signal
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


class Health(http.server.BaseHTTPRequestHandler):
    """Whether it is well."""

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
