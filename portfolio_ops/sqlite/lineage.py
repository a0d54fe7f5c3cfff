"""Is what the WAL holds now the continuation of what was read from it, or another history?

A generation of a WAL is named by its salts. A writer that begins the WAL anew raises the first by one and draws the
second (<https://www.sqlite.org/fileformat2.html#walformat>), so a generation that nobody saw leaves a gap.

A gap is no doubt by itself: each checkpoint of kind TRUNCATE of an empty WAL leaves one, and a connection that never
began a WAL draws both salts of one that it begins in an empty file (`walFrames` in wal.c). Only a generation that held
frames matters, and one cannot end before its frames are in the main file. Lock 0 forbids that. So the main file must be
as it was when that lock was got. If it is not, the lock was lost, or a program that knows nothing of SQLite wrote the
file: `cp` over it, while the site is stopped.
"""

import os
from pathlib import Path

from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.holders import identity_of
from portfolio_ops.sqlite.wal import FRAME_HEADER, HEADER
from portfolio_ops.sqlite.wal_index import WalIndex


class TimelineEndedError(PortfolioOpsError):
    """It cannot be proved that nothing passed unseen: what is read from now on needs a base of its own.

    Attributes:
        in_order: Whether the site itself did it, or a clock: else a person should look at what there is now.
    """

    code = "TIMELINE_ENDED"

    def __init__(self, message: str, *, in_order: bool = False) -> None:
        super().__init__(message, suggestion="begin a new timeline with a fresh base; what was archived stays good")
        self.in_order = in_order


def require_continuation(before: WalIndex, now: WalIndex, *, may_end: bool, written: bool) -> None:
    """Check that `now` follows `before` with no generation between them that held anything.

    Args:
        before: What was last seen.
        now: What is seen.
        may_end: All of `before`'s generation was in the main file when our lock last moved. Only then can SQLite have
            begun another; if it did so all the same, our lock was lost.
        written: The main file was written since our lock last moved, although it held all of the generation then.

    Raises:
        TimelineEndedError: It does not, or that cannot be known.
    """
    if written:
        raise TimelineEndedError("another program wrote the database's file, which was to stay as it was")
    if now.frames and before.page_size and now.page_size != before.page_size:
        raise TimelineEndedError(f"the page size changed from {before.page_size} to {now.page_size}", in_order=True)
    if now.salts == before.salts:
        if now.frames < before.frames:
            raise TimelineEndedError(f"the WAL went back from frame {before.frames} to frame {now.frames}")
        return
    if not may_end:
        raise TimelineEndedError("the WAL was begun anew although a read mark was held")


def require_same_file(descriptor: int, path: Path) -> None:
    """Check that the name still leads to the file that is open.

    Raises:
        TimelineEndedError: The file was replaced or removed.
    """
    if not is_same_file(descriptor, path):
        what = "replaced" if path.exists() else "removed"
        raise TimelineEndedError(f"{path} was {what} while it was in use")


def is_same_file(descriptor: int, path: Path) -> bool:
    """Whether a name leads to the file that is open."""
    ours = os.fstat(descriptor)
    return identity_of(path) == (ours.st_dev, ours.st_ino)


def holds_all(descriptor: int, index: WalIndex, page_size: int) -> bool:
    """Whether the WAL file is as long as its index says."""
    return os.fstat(descriptor).st_size >= HEADER + index.frames * (FRAME_HEADER + page_size) or index.frames == 0
