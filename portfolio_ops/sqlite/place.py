"""Which file of the host a site's database is. Whoever broke into the backend may put anything in its place."""

import os
import shlex
import stat
from pathlib import Path

from portfolio_ops.errors import NotFoundError, NotPermittedError, RefusedError
from portfolio_ops.host.files import open_regular, real_inside, require_plain
from portfolio_ops.host.identity import is_roots_in_anothers

SIDES = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database, by the endings of the names."""

_MAGIC = bytes.fromhex("d9d505f920a163d7")  # the end of a journal that names a super-journal (pager.c)
_NAMED = 16


def side(database: Path, ending: str) -> Path:
    """The name of a side file."""
    return database.with_name(f"{database.name}{ending}")


def located(database: Path) -> Path:
    """The path of the file that is meant by a site's database, with no link in it.

    A link at its own name may lead to another file of its folder: with any other, whoever may write into the folder
    could choose which file of the host is backed up, or exchanged.

    Raises:
        RefusedError: It leads elsewhere.
    """
    return real_inside(database, database.parent)


def require_the_sites(path: Path) -> None:
    """Refuse a database that is root's in a folder of another's, unless this acts as root: somebody copied it there.

    What SQLite makes beside it, it gives to root, and the site could not start again. Who acts as root does so because
    the site is root's (`owner_of`). The cure is right for a backend that runs as root, too: it can write the file all
    the same, and SQLite gives what it makes beside it to the file's owner.

    Args:
        path: Of the database; no link. Nothing may be there.

    Raises:
        NotPermittedError: It is.
    """
    try:
        file, folder = path.lstat(), path.parent.stat()
    except FileNotFoundError:
        return
    if stat.S_ISREG(file.st_mode) and os.geteuid() != 0 and is_roots_in_anothers(file, folder):
        files = [path, *(each for each in (side(path, ending) for ending in SIDES) if each.exists())]
        raise NotPermittedError(
            f"{path} is root's, and its folder is not: the site and the jobs cannot write it"
            " (given to the folder's owner, it is right for a backend that runs as root as well)",
            suggestion=shlex.join(["chown", f"--reference={path.parent}", *map(str, files)]),
        )


def require_plain_files(path: Path) -> None:
    """Refuse a database where it, or what lies beside it under SQLite's names, is no plain file.

    SQLite follows no link there either; but it waits for ever for who writes into a FIFO, and writes its index into
    whatever has the name of the `-shm`, be it a disk. A journal of several databases names others' files, which SQLite
    opens as well, and may delete.

    Raises:
        RefusedError: One of them is none, or the journal names another file.
    """
    for ending in ("", *SIDES):
        require_plain(side(path, ending))
    journal = side(path, "-journal")
    if _names_another(journal):
        raise RefusedError(
            f"{journal} holds a transaction over several databases, and names another file",
            suggestion="let the site open its databases, which brings that to its end; else find out who put it there",
        )


def _names_another(journal: Path) -> bool:
    """Whether a journal that may be rolled back names a super-journal (atomiccommit.html, section 5)."""
    try:
        descriptor = open_regular(journal)
    except NotFoundError:
        return False
    try:
        length = os.fstat(descriptor).st_size
        head, end = os.pread(descriptor, 1, 0), os.pread(descriptor, _NAMED, max(0, length - _NAMED))
    finally:
        os.close(descriptor)
    return head != b"\0" and end.endswith(_MAGIC)
