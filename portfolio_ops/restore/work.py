"""The hidden folder beside a database in which a restore works: what comes in, and what was there."""

import contextlib
import os
import shutil
from pathlib import Path

from portfolio_ops.errors import RefusedError
from portfolio_ops.host.holders import identity_of

_NAME = ".portfolio-ops-restore"


def folder_of(database: Path) -> Path:
    """Where a restore of this database works: on its own filesystem, so that names can be exchanged."""
    return database.parent / _NAME


def incoming_of(database: Path) -> Path:
    """The database that is to come."""
    return folder_of(database) / database.name


def former_of(database: Path) -> Path:
    """The folder that keeps what was there, under its own name."""
    return folder_of(database) / "former"


def discarded_of(database: Path) -> Path:
    """The folder that keeps a restored database while the former one is put back."""
    return folder_of(database) / "discarded"


def has_come(database: Path, inode: int | None) -> bool:
    """Whether the staged file of this inode has the live name by now.

    The device is not asked for: after a power cut it may have another number. Both files are of one filesystem.
    """
    identity = identity_of(database)
    return inode is not None and identity is not None and identity[1] == inode


def require_nothing_left(database: Path) -> None:
    """Refuse to clear away a former database that is not the live one by another name.

    Raises:
        RefusedError: There is one.
    """
    left = former_of(database) / database.name
    if left.exists() and identity_of(left) != identity_of(database):
        raise RefusedError(
            f"{left.parent} holds a former database that no record tells of",
            suggestion="look whether it is wanted, then move it away",
        )


def make(database: Path) -> None:
    """Make the folder, empty.

    Raises:
        RefusedError: Something else has its name.
    """
    folder = folder_of(database)
    if os.path.lexists(folder):
        if not _is_folder(folder):
            raise RefusedError(f"{folder} is not a folder", suggestion="who put it there? Move it away")
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700)


def remove(database: Path) -> None:
    """Remove it with all that is left in it: nothing of that is wanted any more.

    First the former database gets another name. Should something of it stay, the next restore takes it for what it is.
    """
    with contextlib.suppress(OSError):
        former_of(database).rename(folder_of(database) / "removed")
    if _is_folder(folder_of(database)):
        shutil.rmtree(folder_of(database), ignore_errors=True)


def _is_folder(path: Path) -> bool:
    """A folder, and no link to one: rmtree(3py) opens what it is given, and waits for who writes into a FIFO."""
    return path.is_dir() and not path.is_symlink()
