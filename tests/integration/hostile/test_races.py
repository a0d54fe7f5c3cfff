"""A process that exchanges the site's files for others, again and again, while a command runs."""

import contextlib
import ctypes
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.hostile.attacks import COMMANDS, DATABASE, LOG, LOGS, SIDES, replace
from tests.integration.hostile.harness import OWNER, Ground, require_untouched, sampled

_EXCHANGE = 2  # renameat2(2), RENAME_EXCHANGE
_HERE = -100  # AT_FDCWD
_ROUNDS = 2  # as root types it, and as a unit runs it
_libc = ctypes.CDLL(None)

RACES = {
    DATABASE: ("link", "link to root's", "fifo", "folder", "zero", "empty", "sparse"),
    SIDES[0]: ("link", "fifo", "zero", "empty"),
    SIDES[1]: ("link", "fifo", "zero", "empty"),
    LOG: ("link", "link to root's", "hard link", "fifo", "zero", "empty", "sparse"),
    LOGS: ("link", "link to root's"),
}
"""What is exchanged for what. (Not the -journal for a FIFO, and not data/: see docs/explanation/reliability.md.)"""


def _commands(target: str) -> tuple[str, ...]:
    return ("rotate", "show", "doctor") if target in {LOG, LOGS} else ("daily", "social", "once", "drill", "restore")


@contextlib.contextmanager
def _exchanging(path: Path, decoy: Path) -> Iterator[None]:
    """Both have each other's names for some microseconds, as the attacker's own process can make it."""
    names = os.fsencode(path), os.fsencode(decoy)
    chooser = random.Random(path.name)
    pid = os.fork()
    if pid == 0:
        os.setresuid(OWNER, OWNER, OWNER)
        while True:
            _libc.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE)
            for _ in range(chooser.randrange(2000)):  # not always at the same step of whoever is watched
                pass
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _lay_out(ground: Ground, target: str, kind: str) -> Path:
    """The site as it should be, and the decoy beside the target."""
    ground.lay_out()
    path = ground.root / target
    good, decoy = path.with_name(f"{path.name}.good"), path.with_name(f"{path.name}.decoy")
    shutil.copytree(path, good) if path.is_dir() else shutil.copy2(path, good)
    for each in (good, *good.rglob("*")):
        os.chown(each, OWNER, OWNER)
    replace(ground, target, kind)
    path.rename(decoy)
    good.rename(path)
    return decoy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "kind", "command"),
    sampled(
        ((target, kind, each) for target in RACES for kind in RACES[target] for each in _commands(target)), weight=5
    ),
)
def test_whatever_is_exchanged_meanwhile_nothing_outside_is_touched(
    ground: Ground, target: str, kind: str, command: str
) -> None:
    for number in range(_ROUNDS):
        decoy = _lay_out(ground, target, kind)
        before = ground.before()
        with _exchanging(ground.root / target, decoy):
            result = ground.run(COMMANDS[command], as_root=command == "restore" or number % 2 == 0)
        require_untouched(ground, before, result, f"{command}: {target} exchanged for {kind}")
