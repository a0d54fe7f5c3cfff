"""A live database that lost its name while a program has it open: what is in it ends with that program (unlink(2)).

Until then the kernel gives it to whoever asks (proc_pid_fd(5)). Only root sees the processes of all users; where none
is seen, nothing is known.
"""

import contextlib
from collections.abc import Iterator
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
    rescued = f"{database}.rescued"
    commands = [rescue(opened, rescued), *(rescue(wal, f"{rescued}-wal") for wal in _wal_beside(opened))]
    if database.exists():
        text = f"another file stands in the place of {database}, and {holder} has the one open still that was removed,"
        text += " with all that it commits"
        end = "give the name to the one that is wanted"
    else:
        text = f"{database} was removed, and {holder} has it open still, with all that was committed since"
        end = "give both files their names" if len(commands) > 1 else "give it its name"
    cure = f"do NOT stop it before this is done: {' && '.join(commands)}; look at the copy with sqlite3, then stop "
    return Removed(text, f"{cure}the site, and {end}")


def _wal_beside(opened: Path) -> Iterator[Path]:
    """The WAL that a process has open beside a removed database, whether that has its name still or not."""
    wal = f"{str(opened.readlink()).removesuffix(REMOVED)}-wal"
    for entry in sorted(opened.parent.iterdir()):
        with contextlib.suppress(OSError):
            if str(entry.readlink()).removesuffix(REMOVED) == wal:
                yield entry
                return
