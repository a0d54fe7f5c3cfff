"""The hashes of a database's pages as they were last archived, for an archive that begins again.

Not synced, and changed in place: what it holds proves itself, for a position is a hash of these hashes. Where a crash
left something else, the archive looks at the whole database, and goes on if that is as it was archived.
"""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.files import open_regular
from portfolio_ops.sqlite.difference import Difference, PageHashes, named
from portfolio_ops.sqlite.snapshot import Position

_NAME = "archive-pages"
_HEAD = struct.Struct("<8sQI12x")  # signature, inode of the database, page size
_SIGNATURE = b"pf-pages"


@dataclass(frozen=True)
class Memory:
    """The file in which they are remembered.

    Attributes:
        state: The site's state folder.
    """

    state: Path

    def read(self, inode: int, page_size: int, wanted: Position) -> PageHashes | None:
        """The hashes of a state; None where this is not what is remembered.

        Args:
            inode: Of the database file. Its device is not asked: that number may change when the host boots.
        """
        try:
            descriptor = open_regular(self.state / _NAME)
        except PortfolioOpsError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            head, digests = file.read(_HEAD.size), file.read()
        known = head == _HEAD.pack(_SIGNATURE, inode, page_size) and named(digests) == wanted.salts
        return PageHashes(page_size, wanted, digests) if known else None

    def write(self, inode: int, hashes: PageHashes) -> None:
        """Remember all of them.

        Raises:
            OSError: The disk is full or fails.
        """
        self._put(hashes, [(0, bytes(hashes.digests))], _HEAD.pack(_SIGNATURE, inode, hashes.page_size))

    def update(self, hashes: PageHashes, taken: Difference) -> None:
        """Remember what a difference changed in hashes that were remembered before it.

        Raises:
            OSError: The disk is full or fails.
        """
        self._put(hashes, taken.blocks, b"")

    def _put(self, hashes: PageHashes, blocks: Sequence[tuple[int, bytes]], head: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.state / _NAME, flags, 0o640)
        with os.fdopen(descriptor, "wb") as file:
            file.write(head)
            for offset, digests in blocks:
                file.seek(_HEAD.size + offset)
                file.write(digests)
            file.truncate(_HEAD.size + len(hashes.digests))
