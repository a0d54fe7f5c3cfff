"""Who writes a log in a way that rotation would damage.

A writer without O_APPEND keeps its own offset. Once the head of the file is gone it writes far beyond the end, and the
file gets a hole of NULs (`portfolio_ops.logs.holes`). proc_pid_fdinfo(5) shows every descriptor's flags.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from portfolio_ops.host.identity import as_root

_KERNEL_THREAD = 0x00200000  # PF_KTHREAD, linux/sched.h; field 9 of proc_pid_stat(5)
_CAP_SYS_PTRACE = 1 << 19  # linux/capability.h; what looking at the descriptors of others takes (proc_pid_fd(5))
_COMMAND_MOST = 60


@dataclass(frozen=True)
class Writer:
    """A process and its command, shortened."""

    pid: int
    command: str


@dataclass(frozen=True)
class Writers:
    """What was found.

    Attributes:
        unsafe: Processes that have the file open for writing without O_APPEND.
        appends: Whether a process has it open for writing with O_APPEND.
        unseen: How many processes did not let themselves be looked at: other users' ones, unless this is root.
        entitled: Whether this process may look at those of all users, as root may. If not, others may be hidden and
            not even counted: so it is in a unit's sandbox.
    """

    unsafe: tuple[Writer, ...]
    appends: bool
    unseen: int
    entitled: bool


def look(descriptor: int) -> Writers:
    """Look through all processes but this one for writers of an open file; as root, if this process may be that."""
    status = os.fstat(descriptor)
    unsafe, appends, unseen = [], False, 0
    with as_root():
        entitled = bool(_capabilities() & _CAP_SYS_PTRACE)
        for pid in [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]:
            folder = Path(f"/proc/{pid}")
            try:
                writing = [] if pid == os.getpid() else _writing(folder, status)
                if not all(writing):
                    unsafe.append(Writer(pid, _command(folder)))
            except PermissionError:
                unseen += not _is_kernel_thread(folder)
            except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
                continue
            else:
                appends = appends or any(writing)
    return Writers(tuple(unsafe), appends, unseen, entitled)


def _capabilities() -> int:
    """The effective ones of this process (proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))


def _writing(folder: Path, status: os.stat_result) -> list[bool]:
    """For each descriptor by which a process may write the file, whether it appends."""
    flags = [_flags(folder, number) for number in _descriptors(folder, status)]
    return [bool(each & os.O_APPEND) for each in flags if each & os.O_ACCMODE != os.O_RDONLY]


def _descriptors(folder: Path, status: os.stat_result) -> list[str]:
    """The numbers under which a process has the file open.

    What does not answer is on another disk, one that died or whose server is gone; ours has just answered.
    """
    numbers = []
    with os.scandir(folder / "fd") as entries:
        for entry in entries:
            try:
                found = os.stat(entry.path)  # noqa: PTH116  (thousands of them: the system call and no more)
            except PermissionError:
                raise
            except OSError:
                continue
            if (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
                numbers.append(entry.name)
    return numbers


def _flags(folder: Path, number: str) -> int:
    """Those that open(2) was called with; as for reading if the descriptor was closed meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / "fdinfo" / number).read_text().splitlines():
            if line.startswith("flags:"):
                return int(line.split()[1], 8)
    return os.O_RDONLY


def _is_kernel_thread(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        return bool(int(fields[6]) & _KERNEL_THREAD)
    return True


def _command(folder: Path) -> str:
    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return words[:_COMMAND_MOST] or (folder / "comm").read_text().strip()
