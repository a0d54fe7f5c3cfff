"""A small site that is busy: commits to its database and appends to its log until it is told to stop."""

import json
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path
from types import FrameType

SCHEMA = """
CREATE TABLE galleries(id INTEGER PRIMARY KEY, slug TEXT UNIQUE NOT NULL, title TEXT);
CREATE TABLE images(id INTEGER PRIMARY KEY, gallery INTEGER REFERENCES galleries(id), body BLOB);
CREATE TABLE comments(id INTEGER PRIMARY KEY AUTOINCREMENT, image INTEGER, body TEXT NOT NULL);
CREATE TABLE likes(image INTEGER, visitor TEXT, PRIMARY KEY(image, visitor)) WITHOUT ROWID;
CREATE TABLE user_sessions(token TEXT PRIMARY KEY, seen INTEGER);
CREATE TABLE social_interactions(id INTEGER PRIMARY KEY, kind TEXT, at INTEGER);
CREATE INDEX comments_image ON comments(image);
"""


def main() -> None:
    """Make the site under the root that is named, then write until SIGTERM; report on stdout."""
    root = Path(sys.argv[1])
    (root / "data").mkdir(parents=True)
    (root / "logs").mkdir()
    connection = sqlite3.connect(root / "data/portfolio.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.executescript(SCHEMA)
    connection.execute("BEGIN")
    connection.execute("INSERT INTO galleries(slug, title) VALUES('first', 'First light')")
    connection.executemany("INSERT INTO images(gallery, body) VALUES(1, ?)", ((os.urandom(9000),) for _ in range(3000)))
    connection.executemany(
        "INSERT INTO comments(image, body) VALUES(?, ?)", ((i, f"What light, number {i}!") for i in range(20000))
    )
    connection.execute("COMMIT")
    log = os.open(root / "logs/backend.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (signal(2)'s signature)
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    print(f"running, as process {os.getpid()}: {root}", flush=True)
    commits, errors = 0, []
    while not stopping:
        try:
            connection.execute("INSERT INTO comments(image, body) VALUES(?, ?)", (commits % 3000, "And another"))
            connection.execute("INSERT OR IGNORE INTO likes VALUES(?, ?)", (commits % 3000, f"visitor {commits % 97}"))
            os.write(log, f"{time.time():.3f} comment {commits} was added\n".encode())
            commits += 1
        except (sqlite3.Error, OSError) as error:
            errors.append(str(error))
        time.sleep(0.002)
    connection.close()
    print(json.dumps({"commits": commits, "log lines": commits, "errors": errors}))


if __name__ == "__main__":
    main()
