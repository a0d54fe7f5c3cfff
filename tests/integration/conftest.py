"""A connection in another process.

POSIX locks do not hold within one process, and the standard library's SQLite is another than the product's: two
connections of one test process would not see each other's locks, and a test would prove nothing.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_SERVER = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=float(sys.argv[2]), isolation_level=None)
for line in sys.stdin:
    try:
        rows = connection.execute(*json.loads(line)).fetchall()
        print(json.dumps({"rows": rows}), flush=True)
    except sqlite3.Error as error:
        print(json.dumps({"error": str(error)}), flush=True)
connection.close()
"""


class Elsewhere:
    """A connection to a database, held by a process of its own."""

    def __init__(self, database: Path, timeout: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(database), str(timeout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def execute(self, sql: str, *parameters: Any) -> list[Any]:
        """Run one statement there, and wait for it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([sql, parameters]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        rows: list[Any] = answer["rows"]
        return rows

    def close(self) -> None:
        """Close the connection as a site does that stops."""
        if self.process.poll() is None:
            self.process.communicate()

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def elsewhere() -> Iterator[Callable[..., Elsewhere]]:
    """Opens a database in another process: `elsewhere(path, timeout=30.0)`."""
    opened: list[Elsewhere] = []

    def opener(database: Path, timeout: float = 30.0) -> Elsewhere:
        opened.append(Elsewhere(database, timeout))
        return opened[-1]

    yield opener
    for each in opened:
        each.kill()
