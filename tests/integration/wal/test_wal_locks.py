"""What the locks of other processes tell of a database."""

import contextlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from portfolio_ops.sqlite.pin import pinned

SITE = """
import sqlite3, sys
connections = [sqlite3.connect(sys.argv[1]) for _ in range(2)]
for connection in connections:
    connection.execute("SELECT * FROM t").fetchall()
print("open", flush=True)
for connection in connections:
    sys.stdin.readline()
    connection.close()
    print("closed", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("kill", [False, True])
def test_nobody_else_has_it_open_from_the_last_close(tmp_path: Path, kill: bool) -> None:
    database = tmp_path / "site.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.executescript("PRAGMA journal_mode=WAL; CREATE TABLE t(x)")
    with (
        pinned(database) as pin,
        subprocess.Popen(
            [sys.executable, "-c", SITE, database], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as site,
    ):
        assert site.stdin is not None
        assert site.stdout is not None
        assert site.stdout.readline() == "open\n"
        assert not pin.leave_nothing()
        if kill:
            site.send_signal(signal.SIGKILL)
            site.wait()
        else:
            site.stdin.write("\n")
            assert site.stdout.readline() == "closed\n"
            assert not pin.leave_nothing(), "one of its connections is open still"
            site.stdin.write("\n")
            assert site.stdout.readline() == "closed\n"
        assert pin.leave_nothing()
        site.kill()
