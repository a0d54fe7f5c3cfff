"""The header of a write-ahead log: what its frames are measured by, and where their chain of checksums begins.

Format: <https://www.sqlite.org/fileformat2.html#the_wal_file_format>. 32 bytes: magic, version, page size, a counter of
checkpoints, two salts, and a checksum of these 24 bytes. All are stored big-endian.
"""

import struct
from dataclasses import dataclass

from portfolio_ops.errors import PortfolioOpsError

Checksum = tuple[int, int]
"""The two 32-bit words s0 and s1 of a running checksum."""

SALTS = 8
"""Length of both salts, in bytes."""

_FIELDS = struct.Struct(">4I8s")
_CHECKSUM = struct.Struct(">2I")
_MAGIC = 0x377F0682  # its last bit is set where checksums are of big-endian words
_VERSION = 3007000
_SMALLEST_PAGE, _LARGEST_PAGE = 512, 65536


@dataclass(frozen=True)
class Cursor:
    """A place in a WAL from which it can be read or written on.

    Attributes:
        frame: The last frame before it; 0 for none.
        checksum: The running checksum after that frame; for frame 0 that of the header.
    """

    frame: int
    checksum: Checksum


@dataclass(frozen=True)
class Header:
    """What a WAL's header says.

    Attributes:
        page_size: In bytes.
        salts: Salt-1 and salt-2 as they stand in the file; every frame of this generation carries them.
        big_endian: Whether checksums take the bytes as big-endian words.
        start: Before the first frame.
    """

    page_size: int
    salts: bytes
    big_endian: bool
    start: Cursor


def parse_header(data: bytes) -> Header | None:
    """The header at the beginning of `data`, or None where SQLite would recover nothing.

    That is a file that is empty or torn, or another kind of file: SQLite passes over all of it and reads the main file
    alone.

    Raises:
        PortfolioOpsError: It is of a version this tool does not know; SQLite, too, refuses to open such a database.
    """
    if len(data) < _FIELDS.size + _CHECKSUM.size:
        return None
    magic, version, page_size, _, salts = _FIELDS.unpack_from(data)
    big_endian = bool(magic & 1)
    if magic & ~1 != _MAGIC or not _is_page_size(page_size):
        return None
    checksum = _checksum(data[: _FIELDS.size], big_endian=big_endian)
    if checksum != _CHECKSUM.unpack_from(data, _FIELDS.size):
        return None
    if version != _VERSION:
        raise PortfolioOpsError(
            f"the WAL has version {version}, not {_VERSION}",
            suggestion="was it written by a later SQLite? Look for a newer portfolio-ops",
        )
    return Header(page_size, salts, big_endian, Cursor(0, checksum))


def encode_header(page_size: int, salts: bytes, *, big_endian: bool) -> bytes:
    """The 32 bytes that `parse_header` reads.

    Raises:
        ValueError: No database has pages of this size, or the salts are not eight bytes.
    """
    if not _is_page_size(page_size) or len(salts) != SALTS:
        raise ValueError(f"no WAL has pages of {page_size} bytes and {len(salts)} bytes of salts")
    fields = _FIELDS.pack(_MAGIC | big_endian, _VERSION, page_size, 0, salts)
    return fields + _CHECKSUM.pack(*_checksum(fields, big_endian=big_endian))


def _is_page_size(number: int) -> bool:
    return _SMALLEST_PAGE <= number <= _LARGEST_PAGE and number & (number - 1) == 0


def _checksum(data: bytes, *, big_endian: bool) -> Checksum:
    """The checksum of a few bytes; for frames, see `FrameChecksums`."""
    s0 = s1 = 0
    for even, odd in struct.iter_unpack(">2I" if big_endian else "<2I", data):
        s0 = (s0 + even + s1) & 0xFFFFFFFF
        s1 = (s1 + odd + s0) & 0xFFFFFFFF
    return s0, s1
