"""Making a WAL that SQLite itself replays, bit by bit.

The header and the frames of any number of transactions, written beside a database as its `-wal`, are that database
after the last of them: SQLite's own recovery brings it there. Cut off after any transaction, they are the moment of it.

Format: <https://www.sqlite.org/fileformat2.html#walformat>.
"""

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from portfolio_ops.sqlite.checksum import FrameChecksums
from portfolio_ops.sqlite.wal import FRAME_HEADER
from portfolio_ops.sqlite.wal_header import Cursor, encode_header, parse_header

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_FRAME = struct.Struct(">2I8s8x")
_NUMBER = struct.Struct(">I")
_CHECKSUM_AT = 16


class Encoder:
    """Frames of one WAL, each batch continuing the one before.

    Args:
        page_size: Of the database, in bytes.
        salts: Eight bytes that every frame carries.
        big_endian: Whether checksums take the bytes as big-endian words. SQLite reads both on every machine.
        cursor: Where an earlier encoder of the same WAL had come to; None to begin it.

    Attributes:
        cursor: After the last frame made.

    Raises:
        ValueError: No database has pages of this size, or the salts are not eight bytes.
    """

    def __init__(self, page_size: int, salts: bytes, *, big_endian: bool = False, cursor: Cursor | None = None) -> None:
        header = encode_header(page_size, salts, big_endian=big_endian)
        self._page_size = page_size
        self._salts = salts
        self._sums = FrameChecksums(page_size, big_endian=big_endian)
        self.cursor = cursor or _start(header)

    def frames(self, pages: Iterable[tuple[int, "ReadableBuffer"]], database_pages: int) -> bytes:
        """Frames of some pages, the last of which ends a transaction.

        Args:
            pages: Number (from 1) and content of each page. SQLite passes over those beyond the database's end.
            database_pages: Size of the database in pages after the transaction. 0 ends none: a transaction too large
                for memory can be made in parts, and none of it counts until the last part's frames are there.

        Raises:
            ValueError: There is no page, or one of another size or without a number. Nothing was made.
        """
        content = bytearray().join(self._parts(pages))
        if not content:
            raise ValueError("a transaction without a page has no frame that could end it")
        frames = np.frombuffer(content, np.uint8).reshape(-1, FRAME_HEADER + self._page_size)
        _NUMBER.pack_into(content, len(content) - frames.shape[1] + 4, database_pages)
        checksums = self._sums.running(frames, self.cursor.checksum)
        frames[:, _CHECKSUM_AT:FRAME_HEADER].view(">u4")[:] = checksums
        s0, s1 = checksums[-1].tolist()
        self.cursor = Cursor(self.cursor.frame + len(frames), (s0, s1))
        return bytes(content)

    def _parts(self, pages: Iterable[tuple[int, "ReadableBuffer"]]) -> Iterable["ReadableBuffer"]:
        for number, page in pages:
            if number < 1 or memoryview(page).nbytes != self._page_size:
                raise ValueError(f"page {number} has {memoryview(page).nbytes} bytes, not {self._page_size}")
            yield _FRAME.pack(number, 0, self._salts)
            yield page


def _start(header: bytes) -> Cursor:
    parsed = parse_header(header)
    if parsed is None:
        raise AssertionError("a header of our own that cannot be read")
    return parsed.start
