"""Who else has a database in WAL mode open, as the locks tell: nobody is asked, and nobody is held up.

Which bytes of the `-shm` are locked: <https://www.sqlite.org/walformat.html#wal_locks>; the one behind them, which each
process shares that has the database open, is in os_unix.c (`UNIX_SHM_DMS`).
"""

import fcntl
import os
import struct

_CONNECTED = 128
_FLOCK = struct.Struct("hhqqi4x")  # fcntl(2), struct flock: type, whence, start, length, pid


def others_are_connected(shm: int) -> bool:
    """Whether any process but this one has the database open, be it in a container.

    Args:
        shm: The open `-shm` file, for which holds what `read_wal_index` says.
    """
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _CONNECTED, 1, 0)
    found, *_ = _FLOCK.unpack(fcntl.fcntl(shm, fcntl.F_GETLK, asked))
    return bool(found != fcntl.F_UNLCK)
