"""Emptying the WAL of a database that this process must not open: one that was put in the place of another.

This process has the other one open still, and SQLite would find both side files in the same place: what one of them
locks would be taken for a lock of both.
"""

import subprocess
import sys
from pathlib import Path

_SECONDS = 10.0
_EMPTY = """
import sys, apsw
connection = apsw.Connection(sys.argv[1], flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
connection.set_busy_timeout(int(sys.argv[2]))
connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
"""


def empty_from_outside(database: Path, milliseconds: int) -> None:
    """Copy the WAL into the database and cut it to nothing, in a process of its own.

    Args:
        database: Where it really lies: no link is followed.
        milliseconds: To wait at most, for each lock that another holds.

    Raises:
        subprocess.SubprocessError: It failed, or took longer than 10 s.
        OSError: No process could be started.
    """
    command = [sys.executable, "-c", _EMPTY, str(database), str(milliseconds)]
    # What it says would come into our journal as it is; that it failed is known by its exit code.
    subprocess.run(command, check=True, timeout=_SECONDS, stderr=subprocess.DEVNULL)  # noqa: S603  (all our own)
