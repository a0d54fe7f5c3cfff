"""What a process and its children cost, from /proc (proc(5))."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_KILOBYTE = 1024


def _children(process: int) -> Iterator[int]:
    """Its descendants that run, or that nobody has waited for yet."""
    for task in _PROC.glob(f"{process}/task/*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                yield child
                yield from _children(child)


def cpu_seconds(process: int) -> float:
    """User and system time, of its ended and present children too."""
    # What stands in `stat` is in ticks of 10 ms; the process's own clock (clock_getcpuclockid(3)) counts nanoseconds.
    own = time.clock_gettime(~process << 3 | 2)
    ticks = sum(_ticks(process)[2:])
    for child in _children(process):
        with contextlib.suppress(OSError):
            ticks += sum(_ticks(child))
    return own + ticks / os.sysconf("SC_CLK_TCK")


def _ticks(process: int) -> list[int]:
    """utime, stime, cutime, cstime."""
    fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]


def switches(process: int) -> int:
    """Context switches, voluntary and not, of all threads that there are, and of its children's."""
    count = 0
    for each in (process, *_children(process)):
        for status in _PROC.glob(f"{each}/task/*/status"):
            with contextlib.suppress(OSError):
                count += sum(_field(status, name) for name in ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"))
    return count


def peak_bytes(process: int) -> int:
    """The most that was ever resident (VmHWM)."""
    return _field(_PROC / str(process) / "status", "VmHWM") * _KILOBYTE


def resident_bytes(process: int) -> tuple[int, int]:
    """What is resident now: anonymous memory, and pages of files."""
    rollup = _PROC / str(process) / "smaps_rollup"
    anonymous = _field(rollup, "Anonymous")
    return anonymous * _KILOBYTE, (_field(rollup, "Rss") - anonymous) * _KILOBYTE


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise KeyError(name)
