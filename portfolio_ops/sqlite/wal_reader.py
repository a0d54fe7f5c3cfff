"""What of a WAL's frames is committed: exactly what SQLite itself would recover after a crash.

<https://www.sqlite.org/fileformat2.html#walformat>: a frame is valid if it has the salts of the header, the number of a
page, and a checksum that continues the chain from the header on. A transaction counts if its last frame, which says how
long the database is, is valid. A live reader of SQLite's never looks at checksums; recovery does, and drops all that
follows the first frame that is not valid, without a word.
"""

import enum
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portfolio_ops.sqlite.checksum import Bytes, FrameChecksums, Words
from portfolio_ops.sqlite.wal import FRAME_HEADER
from portfolio_ops.sqlite.wal_header import SALTS, Checksum, Cursor, Header

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_BATCH_BYTES = 4 << 20
_SALTS_AT, _CHECKSUM_AT = 8, 16


class Stop(enum.Enum):
    """Why no further frame is valid.

    END: The data ends, or the rest is shorter than a frame.
    STALE: The next frame has other salts: it is of an older generation, or a writer has only begun with it.
    DAMAGED: The next frame has the salts of this generation, but its checksum does not continue the chain. That is
        proper for frames that are not committed: a writer rewrites them within its transaction, and those of a rollback
        stay behind.

    None but END may befall a frame that the wal-index says is committed.
    """

    END = enum.auto()
    STALE = enum.auto()
    DAMAGED = enum.auto()


@dataclass(frozen=True)
class Commits:
    """Frames of whole transactions, from a cursor on.

    Attributes:
        pages: For each frame the number of its page.
        sizes: For each frame the size of the database in pages after the commit that the frame ends, or 0 where it ends
            none. The last is never 0.
        end: After the last of these frames; where there is none, the cursor that was begun from.
        stop: Why the frame numbered `stopped_at` is not valid.
        stopped_at: The first frame that is not valid. Frames between `end` and it are of a transaction without an end.
    """

    pages: Words
    sizes: Words
    end: Cursor
    stop: Stop
    stopped_at: int


def committed(header: Header, cursor: Cursor, data: "ReadableBuffer") -> Commits:
    """Find the transactions that are complete and undamaged, up to the last commit.

    Args:
        header: The WAL's header.
        cursor: Where in the WAL `data` begins: `header.start`, or `end` of an earlier answer.
        data: Frames as they stand in the file: bytes, a view, a map of the file. Of a live file's map, only those that
            the wal-index says are committed: the others may change while they are looked at. Nothing of it is kept.
    """
    data = memoryview(data)
    size = FRAME_HEADER + header.page_size
    total, per_batch = data.nbytes // size, max(1, _BATCH_BYTES // size)
    sums = FrameChecksums(header.page_size, big_endian=header.big_endian)
    found, stop, checksum = [np.empty((0, 2), dtype=np.uint32)], Stop.END, cursor.checksum
    for first in range(0, total, per_batch):
        count = min(per_batch, total - first)
        frames = np.frombuffer(data, np.uint8, count * size, first * size).reshape(count, size)
        valid = _valid(sums, frames, header.salts, checksum)
        found.append(_numbers(frames[:valid, :_SALTS_AT]).astype(np.uint32))
        if valid < count:
            ours = _salts(frames[valid]).tobytes() == header.salts
            stop = Stop.DAMAGED if ours else Stop.STALE
            break
        checksum = _stored(data, first + count, size)
    heads = np.concatenate(found)
    ends = np.flatnonzero(heads[:, 1])
    last = int(ends[-1]) + 1 if len(ends) else 0
    pages, sizes = heads[:last].T.copy()
    end = Cursor(cursor.frame + last, _stored(data, last, size)) if last else cursor
    return Commits(pages, sizes, end, stop, cursor.frame + len(heads) + 1)


def _valid(sums: FrameChecksums, frames: Bytes, salts: bytes, before: Checksum) -> int:
    """How many frames from the first on are valid, if the checksum before them is `before`."""
    stored = _numbers(frames[:, _CHECKSUM_AT:FRAME_HEADER]).astype(np.uint32)
    # Each frame is checked against the stored checksum of the one before it. If that was wrong, it is not valid itself.
    chain = np.concatenate([np.array([before], dtype=np.uint32), stored[:-1]])
    good = (sums.following(frames, chain) == stored).all(axis=1)
    good &= (_salts(frames) == np.frombuffer(salts, np.uint8)).all(axis=1)
    good &= _numbers(frames[:, :4])[:, 0] != 0
    return len(good) if good.all() else int(good.argmin())


def _salts(frames: Bytes) -> Bytes:
    return frames[..., _SALTS_AT : _SALTS_AT + SALTS]


def _numbers(part: Bytes) -> NDArray[np.uint32]:
    """The numbers in a part of each frame's header, in the file's byte order."""
    return part.view(">u4")


def _stored(data: memoryview, frame: int, size: int) -> Checksum:
    """The checksum that stands in a frame, which is counted from 1."""
    s0, s1 = struct.unpack_from(">2I", data, (frame - 1) * size + _CHECKSUM_AT)
    return s0, s1
