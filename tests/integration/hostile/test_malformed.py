"""Databases that lead whoever opens them astray, under every command that does."""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.hostile.attacks import COMMANDS, DATABASE
from tests.integration.hostile.databases import PLAIN, WAL, spoil
from tests.integration.hostile.harness import Ground, require_untouched, sampled

_DEAD_MAN_SWITCH = 128  # the lock of who has the wal-index open (os_unix.c): while it is held, nobody makes that anew
OPENING = ("daily", "social", "once", "drill", "doctor", "check", "restore", "merge")


@contextlib.contextmanager
def _held_open(index: Path) -> Iterator[None]:
    """A process that holds the wal-index as the attacker wrote it."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        descriptor = os.open(index, os.O_RDWR)
        fcntl.lockf(descriptor, fcntl.LOCK_SH, 1, _DEAD_MAN_SWITCH)
        os.write(told, b"x")
        time.sleep(600)
        os._exit(0)
    try:
        os.read(ready, 1)
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(told)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "command"), sampled(((name, command) for name in (*PLAIN, *WAL) for command in OPENING), weight=3)
)
def test_a_database_that_is_none_leads_nobody_astray(ground: Ground, name: str, command: str) -> None:
    spoil(ground, name)
    index = ground.root / f"{DATABASE}-shm"
    with _held_open(index) if name in WAL else contextlib.nullcontext():
        before = ground.before()
        result = ground.run(COMMANDS[command], as_root=command == "restore")
        require_untouched(ground, before, result, f"{name}: {command}")
