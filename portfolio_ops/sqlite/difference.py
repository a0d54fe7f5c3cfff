"""What differs between two states of a database, found by a hash of each page: where no WAL tells.

A state is named by a hash of these hashes. So two positions are equal only where every byte is; and a base lies in a
history only where it stands exactly at one of its states. In between it would not do: a page that changed and changed
back between two looks is in no difference, and a base that was taken just then would keep it as it was in the middle.
"""

import hashlib
import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from portfolio_ops.sqlite.snapshot import Position

DIGEST = 16
"""Bytes of the hash of a page: SHA-256 cut off, of which no two that are alike are known or to be expected.

Measured on a processor that has instructions for it, it is two to four times as fast as BLAKE2b.
"""

_COUNTER = struct.Struct(">24xI")  # the file change counter in the header (fileformat2.html, section 1.3.8)
COUNTED = _COUNTER.size
"""Bytes of a database that the change counter is in."""

_NAME = 8
_LOCKED_BYTE = 1 << 30
_NONE = bytes(DIGEST)


def change_counter(header: "bytes | memoryview") -> int:
    """The counter in the header of a database that each transaction raises where there is no WAL; 0 of an empty one."""
    return int(_COUNTER.unpack_from(header)[0]) if len(header) >= COUNTED else 0


class Fingerprint:
    """The position of an image that has no WAL, found as the image passes by.

    Args:
        page_size: In bytes.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size, self._pages, self._counter = page_size, 0, 0
        self._name = hashlib.blake2b(digest_size=_NAME)
        self._locked = _LOCKED_BYTE // page_size

    @property
    def position(self) -> Position:
        """A name for all that has passed by, and the change counter in its header."""
        return Position(self._name.hexdigest(), self._counter)

    def add(self, chunk: memoryview) -> bytes:
        """Take the next whole pages; gives their hashes, one behind the other.

        The page in which SQLite takes its locks is none of the database's ("The Lock-Byte Page"): its hash is zeros.
        """
        if self._pages == 0:
            self._counter = change_counter(chunk)
        size, sha256 = self._page_size, hashlib.sha256
        digests = [sha256(chunk[at : at + size]).digest()[:DIGEST] for at in range(0, len(chunk), size)]
        locked = self._locked - self._pages
        if 0 <= locked < len(digests):
            digests[locked] = _NONE
        self._pages += len(digests)
        joined = b"".join(digests)
        self._name.update(joined)
        return joined


@dataclass(frozen=True)
class Difference:
    """What leads from one state to another.

    Attributes:
        position: The state to which it leads.
        database_pages: Its length in pages.
        numbers: The pages that differ, in order; none where the states are equal.
        blocks: Where in the hashes of all pages others stand now, and these.
    """

    position: Position
    database_pages: int
    numbers: "array[int]"
    blocks: tuple[tuple[int, bytes], ...]
    _page_size: int
    _content: BinaryIO

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Number and content of each page that differs, in order of number."""
        self._content.seek(0)
        for number in self.numbers:
            yield number, self._content.read(self._page_size)


class PageHashes:
    """The hash of each page of a database in one state: 16 bytes a page.

    Attributes:
        page_size: In bytes.
        position: The state.
        digests: The hashes, one behind the other.
    """

    def __init__(self, page_size: int, position: Position, digests: "bytes | bytearray") -> None:
        self.page_size, self.position, self.digests = page_size, position, bytearray(digests)

    @classmethod
    def of(cls, page_size: int, chunks: Iterable[memoryview]) -> "PageHashes":
        """Those of an image."""
        fingerprint, digests = Fingerprint(page_size), bytearray()
        for chunk in chunks:
            digests += fingerprint.add(chunk)
        return cls(page_size, fingerprint.position, digests)

    def compared(self, chunks: Iterable[memoryview], content: BinaryIO) -> Difference:
        """What leads from this state to that of an image.

        Args:
            chunks: The image, whole pages at a time.
            content: An empty file for the pages that differ, to be kept as long as the difference is used.
        """
        content.seek(0)
        content.truncate()
        fingerprint, size = Fingerprint(self.page_size), self.page_size
        numbers, blocks, offset, first = array("I"), list[tuple[int, bytes]](), 0, b""
        for chunk in chunks:
            first = first or bytes(chunk[:size])
            digests = fingerprint.add(chunk)
            before = bytes(self.digests[offset : offset + len(digests)])
            if digests != before:
                blocks.append((offset, digests))
                for at in range(0, len(digests), DIGEST):
                    if digests[at : at + DIGEST] not in (before[at : at + DIGEST], _NONE):
                        page = at // DIGEST
                        numbers.append(offset // DIGEST + page + 1)
                        content.write(chunk[page * size : (page + 1) * size])
            offset += len(digests)
        if offset != len(self.digests) and not numbers:
            # Cut off by something else than SQLite, which counts each change in the first page.
            numbers.append(1)
            content.write(first)
        pages = offset // DIGEST
        return Difference(fingerprint.position, pages, numbers, tuple(blocks), size, content)

    def take(self, difference: Difference) -> None:
        """Become the state to which a difference leads."""
        for offset, digests in difference.blocks:
            self.digests[offset : offset + len(digests)] = digests
        del self.digests[difference.database_pages * DIGEST :]
        self.position = difference.position


def named(digests: bytes) -> str:
    """The name of the state in which the pages have these hashes: the first part of its position."""
    return hashlib.blake2b(digests, digest_size=_NAME).hexdigest()
