"""A live log: opened safely, read in constant memory, and shortened from its front while others append to it."""

import ctypes
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from portfolio_ops.errors import PortfolioOpsError, RefusedError
from portfolio_ops.host.files import name_below, open_regular
from portfolio_ops.logs.state import PRINTED_MOST, Head

# linux/falloc.h
_FALLOC_KEEP_SIZE = 0x01
_FALLOC_PUNCH_HOLE = 0x02
_FALLOC_COLLAPSE_RANGE = 0x08

_CHUNK = 1 << 20
_PUNCH_BYTES = 2 << 20
"""One step of freeing. Whoever appends waits for it: freeing 1 GB in one call held a writer for 0.7 s (ext4)."""

_libc = ctypes.CDLL(None, use_errno=True)


class LiveLog:
    """An open log. Its inode, owner and mode are never changed.

    Args:
        path: The log as configured.
        root: The site's root, which the log may not leave.

    Raises:
        NotFoundError: There is no such file.
        NotPermittedError: This user may not write it.
        RefusedError: It is not a regular file, lies outside the root by way of a symlink, or has a second name.
    """

    def __init__(self, path: Path, root: Path, flags: int = os.O_RDWR) -> None:
        self.path = path
        self.name = name_below(path, root)
        self.descriptor = open_regular(path, flags)
        try:
            self._check_place(root)
        except BaseException:
            os.close(self.descriptor)
            raise

    def _check_place(self, root: Path) -> None:
        """Judge the file that was opened, not the path: a path can change between the check and the open."""
        real = Path(f"/proc/self/fd/{self.descriptor}").readlink()
        if not real.is_relative_to(os.path.realpath(root)):
            raise RefusedError(
                f"{self.path} leads to {real}, outside the site's root",
                suggestion="name a log below the root; symlinks out of it are not followed",
            )
        links = os.fstat(self.descriptor).st_nlink
        if links > 1:
            raise RefusedError(
                f"{self.path} has {links} hard links: the other names would lose what rotation removes",
                suggestion=f"find them with: find {root} -samefile {self.path}",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return os.fstat(self.descriptor).st_size

    def read(self, low: int, high: int) -> Iterator[memoryview]:
        """Stream the bytes [low, high) through one buffer: each piece is void once the next is asked for.

        Raises:
            PortfolioOpsError: The file was truncated meanwhile.
        """
        buffer = memoryview(bytearray(min(_CHUNK, max(high - low, 0))))
        while low < high:
            length = os.preadv(self.descriptor, [buffer[: min(len(buffer), high - low)]], low)
            if length == 0:
                raise self.interfered()
            yield buffer[:length]
            low += length

    def interfered(self) -> PortfolioOpsError:
        """The error for a file that another program truncated or overwrote under our hands."""
        return PortfolioOpsError(
            f"{self.path} was truncated or overwritten by another program while it was rotated",
            suggestion="let only one program rotate it: remove its entry from logrotate, or from [logs] files",
        )

    def last_line_end(self, low: int, high: int) -> int:
        """Where the last line that ends within [low, high) ends; `low` if none does. Searched from the end."""
        while high > low:
            start = max(low, high - _CHUNK)
            found = os.pread(self.descriptor, high - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            high = start
        return low

    def head(self, length: int, *, spared: int = 0) -> Head:
        """The file's first `length` bytes as a head; the first `spared` of them stay out of its fingerprint."""
        printed = min(PRINTED_MOST, length - spared)
        return Head(length, printed, self._fingerprint(length - printed, printed))

    def holds(self, head: Head) -> bool:
        """Whether the file begins with that head, by length and fingerprint."""
        if self.size < head.length:
            return False
        return head.printed == 0 or self._fingerprint(head.length - head.printed, head.printed) == head.fingerprint

    def _fingerprint(self, start: int, length: int) -> str:
        return hashlib.sha256(os.pread(self.descriptor, length, start)).hexdigest()

    def begins_with(self, marker: str) -> bool:
        """Whether the file's first bytes are the marker."""
        return os.pread(self.descriptor, len(marker), 0) == marker.encode()

    def mark(self, marker: str) -> None:
        """Overwrite the file's first bytes, which are archived and about to go; durable on return."""
        os.pwrite(self.descriptor, marker.encode(), 0)
        os.fsync(self.descriptor)

    def can_collapse(self) -> bool:
        """Whether the filesystem can remove a range, asked with a length it must refuse before it changes anything.

        fallocate(2): EINVAL where the range is not of whole blocks, EOPNOTSUPP where collapsing is not known at all.
        """
        try:
            self._fallocate(_FALLOC_COLLAPSE_RANGE, 0, 1)
        except OSError as error:
            return error.errno == errno.EINVAL
        return False

    @property
    def block(self) -> int:
        """Bytes of which ranges to collapse must be multiples."""
        return os.fstatvfs(self.descriptor).f_bsize

    def free_blocks(self, low: int, high: int) -> None:
        """Give back the blocks of [low, high), in steps that keep nobody waiting; the bytes are NUL from then on."""
        for start in range(low, high, _PUNCH_BYTES):
            self._fallocate(_FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, start, min(_PUNCH_BYTES, high - start))

    def collapse(self, offset: int, length: int) -> None:
        """Remove a range of whole blocks; what follows moves forward, appending writers notice nothing.

        Raises:
            OSError: EOPNOTSUPP or EINVAL where the filesystem cannot; the file is unchanged.
        """
        self._fallocate(_FALLOC_COLLAPSE_RANGE, offset, length)
        os.fsync(self.descriptor)

    def _fallocate(self, mode: int, offset: int, length: int) -> None:
        failed = _libc.fallocate64(self.descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
        if failed:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self.path))

    def holes(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Where holes within [low, high) begin and end, in whole blocks (lseek(2), SEEK_HOLE).

        One that goes on to the end of the file is left out: nothing was written behind it.
        """
        while low < high:
            try:
                start = os.lseek(self.descriptor, low, os.SEEK_HOLE)
                if start >= high:
                    return
                low = os.lseek(self.descriptor, start, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but hole up to the end, or the file was truncated meanwhile
                    return
                raise
            yield start, low

    def hole(self, length: int) -> int | None:
        """Where a hole of exactly that length begins, if there is one before the end."""
        return next((start for start, end in self.holes(0, self.size) if end - start == length), None)
