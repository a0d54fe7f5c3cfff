"""Writing an increment: flush by flush, each durable before it counts, and none that a crash could take back."""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import TYPE_CHECKING, Self

import zstandard

from portfolio_ops.errors import RefusedError, VerificationError
from portfolio_ops.host.files import TEMPORARY_PREFIX, fsync_directory, open_regular
from portfolio_ops.sqlite.cuts import Cut, Cuts, chained, encode_fields
from portfolio_ops.sqlite.increment import Head, Increment, Link, encode_head, scan
from portfolio_ops.sqlite.increment_content import verify
from portfolio_ops.sqlite.lineage import require_same_file
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.wal import FRAME_HEADER
from portfolio_ops.sqlite.wal_encoder import Encoder
from portfolio_ops.sqlite.wal_header import Cursor

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_LEVEL = 3
_MODE = 0o640
_BATCH = 256 << 10  # bytes of pages that are made into frames at once
_CHUNK = 1 << 20  # compressed: what is held in memory, and written with one call
_LOCKED_BYTE = 1 << 30


class IncrementWriter:
    """An increment that grows. Made by `create` or `resume`; one at a time for a file.

    Attributes:
        path: The file.
        head: What it says of itself.
        end: How many bytes of it there are, but for what an append that did not end may have left behind them.
        link: What the next increment would follow on; None where there is no cut and nothing before it.
    """

    def __init__(self, descriptor: int, increment: Increment) -> None:
        self._file = descriptor
        self._salts = increment.salts
        self._chain = increment.cuts[-1].chain if increment.cuts else increment.chain
        self._cursor = Cursor(0, increment.cuts[-1].checksum) if increment.cuts else None
        self._usable = True
        self.path, self.head, self.end, self.link = increment.path, increment.head, increment.end, increment.link

    @classmethod
    def create(cls, path: Path, head: Head) -> Self:
        """Begin a file, durably. It gets its name when its head is whole.

        Raises:
            RefusedError: There is a file of this name.
            ValueError: No database has pages of this size.
            OSError: The disk is full or fails.
        """
        data, chain = encode_head(head)
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        try:
            Path(name).write_bytes(data)
            os.fchmod(descriptor, _MODE)
            os.fsync(descriptor)
            os.link(name, path)
            fsync_directory(path.parent)
        except FileExistsError as error:
            os.close(descriptor)
            raise RefusedError(f"{path} exists already", suggestion="go on with it, or choose another name") from error
        except BaseException:
            os.close(descriptor)
            raise
        finally:
            Path(name).unlink(missing_ok=True)
        return cls(descriptor, Increment(path, head, chain, len(data), Cuts(), 0, ""))

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Go on with a file. All of it is checked first; then what an append left that did not end is cut off.

        Raises:
            VerificationError: It is damaged, and was left as it is. The cuts that `verify` gives can be followed on by
                another file.
            PortfolioOpsError: As `scan`.
            OSError: The disk fails.
        """
        increment = verify(scan(path))
        if increment.damaged:
            raise VerificationError(f"{path} cannot be gone on with: {increment.damaged}", suggestion="begin another")
        descriptor = open_regular(path, os.O_RDWR)
        try:
            os.ftruncate(descriptor, increment.end)
            os.fsync(descriptor)  # its writer may have died before it did
            fsync_directory(path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor, increment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. Nothing is left to be written."""
        os.close(self._file)
        self._usable = False

    def require_named(self) -> None:
        """Check that the file has its name still: what is written without one, nobody finds.

        Raises:
            TimelineEndedError: It was replaced or removed.
        """
        require_same_file(self._file, self.path)

    def sync(self) -> None:
        """Make all that was appended durable.

        Raises:
            OSError: The disk fails; the writer is of no more use.
        """
        usable, self._usable = self._usable, False
        # Once it has failed, the kernel may forget what it could not write, and the next call would succeed.
        os.fdatasync(self._file)
        self._usable = usable

    def append(
        self,
        pages: Iterable[tuple[int, "ReadableBuffer"]],
        database_pages: int,
        since: Position,
        position: Position,
        seen: datetime,
        *,
        durable: bool = True,
    ) -> Cut:
        """Add a flush.

        Args:
            pages: Number and content of each page that changed since `since`, as it is at `position`. Twice the same
                would only cost room: SQLite takes the later. A great number of them is taken a few at a time.
            database_pages: Size of the database in pages.
            since: The state before: where the last flush ended, or what the file follows on.
            position: The state that is added.
            seen: When that was seen, with its time zone.
            durable: Whether it has reached the disk on return. If not, `sync` sees to that, or the next one that is.

        Raises:
            OSError: The disk is full or fails; the file is as before. Where that cannot be known, as after a failed
                fdatasync(2), the writer is of no more use.
            ValueError: There is no page, or one that is none of a WAL; or states would be missing in between; or the
                writer is of no more use. The file is as before.
        """
        if not self._usable:
            raise ValueError(f"the writer of {self.path} was closed or has failed")
        if self.link is not None and since != self.link.position:
            raise ValueError(f"{self.path} has come to {self.link.position}, and {since} does not go on from there")
        if database_pages < 1:
            raise ValueError("a database has a page at least")
        encoder = Encoder(self.head.page_size, self._salts, cursor=self._cursor)
        before = encoder.cursor.frame
        with SpooledTemporaryFile(max_size=_CHUNK, dir=str(self.path.parent)) as payload:
            sha256 = self._compress(pages, database_pages, encoder, payload)
            length = payload.tell()
            frames, checksum = encoder.cursor.frame - before, encoder.cursor.checksum
            cut = Cut(seen, since, position, database_pages, frames, length, sha256, 0, checksum, b"")
            fields = encode_fields(cut)
            chain = chained(self._chain, fields)
            payload.seek(0)
            end = self._write(fields + chain, payload)
            if durable:
                self.sync()
        self._chain, self._cursor, self.end, self.link = chain, encoder.cursor, end, Link(chain, position)
        return replace(cut, end=end, chain=chain)

    def _compress(
        self,
        pages: Iterable[tuple[int, "ReadableBuffer"]],
        database_pages: int,
        encoder: Encoder,
        target: "SpooledTemporaryFile[bytes]",
    ) -> bytes:
        """Write one zstd frame of WAL frames.

        Returns:
            Its SHA-256.
        """
        page_size, source, digest = self.head.page_size, iter(pages), hashlib.sha256()
        per_batch = max(1, _BATCH // page_size)
        batch, following = list(islice(source, per_batch)), list(islice(source, per_batch))
        # Told the size, zstd makes its tables no larger than a flush of some pages needs.
        size = -1 if following else len(batch) * (FRAME_HEADER + page_size)
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj(size=size)
        while True:
            _require_unlocked(batch, page_size)
            data = compressor.compress(encoder.frames(batch, 0 if following else database_pages))
            if not following:
                data += compressor.flush()
            digest.update(data)
            target.write(data)
            if not following:
                return digest.digest()
            batch, following = following, list(islice(source, per_batch))

    def _write(self, record: bytes, payload: "SpooledTemporaryFile[bytes]") -> int:
        """Write a record and what it describes.

        Returns:
            Where it ends.
        """
        self._usable, at = False, self.end
        chunk = record + payload.read(_CHUNK)
        try:
            while chunk:
                done = os.pwrite(self._file, chunk, at)
                at += done
                chunk = chunk[done:] or payload.read(_CHUNK)
        except OSError:
            os.ftruncate(self._file, self.end)
            self._usable = True
            raise
        self._usable = True
        return at


def _require_unlocked(pages: list[tuple[int, "ReadableBuffer"]], page_size: int) -> None:
    """Refuse the page in which SQLite takes its locks: it never writes it (file-format page, "The Lock-Byte Page").

    Raises:
        ValueError: It is among them.
    """
    locked = _LOCKED_BYTE // page_size + 1
    if any(number == locked for number, _ in pages):
        raise ValueError(f"page {locked} holds SQLite's locks and no content; no WAL has it")
