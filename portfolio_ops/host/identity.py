"""Become the owner of the site's data.

No other identity is safe: SQLite gives `-wal` and `-shm` to whoever opens the database first, and a file of ours there
makes the site fail with "attempt to write a readonly database". Root is safe only with every capability, which the
units do not have, so root steps down too, and a command run by hand does just what the unit does.
"""

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from portfolio_ops.errors import NotFoundError, NotPermittedError
from portfolio_ops.host.files import real_inside


def owner_of(database: Path, root: Path, backups: Path) -> tuple[int, int]:
    """The (uid, gid) that owns the site: the database's; where there is none yet, that of its folder, or of the root.

    A database of root's in a folder of another's is that of a backend that runs as root, or root copied it there. Whose
    the site is was settled when it was deployed, and the folder of backups tells: root's, it is root's; else it is the
    folder's owner's.

    Raises:
        NotFoundError: None of them exists.
        NotPermittedError: This user may not look at them.
        RefusedError: A link leads out of the site: whoever put it there would choose whom root becomes.
    """
    below = Path(os.path.normpath(database)).is_relative_to(os.path.normpath(root))
    folder = real_inside(database.parent, root if below else database.parent)
    file, above, top = map(_status, (real_inside(database, folder), folder, Path(os.path.realpath(root))))
    if file and above and is_roots_in_anothers(file, above) and not _is_kept_by_root(backups, root):
        file = None
    owned = file or above or top
    if owned is None:
        raise NotFoundError(
            f"the site's root {root} does not exist", suggestion="check [site] root; is the volume mounted?"
        )
    return owned.st_uid, owned.st_gid


def is_roots_in_anothers(file: os.stat_result, folder: os.stat_result) -> bool:
    """Whether a database is root's, and its folder another's."""
    return file.st_uid == 0 != folder.st_uid


def _is_kept_by_root(backups: Path, root: Path) -> bool:
    """Whether the folder of backups is root's. What a link below the root leads to is what its owner has chosen."""
    path = Path(os.path.normpath(backups))
    if path.is_relative_to(top := os.path.normpath(root)):
        path = Path(os.path.realpath(top)) / path.relative_to(top)
        if os.path.realpath(path) != str(path):
            return False
    status = _status(path)
    return status is not None and stat.S_ISDIR(status.st_mode) and status.st_uid == 0


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise NotPermittedError(
            f"{path} may not be looked at by uid {os.geteuid()}",
            suggestion="run it as the owner of the site's data, or as root, which goes on as that",
        ) from error


def become_owner(database: Path, root: Path, backups: Path) -> None:
    """Give up root for the site's owner, for good; where already the owner, do nothing.

    Raises:
        NotPermittedError: The caller is neither root nor the owner.
        NotFoundError: The site is not there.
    """
    uid, gid = owner_of(database, root, backups)
    if os.geteuid() == uid:
        return
    if os.geteuid() != 0:
        raise NotPermittedError(
            f"{database} belongs to uid {uid}, this is uid {os.geteuid()}",
            suggestion=f"run it as that user or as root, for example: sudo -u '#{uid}' portfolio-ops ...",
        )
    _take_groups(uid, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def act_as_owner(database: Path, root: Path, backups: Path) -> None:
    """Do everything as the site's owner from now on, but for what is done `as_root`.

    A restore in place needs both: the files are the owner's, and a link that the owner planted must not be followed
    with root's power; but the backend is stopped, and every process looked at, by root.

    Raises:
        NotPermittedError: The caller is not root.
        NotFoundError: The site is not there.
    """
    uid, gid = owner_of(database, root, backups)
    if os.geteuid() != 0:
        raise NotPermittedError(
            "a restore in place takes root: it stops the backend, and looks at every process for the open database",
            suggestion="run it as root (sudo); the files stay their owner's. Or restore beside it: --to PATH",
        )
    _take_groups(uid, gid)
    # Only the effective identity: programs started as root then are root in every respect.
    os.setegid(gid)
    os.seteuid(uid)


@contextlib.contextmanager
def as_root() -> Iterator[None]:
    """Be root while the block runs, if this process may (`act_as_owner`); else stay who we are."""
    uid, gid, groups = os.geteuid(), os.getegid(), os.getgroups()
    if os.getuid() != 0 or uid == 0:
        yield
        return
    os.seteuid(0)
    os.setegid(0)
    os.setgroups([0])
    try:
        yield
    finally:
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(uid)


def _take_groups(uid: int, gid: int) -> None:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        os.setgroups([gid])
    else:
        os.initgroups(name, gid)
