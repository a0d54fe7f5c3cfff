"""The site of the archive's benchmark: a portfolio's tables, and a process that writes to them at a steady rate.

    python -m benchmarks.site DATABASE RATE SECONDS LATENCIES

It says `ready`, writes when it is told `go`, says as JSON what came of it, and keeps the database open until its
standard input ends. All that it writes is made up beforehand, so that it does nothing but commit while it is measured.
"""

import gc
import json
import random
import sqlite3
import sys
import time
from array import array
from collections import Counter
from pathlib import Path

from benchmarks.data import make_database, make_text

_SESSIONS, _ACTIVE, _IMAGES, _COMMENTS_ON = 20_000, 500, 100_000, 2_000
_NOW = 1_770_000_000
_SOCIAL = """
CREATE TABLE likes(image INTEGER, session INTEGER, at INTEGER, PRIMARY KEY(image, session)) WITHOUT ROWID;
CREATE TABLE user_sessions(id INTEGER PRIMARY KEY, token TEXT, at INTEGER, views INTEGER, state TEXT);
CREATE INDEX user_sessions_at ON user_sessions(at);
"""
_TOUCH = "UPDATE user_sessions SET at = ?, views = views + 1 WHERE id = ?"
_COMMENT = "INSERT INTO comments(image, at, body) VALUES(?, ?, ?)"
_LIKE = "INSERT OR IGNORE INTO likes VALUES(?, ?, ?)"
_SESSION = "INSERT INTO user_sessions(token, at, views, state) VALUES(?, ?, 1, ?)"

Transaction = list[tuple[str, tuple[object, ...]]]


def make_site(path: Path, size: int) -> None:
    """A database of about `size` bytes with comments, images, likes and sessions."""
    make_database(path, size)
    chooser = random.Random(2)
    connection = sqlite3.connect(path)
    connection.executescript(_SOCIAL)
    connection.executemany(
        _SESSION, ((chooser.randbytes(16).hex(), _NOW - chooser.randint(1, 10**6), "{}") for _ in range(_SESSIONS))
    )
    connection.executemany(
        _LIKE, ((chooser.randint(1, _IMAGES), chooser.randint(1, _SESSIONS), _NOW) for _ in range(_SESSIONS))
    )
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def transactions(count: int) -> list[Transaction]:
    """What visitors do, always the same: half look at pages, a fifth like, a fifth comment, and some are new."""
    chooser = random.Random(3)
    texts = make_text(chooser)
    active = [chooser.randint(1, _SESSIONS) for _ in range(_ACTIVE)]
    made = []
    for number in range(count):
        now, session, image = _NOW + number // 50, chooser.choice(active), chooser.randint(1, _COMMENTS_ON)
        transaction: Transaction = [(_TOUCH, (now, session))]
        kind = chooser.random()
        if kind < 0.2:
            transaction.append((_COMMENT, (image, now, next(texts))))
        elif kind < 0.4:
            transaction.append((_LIKE, (image, session, now)))
        elif kind < 0.5:
            transaction = [(_SESSION, (chooser.randbytes(16).hex(), now, '{"theme":"dark","page":"/gallery"}'))]
        made.append(transaction)
    return made


def write(database: Path, rate: float, seconds: float, latencies: Path) -> None:
    """Commit at a rate for some seconds, or as often as it can; a commit's time is from BEGIN until COMMIT returns."""
    connection = sqlite3.connect(database, timeout=5, isolation_level=None)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("SELECT count(*) FROM user_sessions").fetchall()
    todo = transactions(int(rate * seconds))
    times, errors = array("d", bytes(8 * len(todo))), Counter[str]()
    execute, clock, sleep = connection.execute, time.perf_counter, time.sleep
    gc.collect()
    gc.freeze()
    gc.disable()
    print("ready", flush=True)
    sys.stdin.readline()
    began, done = clock(), 0
    for number, transaction in enumerate(todo):
        pause = began + number / rate - clock()
        if pause > 0:
            sleep(pause)
        before = clock()
        if before - began > seconds:
            break
        try:
            execute("BEGIN IMMEDIATE")
            for statement, values in transaction:
                execute(statement, values)
            execute("COMMIT")
        except sqlite3.Error as error:
            errors[str(error)] += 1
            if connection.in_transaction:
                execute("ROLLBACK")
        times[number] = clock() - before
        done += 1
    taken = max(clock() - began, done / rate)
    with latencies.open("wb") as file:
        times[:done].tofile(file)
    print(json.dumps({"commits": done - errors.total(), "errors": errors, "seconds": taken}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    write(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
