"""Files: durable writes, safe opens, room on the disk."""

import contextlib
import ctypes
import errno
import functools
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.errors import NoRoomError, NotFoundError, NotPermittedError, RefusedError, cure_of_denial

TEMPORARY_PREFIX = ".tmp-"
"""Names of unfinished files. Whoever holds a folder's lock may delete every one of them."""

_SYNC_FILE_RANGE_WRITE = 2
_RESERVE_SHARE = 0.05
_RESERVE_MOST = 1 << 30
_SPARSE_LEAST, _SPARSE_MOST = 1 << 30, 100  # no log compresses like that, where a filesystem counts compressed blocks
_BLOCK = 512  # of which stat(2) counts, whatever the filesystem's are


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable (fsync(2): a file's own fsync does not cover its directory entry)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def start_writeback(descriptor: int) -> None:
    """Let the kernel begin to write a file's dirty pages now, so that the fsync at its end finds little left to do.

    Only a hint (sync_file_range(2), SYNC_FILE_RANGE_WRITE): nothing is durable by it, and a failure means nothing.
    """
    _libc().sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(_SYNC_FILE_RANGE_WRITE))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """What is written in the block is written there: the error of a write(2) names no file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def nearest(path: Path) -> Path:
    """A folder; where it is not there yet, the nearest above it that is: what is made there is made on that disk."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def name_below(path: Path, folder: Path) -> str:
    """A path as it reads from a folder, whatever lies there: no link is followed."""
    return os.path.relpath(os.path.normpath(path), os.path.normpath(folder))


def overwrite(path: Path, data: bytes) -> None:
    """Write a small file of one length where it stands, by one write that nobody waits for: what a crash may take.

    A link is not followed, and nothing that is no file is waited for.

    Raises:
        OSError: The disk is full or fails, or something else lies there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o640)
    try:
        os.pwrite(descriptor, data, 0)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes, mode: int = 0o640) -> None:
    """Replace a small file whole: a reader, a crash or a power cut sees the old content or the new.

    Raises:
        OSError: The directory cannot be written; the old file is untouched.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
    try:
        with naming(path), os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    fsync_directory(path.parent)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file and nothing else: no symlink at its end, no FIFO that would hang, no device.

    Returns:
        A descriptor that the caller closes.

    Raises:
        NotFoundError: There is no such file.
        NotPermittedError: This user may not open it.
        RefusedError: It is a symlink, a directory, a FIFO, a socket or a device.
        OSError: It is to be written, and its filesystem is read-only.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path} does not exist", suggestion="check the path; a file of the site is named in its configuration"
        ) from error
    except PermissionError as error:
        raise NotPermittedError(
            f"{path} may not be opened by uid {os.geteuid()}", suggestion=cure_of_denial(path)
        ) from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise
        raise RefusedError(
            f"{path} is not a regular file ({error.strerror})",
            suggestion="name the file itself; symlinks, FIFOs and devices are not followed",
        ) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise RefusedError(_no_file(path, status), suggestion="name the file itself")
    return descriptor


def _no_file(path: Path, status: os.stat_result) -> str:
    return f"{path} is {'a folder, ' if stat.S_ISDIR(status.st_mode) else ''}not a regular file"


def real_inside(path: Path, folder: Path) -> Path:
    """Where a path really is. A link may lead to another place in `folder`, and not out of it.

    Raises:
        RefusedError: It does.
    """
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise RefusedError(
            f"{path} leads to {real}, outside {folder}",
            suggestion="name the file itself in the configuration; links out of its folder are not followed",
        )
    return real


def require_plain(path: Path) -> None:
    """Refuse what is there and no regular file of its folder's: who opens it may wait for ever, or change another.

    Raises:
        RefusedError: It is a link, a folder, a FIFO, a socket or a device; or it has a name elsewhere.
    """
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(_no_file(path, status), suggestion="who put it there? Move it away")
        _require_no_name_elsewhere(path, status)


def open_plain(path: Path) -> int:
    """As `open_regular`, and only a file without a name elsewhere: judged is what was opened, whatever is there now."""
    descriptor = open_regular(path)
    try:
        _require_no_name_elsewhere(path, os.fstat(descriptor))
    except RefusedError:
        os.close(descriptor)
        raise
    return descriptor


def _require_no_name_elsewhere(path: Path, status: os.stat_result) -> None:
    """Other names below its own folder do no harm: a restore that died has left some."""
    if status.st_nlink <= 1:
        return
    files = (Path(folder, name) for folder, _, names in os.walk(path.parent) for name in names)
    below = sum(_is_same(file, status) for file in files)
    if below < status.st_nlink:
        raise RefusedError(
            f"{path} has another name, outside {path.parent}: what is written into one is written into both",
            suggestion=f"find the other name and remove it: find / -xdev -samefile {path}",
        )


def _is_same(path: Path, status: os.stat_result) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.lstat(), status)
    return False


def require_dense(descriptor: int, path: Path, *, start: int = 0) -> None:
    """Refuse a file that is a terabyte of nothing: to read that takes hours, and to copy it fills a disk.

    Args:
        start: What lies before it will not be read, and may be nothing.

    Raises:
        RefusedError: More than 1 GiB would be read, and not a hundredth of that is on the disk.
    """
    status = os.fstat(descriptor)
    if status.st_size - start > max(_SPARSE_LEAST, _SPARSE_MOST * status.st_blocks * _BLOCK):
        raise RefusedError(
            f"{path} is {status.st_size:,} bytes long, and only {status.st_blocks * _BLOCK:,} of them are on the disk",
            suggestion="the rest is nothing: find out what made it so long, and cut it off",
        )


def copy_durably(source: Path, target: Path, mode: int) -> None:
    """Copy a file's content to a new file that only we can see until it has `mode`; durable on return.

    Raises:
        FileExistsError: The name is taken.
        OSError: The disk is full or fails.
    """
    with naming(target), os.fdopen(open_regular(source), "rb") as reader, target.open("xb") as writer:
        os.fchmod(writer.fileno(), 0o600)
        shutil.copyfileobj(reader, writer)
        os.fchmod(writer.fileno(), mode)
        writer.flush()
        os.fsync(writer.fileno())


def remove_temporaries(folder: Path, *, older_than: float = 0) -> list[str]:
    """Delete what runs that died left unfinished in `folder`.

    Args:
        older_than: Their age in seconds. Who holds the folder's lock may take them all; where several write that know
            nothing of each other, only what nobody can be writing any more.

    Returns:
        The names that were deleted.

    Raises:
        OSError: One cannot be deleted.
    """
    removed = []
    for path in temporaries(folder, older_than=older_than):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            removed.append(path.name)
    return removed


def temporaries(folder: Path, *, older_than: float = 0) -> list[Path]:
    """What lies unfinished in `folder`, and is at least that many seconds old: of a run that died, or that goes on."""
    found = []
    for entry in os.scandir(folder):
        if entry.name.startswith(TEMPORARY_PREFIX) and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime >= older_than:
                    found.append(Path(entry.path))
    return found


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write on the filesystem of `path` (statvfs(3), f_bavail)."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def reserve_bytes(path: Path) -> int:
    """Bytes of the filesystem of `path` that are left to the site: 5 %, at most 1 GiB."""
    status = os.statvfs(path)
    return min(int(status.f_blocks * status.f_frsize * _RESERVE_SHARE), _RESERVE_MOST)


def require_space(path: Path, needed: int) -> None:
    """Check before any work that `needed` bytes fit without touching the reserve.

    Raises:
        NoRoomError: They do not fit.
    """
    free, reserve = free_bytes(path), reserve_bytes(path)
    if free - reserve < needed:
        raise NoRoomError(
            f"{path} has {free:,} bytes free; this run may need {needed:,} and leaves {reserve:,} to the site",
            suggestion=f"free some space or enlarge the volume; `{tool()} prune --explain` shows what is kept",
        )
