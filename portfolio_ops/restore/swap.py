"""One database in the place of another, so that whoever looks at any instant finds one of them whole.

1. *Settle*: what the live database's WAL or hot journal still holds is brought into the main file, by SQLite itself, as
   its only user. From then on that one file is all of it.
2. *Hold*: an exclusive lock on the bytes that SQLite locks (<https://www.sqlite.org/fileformat2.html>, "The lock-byte
   page"; pager.c: PENDING, RESERVED, SHARED), of both files. Nobody can even begin to read. They are open file
   description locks (fcntl(2), F_OFD_SETLK): closing another descriptor of the file does not drop them.
3. *Keep* the live file by a second name, remove what is left of the side files (a stray WAL would be replayed into the
   new file and undo the restore), and rename(2) the new file over it: one step for the filesystem.
4. *Look again*, still holding: a process that opened the old file in between would go on writing to a file that has no
   name any more, and its WAL would go to the new one. It cannot have begun; it is given time to give up. If it does
   not, everything is put back before anything is let go.

The way back, after a restore that failed, is the same exchange. A database that is too damaged for SQLite to settle is
kept with its side files, as they are.
"""

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import apsw

from portfolio_ops.calling import tool
from portfolio_ops.errors import BusyError
from portfolio_ops.host.files import fsync_directory, open_regular
from portfolio_ops.host.holders import Holder, holders, identity_of
from portfolio_ops.sqlite.connection import explained, is_bare
from portfolio_ops.sqlite.place import SIDES, require_plain_files, side

_BUSY_MILLISECONDS = 2000
_LOCK_BYTES = (0x40000000, 512)
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2), 64 bit: type, whence, start, length, pid
_DAMAGED = (apsw.CorruptError, apsw.NotADBError, apsw.IOError)
_NEVER_COPIED = ("security.", "trusted.")
_STRAY = ".stray"
_LETS_GO_WITHIN = 15.0  # longer than the busy timeouts that are common
_POLL = 0.1


def settle(database: Path) -> bool:
    """Bring all that is committed into the main file, as the database's only user.

    Returns:
        Whether the file is whole by itself now; False if it is too damaged for that. It is then as it was.

    Raises:
        BusyError: It has another user.
        PortfolioOpsError: The disk is full, or it may not be written.
        RefusedError: Something else than files lies there.
    """
    require_plain_files(database)
    if is_bare(database):
        return False
    connection = None
    try:
        connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
        connection.set_busy_timeout(_BUSY_MILLISECONDS)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.pragma("locking_mode", "exclusive")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0]
        if busy:
            raise _in_use(database)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
    except (apsw.BusyError, apsw.LockedError) as error:
        raise _in_use(database) from error
    except _DAMAGED:
        return False
    except apsw.Error as error:
        raise explained(error, database) from error
    else:
        return True
    finally:
        if connection is not None:
            connection.close()


def exchange(database: Path, incoming: Path, kept: Path) -> None:
    """Put `incoming` in the place of `database`, with the side files that it has.

    Args:
        database: The live name, no symlink. Its user was stopped. It may be missing.
        incoming: A database in a folder of the same filesystem; its name goes.
        kept: A new folder, in which the live files are kept.

    Raises:
        BusyError: One of the two has a user; nothing was changed.
        OSError: The disk fails. Which of the two is in place, its inode tells.
    """
    kept.mkdir(mode=0o700)
    if not database.exists():
        # A WAL without its database is of no use, and would be replayed into the new one.
        for ending in SIDES:
            with contextlib.suppress(FileNotFoundError):
                side(database, ending).replace(side(kept / database.name, f"{ending}{_STRAY}"))
        fsync_directory(kept)
        _move(incoming, database)
        return
    settled = settle(database)
    with _held_still(database) as old, _held_still(incoming) as new:
        if settled and _length(side(database, "-wal")):
            raise _in_use(database)
        _keep(database, kept / database.name, sides=not settled)
        for ending in SIDES:
            side(database, ending).unlink(missing_ok=True)
        fsync_directory(database.parent)
        _move(incoming, database)
        if found := _who_stays(old):
            _move_back(database, incoming, kept)
            others = _who_stays(new)
            raise BusyError(
                f"{database} was opened by {found[0]} just as it was exchanged"
                + (f", and {others[0]} has the other one open: end it before it writes" if others else ""),
                suggestion="something starts the backend again (a restart policy?): let [backend] stop that too",
            )


def _who_stays(file: tuple[int, int]) -> list[Holder]:
    """Who has a file open for longer than who finds it locked has patience."""
    deadline = time.monotonic() + _LETS_GO_WITHIN
    while (found := holders([file])) and time.monotonic() < deadline:
        time.sleep(_POLL)
    return found


def put_sides_back(database: Path, kept: Path) -> None:
    """After a death or a failure between keeping and exchanging: give the side files their names again.

    Where one stands already, the site has used the database since, and it is the site's.
    """
    for ending in SIDES:
        for name in (side(kept / database.name, ending), side(kept / database.name, f"{ending}{_STRAY}")):
            if name.exists() and not side(database, ending).exists():
                os.link(name, side(database, ending))
    fsync_directory(database.parent)


def out_of_place(database: Path, kept: Path) -> list[Path]:
    """What was kept, and is not the live database or a side file of it by another name."""
    live = {identity_of(side(database, ending)) for ending in ("", *SIDES)}
    return [path for path in sorted(kept.glob("*")) if identity_of(path) not in live]


def finish_move(incoming: Path, database: Path) -> None:
    """After a death between the main file and its side files: move these too."""
    for ending in SIDES:
        # Where one stands already, the site has begun to use the main file, and it is the site's.
        if side(incoming, ending).exists() and not side(database, ending).exists():
            side(incoming, ending).replace(side(database, ending))
    fsync_directory(database.parent)


def dress(file: Path, like: Path) -> list[str]:
    """Give a file the group, mode and extended attributes of another, and no others (the owner is who we are).

    Returns:
        The attributes that could not be given: those of security modules, which the kernel gives by its own rules.
    """
    status, refused = like.stat(), []
    if file.stat().st_gid != status.st_gid:
        os.chown(file, -1, status.st_gid)
    file.chmod(status.st_mode & 0o7777)
    for name in set(os.listxattr(file)) - set(os.listxattr(like)):
        # What a folder's default ACL gave it.
        with contextlib.suppress(OSError):
            os.removexattr(file, name)
    for name in os.listxattr(like):
        try:
            os.setxattr(file, name, os.getxattr(like, name))
        except OSError:
            if not name.startswith(_NEVER_COPIED):
                raise
            refused.append(name)
    return refused


def _keep(database: Path, name: Path, *, sides: bool) -> None:
    """A second name for the live files."""
    os.link(database, name)
    for ending in SIDES if sides else ():
        with contextlib.suppress(FileNotFoundError):
            os.link(side(database, ending), side(name, ending))
    fsync_directory(name.parent)
    fsync_directory(name.parent.parent)


def _move(incoming: Path, database: Path) -> None:
    incoming.replace(database)
    finish_move(incoming, database)


def _move_back(database: Path, incoming: Path, kept: Path) -> None:
    """The live name is never without a database: the new one gets its second name first."""
    os.link(database, incoming)
    for ending in SIDES:
        with contextlib.suppress(FileNotFoundError):
            side(database, ending).replace(side(incoming, ending))
    _move(kept / database.name, database)


@contextlib.contextmanager
def _held_still(database: Path) -> Iterator[tuple[int, int]]:
    """Hold every lock of SQLite's on the file; gives its device and inode."""
    descriptor = open_regular(database, os.O_RDWR)
    try:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, *_LOCK_BYTES, 0))
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                raise _in_use(database) from error
            raise
        status = os.fstat(descriptor)
        if identity_of(database) != (status.st_dev, status.st_ino):
            raise _in_use(database)
        yield status.st_dev, status.st_ino
    finally:
        os.close(descriptor)


def _in_use(database: Path) -> BusyError:
    return BusyError(
        f"{database} is in use: another process holds it locked, or has just written to it",
        suggestion=f"stop what uses it ({tool()} doctor names it), then try again",
    )


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
