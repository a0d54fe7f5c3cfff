"""What of a WAL's frames is committed: exactly what SQLite itself would recover after a crash.

<https://www.sqlite.org/fileformat2.html#walformat>: a frame is valid if it has the salts of the header, the number of a
page, and a checksum that continues the chain from the header on. A transaction counts if its last frame, which says how
long the database is, is valid. A live reader of SQLite's never looks at checksums; recovery does, and drops all that
follows the first frame that is not valid, without a word.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portfolio_ops.sqlite.checksum import Bytes, FrameChecksums, Words
from portfolio_ops.sqlite.wal import FRAME_HEADER
from portfolio_ops.sqlite.wal_header import SALTS, Checksum, Cursor, Header

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_SALTS_AT = 8
_HEAD = FRAME_HEADER // 4
_SIZE, _SALTS, _CHECKSUM = 1, 2, 4
"""Places in the six words of a frame's header; the page's number comes first."""


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


def committed(header: Header, cursor: Cursor, parts: Iterable["ReadableBuffer"]) -> Commits:
    """Find the transactions that are complete and undamaged, up to the last commit.

    Args:
        header: The WAL's header.
        cursor: Where in the WAL the first part begins: `header.start`, or `end` of an earlier answer.
        parts: Frames as they stand in the file, so many in each part as is convenient; only the last may end within
            one. Of a live file, only those that the wal-index says are committed: the others may change while they are
            looked at. Nothing of a part is kept when the next is asked for.
    """
    size = FRAME_HEADER + header.page_size
    sums = FrameChecksums(header.page_size, big_endian=header.big_endian)
    found, stop, checksum = [np.empty((0, _HEAD), dtype=np.uint32)], Stop.END, cursor.checksum
    for part in parts:
        data = memoryview(part)
        count = data.nbytes // size
        if not count:
            continue
        frames = np.frombuffer(data, np.uint8, count * size).reshape(count, size)
        heads = _numbers(frames[:, :FRAME_HEADER]).astype(np.uint32)
        valid = _valid(sums, frames, heads, header.salts, checksum)
        found.append(heads[:valid])
        if valid < count:
            ours = _salts(frames[valid]).tobytes() == header.salts
            stop = Stop.DAMAGED if ours else Stop.STALE
            break
        checksum = _checksum_in(heads[-1])
    heads = np.concatenate(found)
    ends = np.flatnonzero(heads[:, _SIZE])
    last = int(ends[-1]) + 1 if len(ends) else 0
    pages, sizes = heads[:last, :_SALTS].T.copy()
    end = Cursor(cursor.frame + last, _checksum_in(heads[last - 1])) if last else cursor
    return Commits(pages, sizes, end, stop, cursor.frame + len(heads) + 1)


def _valid(sums: FrameChecksums, frames: Bytes, heads: Words, salts: bytes, before: Checksum) -> int:
    """How many frames from the first on are valid, if the checksum before them is `before`."""
    stored = heads[:, _CHECKSUM:]
    # Each frame is checked against the stored checksum of the one before it. If that was wrong, it is not valid itself.
    chain = np.concatenate([np.array([before], dtype=np.uint32), stored[:-1]])
    good = (sums.following(frames, chain) == stored).all(axis=1)
    good &= (_salts(frames) == np.frombuffer(salts, np.uint8)).all(axis=1)
    good &= heads[:, 0] != 0
    return len(good) if good.all() else int(good.argmin())


def _salts(frames: Bytes) -> Bytes:
    return frames[..., _SALTS_AT : _SALTS_AT + SALTS]


def _numbers(part: Bytes) -> NDArray[np.uint32]:
    """The numbers in a part of each frame's header, in the file's byte order."""
    return part.view(">u4")


def _checksum_in(head: Words) -> Checksum:
    s0, s1 = head[_CHECKSUM:].tolist()
    return s0, s1
