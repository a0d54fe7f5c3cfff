"""Dying anywhere: a child process that kills itself at a chosen event of the code.

The places are not listed by hand. Every line and every call of a built-in function (thus every system call that Python
makes) within some modules is a place to die. Of those between which the process only computes, all leave the same
behind: they are one event.
"""

import os
import re
import signal
import struct
import sys
from collections.abc import Callable
from datetime import date, timedelta, tzinfo
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import portfolio_ops

EVERY = int(os.environ.get("FAULTS_EVERY", "4"))
"""A sweep dies at every n-th event (`make faults`: at each)."""

_PACKAGE = Path(portfolio_ops.__file__).parent

# What changes nothing outside of the process. Whatever is not listed may change something.
_VALUES: tuple[type, ...] = (
    *(str, bytes, bytearray, memoryview, list, tuple, dict, set, frozenset, int, float, struct.Struct),
    *(date, timedelta, tzinfo, re.Pattern, re.Match),
)
_COMPUTING = {all, any, getattr, hasattr, isinstance, iter, len, max, min, next, sum}
_READING = {os.fspath, os.fstat, os.geteuid, os.getpid, os.getxattr, os.lstat, os.pread, os.stat}


def _may_change_something(function: Any) -> bool:
    owner = getattr(function, "__self__", None)
    if isinstance(owner, ModuleType) or owner is None:
        return function not in _COMPUTING and function not in _READING
    kind = owner if isinstance(owner, type) else type(owner)
    return not issubclass(kind, _VALUES)


class _Bomb:
    """Counts events in the watched modules; kills the process at number `fuse`, without any clean-up."""

    def __init__(self, fuse: int, modules: tuple[str, ...]) -> None:
        self._fuse = fuse
        self._files = {str(_PACKAGE / name) for name in modules}
        self._changed = True
        self.count = 0

    def _tick(self) -> None:
        if not self._changed:
            return
        self._changed = False
        self.count += 1
        if self.count == self._fuse:
            os.kill(os.getpid(), signal.SIGKILL)

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line":
            self._tick()
        return self.trace

    def profile(self, frame: FrameType, event: str, argument: Any) -> None:
        watched = frame.f_code.co_filename in self._files
        if watched and event == "c_call":
            self._tick()
        if event in {"c_return", "c_exception"} and _may_change_something(argument):
            self._changed = True
        if watched and event == "c_return":
            self._tick()


def in_child(work: Callable[[], object], fuse: int, modules: tuple[str, ...]) -> int:
    """Do `work` in a child that dies at event `fuse` of `modules`; gives how many events there were, 0 if it died."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            bomb = _Bomb(fuse, modules)
            sys.setprofile(bomb.profile)
            sys.settrace(bomb.trace)
            work()
            sys.settrace(None)
            sys.setprofile(None)
            os.write(write_end, str(bomb.count).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    _, status = os.waitpid(child, 0)
    told = os.read(read_end, 100)
    os.close(read_end)
    if told:
        assert os.waitstatus_to_exitcode(status) == 0
        return int(told)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    return 0
