"""The write-ahead log: where each page's newest version stands.

Format: <https://www.sqlite.org/fileformat2.html#walformat>. A 32-byte header, then frames: a 24-byte header (page
number, size of the database after a commit or 0, both salts, checksum) and the page. All numbers are big-endian.
"""

import os
import struct
from array import array

from portfolio_ops.errors import PortfolioOpsError

HEADER = 32
FRAME_HEADER = 24
_SCAN_BYTES = 4 << 20


def frame_offset(frame: int, page_size: int) -> int:
    """Where the page of frame number `frame` (from 1) begins in the file."""
    return HEADER + (frame - 1) * (FRAME_HEADER + page_size) + FRAME_HEADER


def newest_frames(descriptor: int, *, frames: int, pages: int, page_size: int, salts: bytes) -> "array[int]":
    """For each page the number of its newest frame among the first `frames`, 0 where only the main file has it.

    Later frames are of later commits, or of a transaction that has not ended, and are not looked at.

    Args:
        descriptor: The open `-wal` file.
        frames: The last frame of the commit that is read (the mark).
        pages: The database's size in pages at that commit; frames of pages beyond it are of a longer, older state.
        page_size: In bytes.
        salts: The generation's salts; every frame of it carries them.

    Returns:
        An array indexed by page number (its element 0 is unused); 4 bytes a page.

    Raises:
        PortfolioOpsError: A frame is not of this generation: the WAL is damaged.
    """
    newest = array("I", bytes(4 * (pages + 1)))
    step = FRAME_HEADER + page_size
    batch = max(1, _SCAN_BYTES // step)
    header = struct.Struct(f">I4x8s{step - 16}x")
    for first in range(1, frames + 1, batch):
        count = min(batch, frames - first + 1)
        data = os.pread(descriptor, count * step, HEADER + (first - 1) * step)
        if len(data) != count * step:
            raise PortfolioOpsError(
                f"the WAL ends before frame {frames}, which its index says is committed",
                suggestion="was the -wal file truncated or replaced by hand? Stop the site and check the database",
            )
        for frame, (page, found) in enumerate(header.iter_unpack(data), first):
            if found != salts:
                raise PortfolioOpsError(
                    f"frame {frame} of the WAL is not of the generation that its index names",
                    suggestion="the -wal file is damaged or was replaced: stop the site and check the database",
                )
            if page <= pages:
                newest[page] = frame
    return newest
