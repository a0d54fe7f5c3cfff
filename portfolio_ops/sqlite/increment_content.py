"""Reading the pages in an increment back: to check them, or to hand them to SQLite as a WAL."""

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

from portfolio_ops.errors import VerificationError
from portfolio_ops.host.files import open_regular
from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.increment import Increment
from portfolio_ops.sqlite.wal import FRAME_HEADER
from portfolio_ops.sqlite.wal_header import encode_header

if TYPE_CHECKING:
    from portfolio_ops.sqlite.wal_encoder import Encoder

_SUGGESTION = "the cuts before it are good; take a new base, and check the kernel log for I/O errors"
_MODE = 0o640
_CHUNK = 1 << 20
_NUMBER = struct.Struct(">I")


def frames(increment: Increment, cut: Cut) -> Iterator[bytes]:
    """The frames of one flush as they stand in the WAL, some whole ones at a time, in constant memory.

    Raises:
        VerificationError: They are not what was written. None is given unless the hash is right.
    """
    with _opened(increment) as flushes:
        yield from flushes.frames(cut)


def pages_in(batch: bytes, page_size: int) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each page in some whole frames."""
    view = memoryview(batch)
    for at in range(0, len(batch), FRAME_HEADER + page_size):
        (number,) = _NUMBER.unpack_from(batch, at)
        yield number, view[at + FRAME_HEADER : at + FRAME_HEADER + page_size]


def verify(increment: Increment) -> Increment:
    """Read everything from the disk, and hold it against its hashes and against the checksums that SQLite looks at.

    Returns:
        The increment; where a flush is bad, with the cuts before it, and in `damaged` what is wrong.

    Raises:
        PortfolioOpsError: It cannot be opened.
    """
    from portfolio_ops.sqlite.wal_encoder import Encoder  # noqa: PLC0415  (numpy: a restore that extracts needs none)

    encoder = Encoder(increment.head.page_size, increment.salts)
    with _opened(increment) as flushes:
        flushes.forget()
        for index, cut in enumerate(increment.cuts):
            try:
                _require_valid(increment, cut, flushes, encoder)
            except VerificationError as error:
                return replace(increment, cuts=increment.cuts[:index], torn=0, damaged=error.message)
    return increment


def extract(increment: Increment, cut: Cut, target: Path) -> None:
    """Write the WAL that brings the base of an increment to a cut, in constant memory.

    It is there to be replayed and deleted, so nothing waits until it has reached the disk.

    Args:
        increment: A file; what is wrong with it behind the cut does no harm.
        cut: One of its cuts.
        target: A new file, beside a copy of the base: its name with `-wal`.

    Raises:
        VerificationError: What the file holds up to the cut is not what was written. There is no target then.
        FileExistsError: There is a target already.
        OSError: The disk is full or fails. There is no target then.
        ValueError: The cut is of another file.
    """
    needed = increment.cuts[: increment.cuts.index(cut) + 1]
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        with os.fdopen(descriptor, "wb", _CHUNK) as file, _opened(increment) as flushes:
            file.write(encode_header(increment.head.page_size, increment.salts, big_endian=False))
            for each in needed:
                for batch in flushes.frames(each):
                    file.write(batch)
    except BaseException:
        target.unlink()
        raise


def _require_valid(increment: Increment, cut: Cut, flushes: "_Flushes", encoder: "Encoder") -> None:
    """Check a flush by making it again: page by page it must come out as it is.

    Raises:
        VerificationError: It does not.
    """
    page_size = increment.head.page_size
    left = cut.frames
    for batch in flushes.frames(cut):
        left -= len(batch) // (FRAME_HEADER + page_size)
        if encoder.frames(pages_in(batch, page_size), 0 if left else cut.pages) != batch:
            raise VerificationError(f"{_name(cut)} of {increment.path} is not a continuation of the WAL before it")
    if encoder.cursor.checksum != cut.checksum:
        raise VerificationError(f"{_name(cut)} of {increment.path} ends in another checksum than its record says")


@contextlib.contextmanager
def _opened(increment: Increment) -> Iterator["_Flushes"]:
    descriptor = open_regular(increment.path)
    try:
        yield _Flushes(increment, descriptor)
    finally:
        os.close(descriptor)


class _Flushes:
    """What an open increment holds. A day has 86,400 flushes, mostly of a few pages: such a one is read once."""

    def __init__(self, increment: Increment, descriptor: int) -> None:
        self._path, self._size = increment.path, FRAME_HEADER + increment.head.page_size
        self._descriptor = descriptor
        self._small = zstandard.ZstdDecompressor()  # to make one takes half as long as a flush of three pages

    def forget(self) -> None:
        """Let the page cache go: what it holds proves nothing about the disk."""
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def frames(self, cut: Cut) -> Iterator[bytes]:
        """As `frames`."""
        left = cut.frames * self._size
        part = _Part(self._descriptor, cut.end - cut.length, cut.end)
        try:
            if max(cut.length, left) <= _CHUNK:
                batches = iter([self._decoded(part.read(_CHUNK), left, cut)])
            else:
                _require_hash(part, cut, self._path)
                reader = zstandard.ZstdDecompressor().stream_reader(cast("BinaryIO", part.again()))
                batches = iter(lambda: reader.read(max(1, _CHUNK // self._size) * self._size), b"")
            for batch in batches:
                left -= len(batch)
                if left < 0 or not batch or len(batch) % self._size:
                    break
                yield batch
        except zstandard.ZstdError as error:
            raise VerificationError(f"{_name(cut)} of {self._path}: {error}", suggestion=_SUGGESTION) from error
        if left:
            raise VerificationError(f"{_name(cut)} of {self._path} has not {cut.frames} frames", suggestion=_SUGGESTION)

    def _decoded(self, data: bytes, most: int, cut: Cut) -> bytes:
        """A small flush at once; nothing if it says that it is larger than it may be: room would be made for that."""
        if hashlib.sha256(data).digest() != cut.sha256:
            raise _damaged(cut, self._path)
        if zstandard.frame_content_size(data) > most:
            return b""
        return self._small.decompress(data, max_output_size=most)


def _require_hash(part: "_Part", cut: Cut, path: Path) -> None:
    digest = hashlib.sha256()
    while chunk := part.read(_CHUNK):
        digest.update(chunk)
    if digest.digest() != cut.sha256:
        raise _damaged(cut, path)


def _damaged(cut: Cut, path: Path) -> VerificationError:
    return VerificationError(f"{_name(cut)} of {path} is damaged", suggestion=_SUGGESTION)


def _name(cut: Cut) -> str:
    return f"the flush of {cut.seen.isoformat()} (bytes {cut.end - cut.length} to {cut.end})"


class _Part:
    """Some bytes of a file, as something to read from."""

    def __init__(self, descriptor: int, start: int, end: int) -> None:
        self._descriptor, self._start, self._at, self._end = descriptor, start, start, end

    def read(self, size: int) -> bytes:
        data = os.pread(self._descriptor, min(size, self._end - self._at), self._at)
        self._at += len(data)
        return data

    def again(self) -> "_Part":
        """The same, from its beginning."""
        return _Part(self._descriptor, self._start, self._end)
