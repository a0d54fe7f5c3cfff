"""Opening a site's live database without leaving a trace of having been there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import apsw

from portfolio_ops.calling import tool
from portfolio_ops.errors import BusyError, NotFoundError, NotPermittedError, PortfolioOpsError, RefusedError
from portfolio_ops.mount import read_only
from portfolio_ops.sqlite import removed
from portfolio_ops.sqlite.place import SIDES, located, require_plain_files, require_the_sites, side

_BUSY_MILLISECONDS = 10_000


@contextlib.contextmanager
def reading(database: Path) -> Iterator[apsw.Connection]:
    """A connection that only reads, and leaves the database, its `-wal` and its `-shm` as it found them.

    `query_only` makes sure that nothing is written. For the rest, see `writing`.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is not a database, or no plain file; or what lies beside it under SQLite's names is none.
        BusyError: The site holds it exclusively for longer than 10 s.
    """
    with writing(database) as connection:
        connection.pragma("query_only", 1)
        yield connection


@contextlib.contextmanager
def writing(database: Path) -> Iterator[apsw.Connection]:
    """A connection beside the site's own, that disturbs neither its `-wal` nor its `-shm`.

    It is opened read-write: a read-only handle on a database whose site is stopped creates side files and cannot remove
    them. No automatic checkpoint is ever run. At the end:

    - a WAL that was there before is left alone even if we are the last to close (SQLite would checkpoint and delete it,
      and with it what a crashed site still has to recover, or what an archiver has yet to read);
    - where there was none, the side files that our reading made go again, as after any clean close.

    Raises:
        NotFoundError: There is no such file.
        RefusedError: It is not a database, or no plain file; or what lies beside it under SQLite's names is none.
        BusyError: The site holds it exclusively for longer than 10 s.
    """
    path = located(database)
    require_usable(path)
    require_plain_files(path)
    if is_bare(path):
        raise RefusedError(
            f"{database} is empty, and a WAL with content lies beside it: SQLite would delete that",
            suggestion="is it the right file? Keep a copy of both, then restore a backup in place",
        )
    had_wal = _size(side(path, "-wal")) > 0
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
    except apsw.Error as error:
        raise explained(error, database) from error
    try:
        connection.set_busy_timeout(_BUSY_MILLISECONDS)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(had_wal))
        connection.pragma("wal_autocheckpoint", 0)
        # The first read opens the WAL, and takes the lock that keeps another's last close from deleting it.
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        yield connection
    except apsw.Error as error:
        raise explained(error, database) from error
    finally:
        connection.close()


def require_usable(path: Path) -> None:
    """Check that there is a database, and that it is the site's; one that was removed is there for who has it open.

    Args:
        path: Of the database; no link.

    Raises:
        NotFoundError: There is none.
        NotPermittedError: It is root's, and the site is not.
    """
    if path.exists():
        require_the_sites(path)
        return
    lost = removed.look(path)
    if lost is not None:
        raise NotFoundError(lost.text, suggestion=lost.cure)
    raise NotFoundError(f"there is no database at {path}", suggestion=_absent())


def is_bare(database: Path) -> bool:
    """Whether it is an empty file beside a WAL that is not: whoever opens it with SQLite deletes the WAL as a stray."""
    return _size(database) == 0 and _size(side(database, "-wal")) > 0


def immutable(file: Path) -> apsw.Connection:
    """A connection to a file that nobody writes: no lock is taken, and a `-wal` beside it is not looked at.

    Raises:
        PortfolioOpsError: It cannot be opened.
    """
    try:
        return apsw.Connection(
            f"file:{_uri_path(file)}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
    except apsw.Error as error:
        raise explained(error, file) from error


def _uri_path(path: Path) -> str:
    """A path inside a URI (<https://www.sqlite.org/uri.html>, section 3.1)."""
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def explained(error: apsw.Error, database: Path) -> PortfolioOpsError:
    """One of our errors for one of SQLite's, with the cure where it is known."""
    if isinstance(error, apsw.NotADBError):
        return RefusedError(
            f"{database} is not a SQLite database",
            suggestion="is it the right file? [site] database names the site's own",
        )
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return BusyError(
            f"{database} stayed locked for {_BUSY_MILLISECONDS // 1000} s: {error}",
            suggestion="does the site use locking_mode=EXCLUSIVE or hold a write transaction open? End it, then retry",
        )
    if isinstance(error, apsw.CantOpenError | apsw.PermissionsError | apsw.ReadOnlyError):
        return _not_opened(error, database)
    if isinstance(error, apsw.CorruptError):
        return PortfolioOpsError(
            f"{database} is damaged: {error}",
            suggestion="run PRAGMA integrity_check on a copy; restore the latest verified backup if it is lost",
        )
    return PortfolioOpsError(f"reading {database} failed: {error}", suggestion="see the message of SQLite above")


def _not_opened(error: apsw.Error, database: Path) -> PortfolioOpsError:
    """That the disk, or the rights, do not let SQLite open a database."""
    if isinstance(error, apsw.CantOpenError) and not database.exists():  # it went as it was opened
        return NotFoundError(f"there is no database at {database}", suggestion=_absent())
    if mount := read_only(database):
        return PortfolioOpsError(f"{database} cannot be opened ({error}): {mount.text}", suggestion=mount.cure)
    if isinstance(error, apsw.CantOpenError) and _may_open(database):
        return PortfolioOpsError(
            f"{database} cannot be opened, and no right is missing: is there room for its -wal and -shm? ({error})",
            suggestion="free some space, or inodes (df -h, df -i); the next run starts afresh",
        )
    return NotPermittedError(
        f"{database} cannot be opened by uid {os.geteuid()}: {error}",
        suggestion="run as the owner of the database; its folder must be writable for its -wal and -shm",
    )


def _may_open(database: Path) -> bool:
    """Whether we have the rights that SQLite needs: to its files, and to make those that are missing.

    SQLite has one answer, "unable to open", for a right that is missing and for a filesystem without room. How much is
    free tells them apart no better: it may have changed since, and xfs makes no file while it has a few blocks left.
    """
    path = database.resolve()  # the side files have the names of what a link leads to
    files = (side(path, ending) for ending in ("", *SIDES))
    return os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True) and all(
        os.access(file, os.R_OK | os.W_OK, effective_ids=True) for file in files if file.exists()
    )


def _absent() -> str:
    """What to do where there is no database."""
    return (
        "check [site] database; is the volume mounted? If it was removed while the site runs: do not stop that before"
        f" `{tool()} doctor`, as root, has told whether it has it open still"
    )
