"""Is what the WAL holds now the continuation of what was read from it, or another history?

A generation of a WAL is named by its salts. A writer that begins the WAL anew raises the first by one and draws the
second (<https://www.sqlite.org/fileformat2.html#walformat>), so a generation that nobody saw leaves a gap. In an empty
file, one just made or one that a checkpoint of kind TRUNCATE emptied, a connection that never began a WAL draws both,
and writes 0 as the sequence number in the header (`walFrames` in wal.c).
"""

import os
from pathlib import Path

from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.sqlite.wal import FRAME_HEADER, HEADER
from portfolio_ops.sqlite.wal_index import WalIndex

_SEQUENCE = 12  # where the checkpoint sequence number stands in the WAL's header


class TimelineEndedError(PortfolioOpsError):
    """It cannot be proved that nothing passed unseen: what is read from now on needs a base of its own."""

    code = "TIMELINE_ENDED"

    def __init__(self, message: str) -> None:
        super().__init__(message, suggestion="begin a new timeline with a fresh base; what was archived stays good")


def first_salt(salts: bytes) -> int:
    """The salt that counts the generations."""
    return int.from_bytes(salts[:4], "big")


def require_continuation(wal: int, before: WalIndex, now: WalIndex, *, may_end: bool) -> None:
    """Check that `now` follows `before` with no generation between them.

    Args:
        wal: The open `-wal`.
        before: What was last seen.
        now: What is seen.
        may_end: All of `before`'s generation was in the main file when our lock last moved. Only then can SQLite have
            begun another; if it did so all the same, our lock was lost.

    Raises:
        TimelineEndedError: It does not, or that cannot be known.
    """
    if now.frames and before.page_size and now.page_size != before.page_size:
        raise TimelineEndedError(f"the page size changed from {before.page_size} to {now.page_size}")
    if now.salts == before.salts:
        if now.frames < before.frames:
            raise TimelineEndedError(f"the WAL went back from frame {before.frames} to frame {now.frames}")
        return
    if not may_end:
        raise TimelineEndedError("the WAL was begun anew although a read mark was held")
    # An empty WAL may have been emptied any number of times: each raises the salt, and no frame is lost by it.
    chained = before.frames == 0 or first_salt(now.salts) == (first_salt(before.salts) + 1) % (1 << 32)
    if not chained and os.pread(wal, 4, _SEQUENCE) != bytes(4):
        raise TimelineEndedError(
            f"the WAL's salts went from {before.salts.hex()} to {now.salts.hex()}: not the next generation"
        )


def require_same_file(descriptor: int, path: Path) -> None:
    """Check that the name still leads to the file that is open.

    Raises:
        TimelineEndedError: The file was replaced or removed.
    """
    ours = os.fstat(descriptor)
    try:
        theirs = path.stat()
    except FileNotFoundError as error:
        raise TimelineEndedError(f"{path} was removed while it was in use") from error
    if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
        raise TimelineEndedError(f"{path} was replaced while it was in use")


def holds_all(descriptor: int, index: WalIndex, page_size: int) -> bool:
    """Whether the WAL file is as long as its index says."""
    return os.fstat(descriptor).st_size >= HEADER + index.frames * (FRAME_HEADER + page_size) or index.frames == 0
