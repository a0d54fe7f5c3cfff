"""A live database that lost its name while a program has it open: what is in it ends with that program (unlink(2)).

Until then the kernel gives it to whoever asks (proc_pid_fd(5)). Only root sees the processes of all users; where none
is seen, nothing is known.
"""

import contextlib
import shlex
from pathlib import Path
from typing import NamedTuple

from portfolio_ops.host.holders import REMOVED, Holder, holders_of_removed, rescue
from portfolio_ops.host.identity import as_root


class Removed(NamedTuple):
    """What is wrong, and what is to be done about it, in this order, before that program ends."""

    text: str
    cure: str


def look(database: Path, *, but: int | None = None) -> Removed | None:
    """Whether a process has the file open that was a live database, and is under no name any more.

    Args:
        database: The live name, no link. Nothing may be there, or another file by now.
        but: A process that does not count: the archive, which lets go by itself.
    """
    for holder, opened in holders_of_removed(database):
        if holder.pid != but:
            with contextlib.suppress(OSError), as_root():  # it may have ended meanwhile
                return _described(database, holder, opened)
    return None


def _described(database: Path, holder: Holder, opened: Path) -> Removed:
    if database.exists():
        text = f"another file stands in the place of {database}, and {holder} has the one open still that was removed,"
        text += " with all that it commits"
    else:
        text = f"{database} was removed, and {holder} has it open still, with all that was committed since"
    hold, copy, place = _rescue(database, opened)
    first = f"do NOT stop it yet: first let a shell of root's hold it: {hold}; then stop the site"
    last = f"if it is ok: {place}; then start the site, and leave that shell"
    return Removed(text, f"{first}; then in the same shell: {copy}; {last}")


def _rescue(database: Path, opened: Path) -> tuple[str, str, str]:
    """Commands that hold a removed database, that copy it once it is complete, and that put the copy in its place.

    Copied while it is written, the two files would be of two moments, and what is committed behind them would be lost.
    A shell that has them open keeps them beyond the end of the program. SQLite makes one file of both: a WAL that
    stays behind, of this database or of another, would be replayed over the one that is put in place.
    """
    copy = database.with_name(f"rescued-{database.name}")
    wal = _wal_beside(opened)
    hold = f"exec 7<{opened}" if wal is None else f"exec 7<{opened} 8<{wal}"
    commands = [rescue(Path("/dev/fd/7"), str(copy))]
    if wal is not None:
        commands.append(rescue(Path("/dev/fd/8"), f"{copy}-wal"))
    commands.append(shlex.join(["sqlite3", str(copy), "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA integrity_check"]))
    if not database.parent.exists():
        commands.insert(0, shlex.join(["install", "-d", *_owner(opened), str(database.parent)]))
    away = str(database.parent / "before-rescue")
    named = ["(", "-name", database.name, "-o", "-name", f"{database.name}-*", ")"]
    moved = ["find", str(database.parent), "-maxdepth", "1", *named, "-exec", "mv", "-t", away, "{}", "+"]
    place = [["mkdir", away], moved, ["mv", str(copy), str(database)]]
    return hold, " && ".join(commands), " && ".join(map(shlex.join, place))


def _owner(opened: Path) -> list[str]:
    """What install(1) is told to make a folder whose owner is that of a file."""
    status = opened.stat()
    return ["-o", str(status.st_uid), "-g", str(status.st_gid)]


def _wal_beside(opened: Path) -> Path | None:
    """The WAL that a process has open beside a removed database, whether that has its name still or not."""
    wal = f"{str(opened.readlink()).removesuffix(REMOVED)}-wal"
    for entry in sorted(opened.parent.iterdir()):
        with contextlib.suppress(OSError):
            if str(entry.readlink()).removesuffix(REMOVED) == wal:
                return entry
    return None
