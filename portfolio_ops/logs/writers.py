"""Who writes a log in a way that rotation would damage.

A writer without O_APPEND keeps its own offset. Once the head of the file is gone it writes far beyond the end, and the
file gets a hole of NULs. proc_pid_fdinfo(5) shows every descriptor's flags.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_KERNEL_THREAD = 0x00200000  # PF_KTHREAD, linux/sched.h; field 9 of proc_pid_stat(5)
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
        unseen: How many processes did not let themselves be looked at: other users' ones, unless this is root.
    """

    unsafe: tuple[Writer, ...]
    unseen: int


def look(descriptor: int) -> Writers:
    """Look through all processes but this one for writers of an open file."""
    status = os.fstat(descriptor)
    unsafe, unseen = [], 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if any(_writes_at_own_offset(folder, number) for number in _descriptors(folder, status)):
                unsafe.append(Writer(int(folder.name), _command(folder)))
        except PermissionError:
            unseen += not _is_kernel_thread(folder)
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
    return Writers(tuple(unsafe), unseen)


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


def _writes_at_own_offset(folder: Path, number: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / "fdinfo" / number).read_text().splitlines():
            if line.startswith("flags:"):
                flags = int(line.split()[1], 8)
                return flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_APPEND
    return False


def _is_kernel_thread(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        return bool(int(fields[6]) & _KERNEL_THREAD)
    return True


def _command(folder: Path) -> str:
    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return words[:_COMMAND_MOST] or (folder / "comm").read_text().strip()
