"""The site's own program: a process that has the database open, and what a database holds.

Run as a script with the database's path. Each line on its standard input is a list of statements, a transaction; each
answer tells what the database holds then, or the error. It stands on the standard library alone.
"""

import contextlib
import hashlib
import json
import sqlite3
import sys
import time
from pathlib import Path

State = dict[str, str]
"""What a database holds: of each table the hash of its rows, of its definitions, and how it is kept."""


def state_of(connection: sqlite3.Connection) -> State:
    """Everything that a site could see of its database."""
    schema = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
    kept = [
        connection.execute(f"PRAGMA {each}").fetchone()[0] for each in ("page_size", "user_version", "journal_mode")
    ]
    state = {"*schema": _digest(schema), "*kept": " ".join(map(str, kept))}
    for kind, name, _ in schema:
        if kind == "table" and not name.startswith("sqlite_"):
            state[name] = _digest(sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr))
    return state


def read(database: Path) -> State:
    """What a database holds that nobody has open; it must be sound."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return state_of(connection)


def _digest(rows: object) -> str:
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def _serve(database: str) -> None:
    connection = sqlite3.connect(database, timeout=30, isolation_level=None)
    connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
    for line in sys.stdin:
        pause, statements = json.loads(line)
        try:
            for each in statements:
                connection.execute(each).fetchall()
            answer: dict[str, State | str] = {"state": state_of(connection)}
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
        time.sleep(pause)
    connection.close()


if __name__ == "__main__":
    _serve(sys.argv[1])
