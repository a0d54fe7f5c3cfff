"""What was committed to a pinned WAL since the last look, with every checksum verified.

SQLite's live readers never look at checksums; its recovery does, and drops without a word all that follows a frame that
is not valid (<https://www.sqlite.org/fileformat2.html#walformat>). A committed frame that is damaged on its way through
the disk or memory is therefore found here, while the site still runs and can be backed up.
"""

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portfolio_ops.calling import tool
from portfolio_ops.errors import VerificationError
from portfolio_ops.sqlite.pin import Pin
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.wal import FRAME_HEADER, HEADER
from portfolio_ops.sqlite.wal_header import Checksum, Cursor, Header, parse_header
from portfolio_ops.sqlite.wal_index import WalIndex
from portfolio_ops.sqlite.wal_reader import Commits, committed

_PART = 1 << 20  # bytes of frames that are in memory at a time
_CHECKSUM_AT = 16  # in a frame's header
_FRAME = struct.Struct(">II8s8x")  # page, size of the database after a commit (else 0), salts, checksum


class DamagedWalError(VerificationError):
    """A frame that is committed does not have its checksum: SQLite would lose it, and all after it, in a recovery."""

    code = "DAMAGED_WAL"


@dataclass(frozen=True)
class Changes:
    """Pages that changed between two positions, each in its last version.

    Attributes:
        since, position: From where to where.
        database_pages: Length of the database in pages at `position`.
        frames: How many frames of the WAL that was.
    """

    since: Position
    position: Position
    database_pages: int
    frames: int
    _numbers: NDArray[np.uint32]
    _frames: NDArray[np.int64]
    _wal: int
    _step: int

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Number and content of each page, in order of number; valid while the block of `Tail.changes` runs.

        Raises:
            DamagedWalError: The WAL was cut off.
        """
        page_size = self._step - FRAME_HEADER
        for number, frame in zip(self._numbers.tolist(), self._frames.tolist(), strict=True):
            page = os.pread(self._wal, page_size, HEADER + (frame - 1) * self._step + FRAME_HEADER)
            if len(page) != page_size:
                raise DamagedWalError(
                    f"the WAL was cut off before frame {frame}, which is committed", suggestion=_cure()
                )
            yield number, page


class Tail:
    """A place in the history of a pinned WAL.

    Args:
        pin: Must be held until all that its index names is read.
        position: Where to begin: a commit of the present generation, or frame 0 of it.
    """

    def __init__(self, pin: Pin, position: Position) -> None:
        self._pin = pin
        self._step = FRAME_HEADER + pin.page_size
        self.position = position
        self._header: Header | None = None
        self._cursor = Cursor(0, (0, 0))

    @property
    def checksum(self) -> Checksum:
        """The WAL's running checksum at the position."""
        return self._cursor.checksum

    def begin(self) -> None:
        """Go to the beginning position. The frames before it are not read; what matters is how the next go on from it.

        Raises:
            DamagedWalError: The WAL is of another generation.
        """
        if self.position.frame:
            self._open_generation(bytes.fromhex(self.position.salts))
            stands_at = HEADER + self.position.frame * self._step - self._step + _CHECKSUM_AT
            s0, s1 = struct.unpack(">2I", os.pread(self._pin.wal, 8, stands_at))
            self._cursor = Cursor(self.position.frame, (s0, s1))

    def may_stop_at(self, position: Position) -> bool:
        """Whether a place in the present generation lies ahead, at the end of a commit."""
        passed = self.position.frame if position.salts == self.position.salts else 0
        if position.frame <= passed:
            return False
        header = os.pread(self._pin.wal, FRAME_HEADER, HEADER + (position.frame - 1) * self._step)
        _, pages, salts = _FRAME.unpack(header)
        return bool(pages) and salts.hex() == position.salts

    @contextlib.contextmanager
    def changes(self, index: WalIndex) -> Iterator[Changes | None]:
        """What was committed since the last call, up to what `index` names; None if that is nothing.

        When the block ends without an exception, it counts as read.

        Raises:
            DamagedWalError: A committed frame does not have its checksum.
        """
        position = Position(index.salts.hex(), index.frames)
        if position == self.position or (index.frames == 0):
            yield None
            return
        before = self._header, self._cursor
        try:
            if index.salts.hex() != self.position.salts or self._header is None:
                self._open_generation(index.salts)
            first = self._cursor.frame
            found = self._read_on(index.frames)
            yield self._described(found, first, position) if len(found.pages) else None
        except BaseException:
            self._header, self._cursor = before
            raise
        self.position = position

    def _described(self, found: Commits, first: int, position: Position) -> Changes:
        # The last frame of each page: the first one from behind.
        unique, from_behind = np.unique(found.pages[::-1], return_index=True)
        pages, count = int(found.sizes[-1]), len(found.pages)
        inside = unique <= pages
        frames = first + count - from_behind.astype(np.int64)
        return Changes(self.position, position, pages, count, unique[inside], frames[inside], self._pin.wal, self._step)

    def _open_generation(self, salts: bytes) -> None:
        header = parse_header(os.pread(self._pin.wal, HEADER, 0))
        if header is None or header.salts != salts:
            raise DamagedWalError(
                "the WAL's header is not that of the generation which its index names", suggestion=_cure()
            )
        self._header, self._cursor = header, header.start

    def _parts(self, first: int, last: int) -> Iterator[memoryview]:
        """The frames behind number `first`, up to `last`, as they stand in the file; a part overwrites the one before.

        Not a map of the file: its pages would count as ours, and a WAL that somebody cuts off would end us.
        """
        per_part = max(1, min(_PART // self._step, last - first))
        buffer = memoryview(bytearray(per_part * self._step))
        while first < last:
            part = buffer[: min(per_part, last - first) * self._step]
            done = os.preadv(self._pin.wal, [part], HEADER + first * self._step)
            yield part[:done]
            if done < part.nbytes:
                return
            first += per_part

    def _read_on(self, last: int) -> Commits:
        """Verify the frames up to number `last`, which are committed."""
        if self._header is None:
            raise AssertionError("frames without a header")
        found = committed(self._header, self._cursor, self._parts(self._cursor.frame, last))
        if found.end.frame != last:
            raise DamagedWalError(
                f"frame {found.stopped_at} of the WAL is committed, and does not have its checksum "
                f"({found.stop.name.lower()})",
                suggestion=_cure(),
            )
        self._cursor = found.end
        return found


def _cure() -> str:
    """What saves what a damaged WAL holds."""
    return f"back up the database while the site still runs ({tool()} backup daily), then look for faults of the disk"
