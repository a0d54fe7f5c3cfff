"""The header of the wal-index, the `-shm` file: what is committed, and what of it is in the main file already.

Layout: <https://www.sqlite.org/walformat.html#the_wal_index_header>. Values are in the machine's byte order, but for
the salts, which are copied from the WAL as they stand there (big-endian).
"""

import os
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from portfolio_ops.errors import BusyError, NotFoundError, PortfolioOpsError
from portfolio_ops.host.files import open_regular
from portfolio_ops.sqlite.place import located, side

_COPY = struct.Struct("=IIIBBHII8s8s8s")  # version .. checksum, 48 bytes; it stands twice
_CHECKPOINT = struct.Struct("=I")  # nBackfill, behind both copies
_LENGTH = 2 * _COPY.size + _CHECKPOINT.size
_VERSION = 3007000
_LARGEST = 65536  # stands as 1, for it does not fit in 16 bits
_PATIENCE = 5.0


@dataclass(frozen=True)
class WalIndex:
    """One moment of a wal-index.

    Attributes:
        frames: Frames of the WAL that are committed (mxFrame).
        pages: Size of the database in pages after the last commit; 0 where the WAL has no commit.
        salts: Salt-1 and salt-2 of the WAL's present generation, as the eight bytes in its header.
        backfilled: Frames that are already in the main file (nBackfill).
        page_size: In bytes; 0 where nothing was committed since the index was made.
    """

    frames: int
    pages: int
    salts: bytes
    backfilled: int
    page_size: int


def read_wal_index(descriptor: int) -> WalIndex:
    """Read the header, as a reader of SQLite's would: both copies must be equal.

    A writer that begins the WAL anew writes the header first and nBackfill after it. So both are read twice, and of a
    WAL that has no frame yet, none is backfilled.

    Args:
        descriptor: The open `-shm` file. It must not be closed before every connection of this process to the database
            is: closing it would drop their locks (fcntl(2), "Advisory record locking").

    Raises:
        BusyError: A writer kept changing it for 5 s.
        PortfolioOpsError: It is of a version this tool does not know.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        data = os.pread(descriptor, _LENGTH, 0)
        copies_agree = len(data) == _LENGTH and data[: _COPY.size] == data[_COPY.size : 2 * _COPY.size]
        if copies_agree and data == os.pread(descriptor, _LENGTH, 0):
            version, _, _, initialised, _, size, frames, pages, _, salts, _ = _COPY.unpack_from(data)
            if initialised:
                if version != _VERSION:
                    raise PortfolioOpsError(f"the wal-index has version {version}, not {_VERSION} ({sys.byteorder})")
                (backfilled,) = _CHECKPOINT.unpack_from(data, 2 * _COPY.size)
                return WalIndex(frames, pages, salts, min(backfilled, frames), _LARGEST if size == 1 else size)
        if time.monotonic() > deadline:
            raise BusyError(
                "the wal-index did not come to rest for 5 s",
                suggestion="is a process stopped in the middle of a commit?",
            )


def wal_index_of(database: Path) -> WalIndex | None:
    """Read the index of a live database, found by its name; None where it has none.

    Never in a process that has the database open: closing the `-shm` would drop its locks (fcntl(2)).

    Raises:
        PortfolioOpsError: As `read_wal_index` and `open_regular`.
    """
    path = located(database)
    try:
        descriptor = open_regular(side(path, "-shm"))
    except NotFoundError:
        return None
    try:
        return read_wal_index(descriptor)
    finally:
        os.close(descriptor)
