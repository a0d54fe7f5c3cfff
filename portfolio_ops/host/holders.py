"""Which processes have a file open: asked of the kernel, for every process of every user."""

import contextlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from portfolio_ops.host.identity import as_root

REMOVED = " (deleted)"
"""What the kernel puts behind the name of an open file that is under no name any more (proc_pid_fd(5))."""

_PROC = Path("/proc")
_LOGIN = re.compile(r"/session-[^/]+\.scope(/|$)", re.MULTILINE)
_CONTAINER = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Holder:
    """A process that has a file open."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def identity_of(path: Path) -> tuple[int, int] | None:
    """The device and inode that a name stands for now; None where there is no such file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def holders(files: Iterable[tuple[int, int]]) -> list[Holder]:
    """The other processes that have one of `files` open, whatever name or mount they reached it by.

    Containers are processes like any other here (proc(5), /proc/pid/fd). Only root sees those of all users.

    Args:
        files: Devices and inodes.
    """
    wanted = set(files)
    with as_root():
        return [
            Holder(pid, _name(pid)) for pid in _processes() if pid != os.getpid() and not wanted.isdisjoint(_open(pid))
        ]


def holders_of_removed(path: Path) -> list[tuple[Holder, Path]]:
    """The other processes that have a file open which is under no name any more, and where its content can be read.

    Args:
        path: What it was called, no link. Nothing may be there, or another file by now.
    """
    found, there = [], path.exists()
    with as_root():
        for pid in _processes():
            for entry in _descriptors(pid) if pid != os.getpid() else ():
                with contextlib.suppress(OSError):
                    was = Path(entry.path).readlink()
                    removed = was.name == f"{path.name}{REMOVED}" and not entry.stat().st_nlink
                    if removed and _lay_in(pid, was.parent, path.parent, strictly=there):
                        found.append((Holder(pid, _name(pid)), Path(entry.path)))
    return found


def rescue(opened: Path, target: str) -> str:
    """The command that copies what a process has open, whose it was: root's, it would not be the site's.

    Args:
        opened: From `holders_of_removed`.
    """
    return shlex.join(["cp", "--preserve=mode,ownership", str(opened), target])


def _lay_in(pid: int, theirs: Path, folder: Path, *, strictly: bool) -> bool:
    """Whether a process's folder is this one, which a container knows by another path.

    Args:
        strictly: If not, it may also be one that is gone: of that nothing but names is left. Among the same mounts it
            is this one if its path is; elsewhere a path says nothing, and the file's name has to do.
    """
    try:
        status = Path(f"{_PROC}/{pid}/root{theirs}").stat()
        if os.path.samestat(status, folder.stat()):
            return True
        gone = status.st_nlink == 0
    except OSError:
        gone = True
    return gone and not strictly and (theirs == folder or not _has_our_mounts(pid))


def _has_our_mounts(pid: int) -> bool:
    """Whether a process sees the same mounts as this one (mount_namespaces(7)); not, if that cannot be known."""
    try:
        return os.path.samestat((_PROC / str(pid) / "ns/mnt").stat(), (_PROC / "self/ns/mnt").stat())
    except OSError:
        return False


def is_of_a_login(holder: Holder) -> bool:
    """Whether a process is certainly part of somebody's login, and of no container: so its control group says.

    A login's is `session-N.scope` (pam_systemd(8)), and each container's is named with its id.
    """
    try:
        group = (_PROC / str(holder.pid) / "cgroup").read_text()
    except OSError:
        return False
    return _LOGIN.search(group) is not None and _CONTAINER.search(group) is None


def _processes() -> list[int]:
    return sorted(int(entry.name) for entry in os.scandir(_PROC) if entry.name.isdigit())


def _descriptors(pid: int) -> Iterator[os.DirEntry[str]]:
    """What a process has open, as links; none of one that has ended, or that may not be looked at."""
    with contextlib.suppress(OSError):
        yield from os.scandir(_PROC / str(pid) / "fd")


def _open(pid: int) -> set[tuple[int, int]]:
    """The devices and inodes of what a process has open."""
    found: set[tuple[int, int]] = set()
    for entry in _descriptors(pid):
        with contextlib.suppress(OSError):
            status = entry.stat()
            found.add((status.st_dev, status.st_ino))
    return found


def _name(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text().strip() or "?"
    except OSError:
        return "?"
