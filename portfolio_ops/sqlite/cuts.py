"""The cuts of an increment, as the records of fixed size that stand in it before what they describe.

A record is a zstd skippable frame (RFC 8878, section 3.1.2): magic, length, signature, the fields in little-endian, and
the SHA-256 that chains it to all before it.
"""

import hashlib
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import overload

from portfolio_ops.moment import EPOCH, MICROSECOND
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.wal_header import Checksum

_FIELDS = struct.Struct("<II8sq8sI8sIIIQ32s2I")
_CHAIN = 32
RECORD = _FIELDS.size + _CHAIN
"""Bytes of a record."""

_LENGTH = struct.Struct("<Q")
_LENGTH_AT = struct.calcsize("<II8sq8sI8sIII")
_SEEN_ONLY = struct.Struct(f"<16xq{RECORD - 24}x")
_FRAMES_ONLY = struct.Struct(f"<52xI{RECORD - 56}x")
_SALTS_ONLY = struct.Struct(f"<36x8s{RECORD - 44}x")
_MAGIC, _SIGNATURE = 0x184D2A5E, b"pf-cut\x00\x01"


@dataclass(frozen=True)
class Cut:
    """The end of a flush: a moment to which the database can be brought.

    Attributes:
        seen: When this state was seen, UTC, to the microsecond.
        since: The state from which on pages changed: the one before.
        position: The state itself.
        pages: Size of the database in pages.
        frames: How many frames of the WAL the flush has.
        length: Of the zstd frame they are in, which ends at `end`; in bytes.
        sha256: Of that zstd frame.
        end: How many bytes of the file are needed for this moment.
        checksum: The WAL's running checksum after it.
        chain: SHA-256 of the chain before and of the record of this cut.
    """

    seen: datetime
    since: Position
    position: Position
    pages: int
    frames: int
    length: int
    sha256: bytes
    end: int
    checksum: Checksum
    chain: bytes


class Cuts(Sequence[Cut]):
    """The cuts of a file, in the order in which they were written, as its records: one is made when it is asked for.

    A month of a busy site has more than 100,000 of them. Most questions are about a few, or about one number of each.

    Args:
        records: One behind the other.
        ends: Where the flush of each ends in the file.
    """

    def __init__(self, records: bytes = b"", ends: Iterable[int] = ()) -> None:
        self.records = records
        self._ends = array("Q", ends)

    @classmethod
    def of(cls, cuts: Iterable[Cut]) -> "Cuts":
        """Some cuts, wherever they come from."""
        made = list(cuts)
        return cls(b"".join(encode_fields(cut) + cut.chain for cut in made), [cut.end for cut in made])

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Cut: ...
    @overload
    def __getitem__(self, index: slice) -> "Cuts": ...
    def __getitem__(self, index: int | slice) -> "Cut | Cuts":
        if isinstance(index, int):
            number = range(len(self))[index]
            return _cut(self.records[number * RECORD : (number + 1) * RECORD], self._ends[number])
        start, stop, step = index.indices(len(self))
        if step != 1:
            raise ValueError("cuts are taken in a row")
        return Cuts(self.records[start * RECORD : stop * RECORD], self._ends[start:stop])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Cuts):
            return (self.records, self._ends) == (other.records, other._ends)
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(self.records)

    def index(self, value: Cut, start: int = 0, stop: int | None = None) -> int:
        """Which one it is: no two have the same chain, by which one is found without looking at each.

        Raises:
            ValueError: It is none of them.
        """
        at = self.records.find(value.chain)
        while at >= 0:
            number, rest = divmod(at - _FIELDS.size, RECORD)
            if rest == 0 and number in range(len(self))[start:stop] and self[number] == value:
                return number
            at = self.records.find(value.chain, at + 1)
        raise ValueError("it is the cut of another file")

    def moments(self) -> list[int]:
        """When each was seen, in microseconds since 1970."""
        return [seen for (seen,) in _SEEN_ONLY.iter_unpack(self.records)]

    def frames(self) -> int:
        """How many frames of the WAL they have together."""
        return sum(frames for (frames,) in _FRAMES_ONLY.iter_unpack(self.records))

    def generations(self) -> list[tuple[str, range]]:
        """The generations of the WAL in which they end, by their salts, and which cuts those are."""
        found: list[tuple[str, range]] = []
        before, start = b"", 0
        for number, (salts,) in enumerate(_SALTS_ONLY.iter_unpack(self.records)):
            if salts != before:
                if number:
                    found.append((before.hex(), range(start, number)))
                before, start = salts, number
        if self:
            found.append((before.hex(), range(start, len(self))))
        return found


def encode_fields(cut: Cut) -> bytes:
    """The record of a cut, but for its chain, which follows."""
    return _FIELDS.pack(
        _MAGIC,
        RECORD - 8,
        _SIGNATURE,
        (cut.seen - EPOCH) // MICROSECOND,
        *(bytes.fromhex(cut.since.salts), cut.since.frame),
        *(bytes.fromhex(cut.position.salts), cut.position.frame),
        *(cut.pages, cut.frames, cut.length, cut.sha256),
        *cut.checksum,
    )


def chained(chain: bytes, fields: bytes) -> bytes:
    """The chain after a record, given the chain before it."""
    return hashlib.sha256(chain + fields).digest()


def follows(record: bytes, chain: bytes) -> bool:
    """Whether a record is the next one behind a chain, whole as it was written."""
    return chained(chain, record[: _FIELDS.size]) == chain_of(record)


def chain_of(record: bytes) -> bytes:
    """The chain after a record, as it stands in it."""
    return record[_FIELDS.size :]


def length_of(record: bytes) -> int:
    """Bytes of the flush that stands behind a record."""
    return int(_LENGTH.unpack_from(record, _LENGTH_AT)[0])


def _cut(record: bytes, end: int) -> Cut:
    """The cut of a record, whose flush ends at byte `end`."""
    _, _, _, seen, since, since_frame, salts, frame, pages, frames, length, sha256, s0, s1 = _FIELDS.unpack_from(record)
    return Cut(
        EPOCH + seen * MICROSECOND,
        Position(since.hex(), since_frame),
        Position(salts.hex(), frame),
        pages,
        frames,
        length,
        sha256,
        end,
        (s0, s1),
        record[_FIELDS.size :],
    )
