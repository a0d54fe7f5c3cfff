"""A consistent image of a live database, streamed once, in constant memory, without holding the site up.

In WAL mode a read transaction fixes a mark: a frame of the WAL up to which everything is committed. The image at that
mark is, for each page, its newest frame up to the mark, or else what stands in the main file. While the transaction
is open neither can change: a checkpoint copies no frame beyond the mark into the main file, and the WAL is not begun
anew (<https://www.sqlite.org/wal.html>, "Concurrency"). So the main file is read in large chunks and the WAL's pages
are laid over it, however busy the writers are.

With a rollback journal a reader's shared lock keeps writers from committing, so it is held only for a plain copy
(a reflink where the filesystem can) and the copy is streamed.

Trap: closing *any* descriptor of the database or its `-shm` drops every POSIX lock that this process holds on it
(fcntl(2)). The raw descriptors here are therefore closed after the connection is, never before.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import TYPE_CHECKING

import apsw

from portfolio_ops.errors import PortfolioOpsError, RefusedError
from portfolio_ops.host.files import TEMPORARY_PREFIX, open_plain, require_dense, require_space
from portfolio_ops.moment import EPOCH, MICROSECOND
from portfolio_ops.sqlite.connection import immutable, reading, require_usable
from portfolio_ops.sqlite.place import located, side
from portfolio_ops.sqlite.wal import frame_offset, newest_frames
from portfolio_ops.sqlite.wal_index import read_wal_index
from portfolio_ops.sqlite.wal_locks import others_are_connected

if TYPE_CHECKING:
    from array import array

_CHUNK = 1 << 20
_UNWRITTEN_MOST = 1 << 20
_FICLONE = 0x40049409  # ioctl_ficlone(2)


@dataclass(frozen=True)
class Position:
    """Where in the history of its WAL a snapshot stands: the generation's salts (hex) and the last frame."""

    salts: str
    frame: int


@dataclass(frozen=True)
class Snapshot:
    """A database at one moment, held still until the `with` block of `snapshot` ends.

    Attributes:
        page_size: In bytes.
        pages: Its length in pages.
        journal_mode: As SQLite names it: `wal`, `delete`, ...
        position: None where there is no WAL.
        looked: When the look at it began, UTC: what was committed before, is in it.
    """

    page_size: int
    pages: int
    journal_mode: str
    position: Position | None
    looked: datetime
    _main: int
    _wal: int | None = None
    _newest: "array[int] | None" = None

    @property
    def bytes(self) -> int:
        """Length of the image."""
        return self.page_size * self.pages

    def chunks(self) -> Iterator[memoryview]:
        """The image from front to back. Each chunk is valid until the next is asked for."""
        per_chunk = max(1, _CHUNK // self.page_size)
        buffer = bytearray(per_chunk * self.page_size)
        view = memoryview(buffer)
        for first in range(1, self.pages + 1, per_chunk):
            count = min(per_chunk, self.pages - first + 1)
            part = view[: count * self.page_size]
            frames = self._newest[first : first + count] if self._newest is not None else None
            if frames is None or not all(frames):
                _read_or_zero(self._main, part, (first - 1) * self.page_size)
            if frames is not None and any(frames):
                self._overlay(part, frames)
            yield part

    def name_copy(self, path: Path) -> None:
        """Give the copy that a database without a WAL was read into a name, dated at `looked`.

        Raises:
            OSError: The name is taken; or the disk fails or is full.
            ValueError: There is no copy.
        """
        if self.journal_mode == "wal":
            raise ValueError("a database with a WAL is not copied")
        moment = (self.looked - EPOCH) // MICROSECOND * 1000
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # As open(2) says of O_TMPFILE. Given a folder, link follows the link: it is linkat(2) then.
            os.link(f"/proc/self/fd/{self._main}", path.name, dst_dir_fd=folder, follow_symlinks=True)
        except FileExistsError:
            raise
        except OSError:
            with path.open("xb") as file:  # where there are no such files, or none that may be linked
                _copy(self._main, file.fileno(), self.bytes, path.parent)
        finally:
            os.close(folder)
        os.utime(path, ns=(moment, moment))

    def _overlay(self, part: memoryview, frames: "array[int]") -> None:
        """Lay the WAL's pages over those of the main file."""
        if self._wal is None:
            raise AssertionError("pages of a WAL without a WAL")
        for index, frame in enumerate(frames):
            if frame:
                page = part[index * self.page_size : (index + 1) * self.page_size]
                if os.preadv(self._wal, [page], frame_offset(frame, self.page_size)) != self.page_size:
                    raise PortfolioOpsError("the WAL shrank under a held read lock; was it truncated by hand?")


def _read_or_zero(descriptor: int, part: memoryview, offset: int) -> None:
    """Fill `part` from the file; what lies beyond its end is zero, as SQLite's own pager reads it."""
    done = 0
    while done < len(part):
        count = os.preadv(descriptor, [part[done:]], offset + done)
        if count == 0:
            part[done:] = bytes(len(part) - done)
            return
        done += count


@contextlib.contextmanager
def snapshot(database: Path, scratch: Path) -> Iterator[Snapshot]:
    """Hold a database still, for this reader alone, and give its image.

    Args:
        database: The live file. Its writers go on.
        scratch: A folder for the unnamed copy that a database without a WAL needs.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is not a database, or was replaced as it was opened.
        BusyError: It is locked exclusively.
    """
    with contextlib.ExitStack() as descriptors:  # entered before the connection, so closed after it
        path = located(database)
        require_usable(path)
        main = _opened(descriptors, path)
        with reading(path) as connection:
            _require_same_file(main, path)
            require_dense(main, path)  # not before: a journal that is rolled back makes it as long as that says
            journal_mode = str(connection.pragma("journal_mode"))
            if journal_mode == "wal":
                shm = _opened(descriptors, side(path, "-shm"))
                with _closed_for_the_site(connection, shm):
                    yield _wal_snapshot(connection, descriptors, main, shm, path)
            else:
                yield _copied_snapshot(connection, descriptors, main, scratch, journal_mode)


@contextlib.contextmanager
def reading_one_moment(database: Path, scratch: Path) -> Iterator[apsw.Connection]:
    """A connection to a database as it is at one moment, for as long as the block runs, holding no writer up.

    With a WAL that is a read transaction. Without one, a read transaction would keep writers from committing for as
    long as it is open: a copy is read instead, in the folder `scratch`.

    Raises:
        PortfolioOpsError: As `snapshot`.
    """
    with contextlib.ExitStack() as descriptors, reading(database) as connection:
        if connection.pragma("journal_mode") == "wal":
            shm = _opened(descriptors, side(located(database), "-shm"))
            with _closed_for_the_site(connection, shm):
                connection.execute("BEGIN")
                yield connection
            return
    with NamedTemporaryFile(prefix=TEMPORARY_PREFIX, dir=scratch) as copy:
        with snapshot(database, scratch) as image:
            for chunk in image.chunks():
                copy.write(chunk)
        copy.flush()
        connection = immutable(Path(copy.name))
        try:
            yield connection
        finally:
            connection.close()


@contextlib.contextmanager
def _closed_for_the_site(connection: apsw.Connection, shm: int) -> Iterator[None]:
    """Let our close leave no WAL where the site's last close would not have: it was stopped while we had it open.

    What is put in the file's place then would be mixed with what the WAL holds. Of a site that had crashed before, the
    WAL stays as it is.
    """
    is_live = others_are_connected(shm)
    yield
    if is_live and not others_are_connected(shm):
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)


def _opened(descriptors: contextlib.ExitStack, path: Path) -> int:
    descriptor = open_plain(path)
    descriptors.callback(os.close, descriptor)
    return descriptor


def _require_same_file(descriptor: int, database: Path) -> None:
    ours, theirs = os.fstat(descriptor), database.stat()
    if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
        raise RefusedError(
            f"{database} was replaced while it was being opened",
            suggestion="run the job again when the restore is done",
        )


def _wal_snapshot(
    connection: apsw.Connection, descriptors: contextlib.ExitStack, main: int, shm: int, path: Path
) -> Snapshot:
    looked = datetime.now(UTC)
    connection.execute("BEGIN")
    connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    # Commits may have landed since the transaction began. Their mark serves as well as its own: from its beginning on,
    # no frame of this generation is overwritten, and none beyond its own mark reaches the main file.
    index = read_wal_index(shm)
    page_size = int(connection.pragma("page_size"))
    pages = index.pages if index.frames else int(connection.pragma("page_count"))
    position = Position(index.salts.hex(), index.frames)
    _require_possible(main, path, page_size, pages, index.frames)
    if index.frames == index.backfilled:
        # All of it is in the main file. The reader may then hold lock 0, which lets a writer begin the WAL anew: do not
        # look at the WAL. It does forbid the next backfill, so the main file stays as it is.
        return Snapshot(page_size, pages, "wal", position, looked, main)
    wal = _opened(descriptors, side(path, "-wal"))
    require_dense(wal, side(path, "-wal"))
    newest = newest_frames(wal, frames=index.frames, pages=pages, page_size=page_size, salts=index.salts)
    return Snapshot(page_size, pages, "wal", position, looked, main, wal, newest)


def _require_possible(main: int, path: Path, page_size: int, pages: int, frames: int) -> None:
    """Refuse an index that names far more pages than the files hold: memory is taken for each of them.

    Some more there may be: a page that was never written stands in no file.

    Raises:
        PortfolioOpsError: It does.
    """
    if pages > os.fstat(main).st_size // page_size + frames + _UNWRITTEN_MOST:
        raise PortfolioOpsError(
            f"the index of the WAL of {path} says that the database has {pages:,} pages, which its files do not hold",
            suggestion="stop the site, remove the -shm, and check the database",
        )


def _copied_snapshot(
    connection: apsw.Connection, descriptors: contextlib.ExitStack, main: int, scratch: Path, journal_mode: str
) -> Snapshot:
    """Copy a database without a WAL under a shared lock, as briefly as may be, and let go."""
    copy = descriptors.enter_context(unnamed(scratch))
    warm(main)
    looked = datetime.now(UTC)
    connection.execute("BEGIN")
    connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    page_size, pages = int(connection.pragma("page_size")), int(connection.pragma("page_count"))
    _copy(main, copy, page_size * pages, scratch)
    connection.execute("ROLLBACK")
    return Snapshot(page_size, pages, journal_mode, None, looked, copy)


@contextlib.contextmanager
def unnamed(folder: Path) -> Iterator[int]:
    """A new file without a name, that is gone at the end of the block unless it was given one."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:  # open(2): what answers a filesystem or a kernel that knows no such file
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT}:
            raise
        with TemporaryFile(dir=folder) as file:
            yield file.fileno()
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def warm(descriptor: int, alive: Callable[[], object] = lambda: None) -> None:
    """Bring the file into memory first, so that the copy under the lock waits for no disk.

    Args:
        alive: Called after each piece of it.
    """
    buffer = bytearray(_CHUNK)
    offset = 0
    while count := os.preadv(descriptor, [buffer], offset):
        offset += count
        alive()


def _copy(source: int, target: int, length: int, folder: Path) -> None:
    """Copy the first `length` bytes to an empty file in `folder`: shared blocks where that can be, else in the kernel.

    Raises:
        RefusedError: There is no room.
    """
    if clone(source, target):
        os.ftruncate(target, length)
        return
    require_space(folder, length)
    offset = 0
    while offset < length:
        count = os.sendfile(target, source, offset, length - offset)
        if count == 0:
            return
        offset += count


def clone(source: int, target: int) -> bool:
    """Let an empty file share all blocks of another; gives whether their filesystem can.

    Raises:
        OSError: It can, and fails.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL}:
            raise
        return False
    return True
