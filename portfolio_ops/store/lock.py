"""One run of a site's job at a time.

The lock is flock(2) on a descriptor that the run holds: the kernel frees it when the process ends, however it ends.
What the file says is for messages only; its existence means nothing. (Stale lock files have stopped other tools'
backups for months.)
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.errors import NO_ROOM, BusyError, NotFoundError
from portfolio_ops.host.files import naming
from portfolio_ops.moment import local

ARCHIVING, PINNED = "archive", "archive-pin"
"""Locks of the archive: it runs; it has the database open, for while it only waits, nothing is archived."""

RESTORE, EXCHANGE = "restore", "exchange"
"""Locks of a restore: it runs; it is about to exchange the database, and the archive gives way."""

_POLL = 0.2


@contextlib.contextmanager
def held(state: Path, name: str, *, wait: timedelta, on_wait: Callable[[str], object]) -> Iterator[Callable[[], bool]]:
    """Hold the lock `name` of a site while the block runs.

    Gives what tells, for a run that takes days, whether it still keeps others out: who copies an old folder of backups
    over this one puts another file in the place of the one that is locked.

    Args:
        state: The site's state folder; made if missing.
        name: What is locked, for example an artifact kind.
        wait: How long to wait for another run before giving up.
        on_wait: Called once, with who holds it, if there is a wait.

    Raises:
        BusyError: Another run still holds it after `wait`.
        NotFoundError: There is no folder of backups that the state could lie in.
    """
    try:
        state.mkdir(mode=0o750, exist_ok=True)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no folder {state.parent}", suggestion="is the volume mounted? The first backup makes it"
        ) from error
    path = state / f"{name}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        _acquire(descriptor, name, wait, on_wait)
        _sign(descriptor, path, name)
        yield lambda: _is_at(descriptor, path)
    finally:
        os.close(descriptor)


def _sign(descriptor: int, path: Path, name: str) -> None:
    """Say who holds the lock. On a full disk that may fail, so that it can be emptied; but others go by the archive's.

    What stands there is overwritten: to cut it off first would give its block away.
    """
    note = {"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        with naming(path):
            os.ftruncate(descriptor, os.pwrite(descriptor, json.dumps(note).encode(), 0))
    except OSError as error:
        if error.errno not in NO_ROOM or name in {ARCHIVING, PINNED}:
            raise


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is what stands at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def is_held(state: Path, name: str) -> bool:
    """Whether some run holds the lock now."""
    try:
        descriptor = os.open(state / f"{name}.lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder_of(state: Path, name: str) -> int | None:
    """The process that holds the lock now; None where nobody does, or where it does not say."""
    if not is_held(state, name):
        return None
    try:
        return int(json.loads((state / f"{name}.lock").read_bytes())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _acquire(descriptor: int, name: str, wait: timedelta, on_wait: Callable[[str], object]) -> None:
    deadline = time.monotonic() + wait.total_seconds()
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"another run holds the {name} lock ({holder})",
                    suggestion=f"wait for it, or look at it with `{tool()} status`; try again with a longer --wait",
                ) from None
            if not told:
                on_wait(holder)
                told = True
            time.sleep(_POLL)
        else:
            return


def _holder(descriptor: int) -> str:
    """Who holds the lock, as far as the file tells."""
    try:
        note = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(note['pid'])}, since {local(datetime.fromisoformat(note['since']))}"
    except (ValueError, KeyError, TypeError):
        return "a process that has just begun"
