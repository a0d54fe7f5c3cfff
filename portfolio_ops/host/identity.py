"""Become the owner of the site's data.

No other identity is safe: SQLite gives `-wal` and `-shm` to whoever opens the database first, and a file of ours there
makes the site fail with "attempt to write a readonly database". Root is safe only with every capability, which the
units do not have, so root steps down too, and a command run by hand does just what the unit does.
"""

import os
import pwd
from pathlib import Path

from portfolio_ops.errors import NotFoundError, NotPermittedError


def owner_of(database: Path, root: Path) -> tuple[int, int]:
    """The (uid, gid) that owns the site: the database's, or the root's where there is no database yet.

    Raises:
        NotFoundError: Neither exists.
    """
    for path in (database, root):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        return status.st_uid, status.st_gid
    raise NotFoundError(
        f"the site's root {root} does not exist", suggestion="check [site] root; is the volume mounted?"
    )


def become_owner(database: Path, root: Path) -> None:
    """Give up root for the site's owner, for good; where already the owner, do nothing.

    Raises:
        NotPermittedError: The caller is neither root nor the owner.
        NotFoundError: The site is not there.
    """
    uid, gid = owner_of(database, root)
    if os.geteuid() == uid:
        return
    if os.geteuid() != 0:
        raise NotPermittedError(
            f"{database} belongs to uid {uid}, this is uid {os.geteuid()}",
            suggestion=f"run it as that user or as root, for example: sudo -u '#{uid}' portfolio-ops ...",
        )
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        os.setgroups([gid])
    else:
        os.initgroups(name, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
