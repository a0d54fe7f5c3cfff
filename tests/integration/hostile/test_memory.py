"""What the product remembers where the attacker can write: in an attribute of the log, and in a folder of restores."""

import json
import os
from typing import Any

import pytest

from portfolio_ops.logs.state import ATTRIBUTE
from tests.integration.hostile.attacks import COMMANDS, KINDS, LOG
from tests.integration.hostile.harness import OWNER, Ground, require_untouched, sampled

_GOOD: dict[str, Any] = {
    "format": 1,
    "stream": "0" * 32,
    "base": 0,
    "head": [10, 10, "00"],
    "cut_at": "",
    "step": "resting",
    "token": "",
    "removes": 0,
    "marker": "",
}
_VALUES: tuple[Any, ...] = (
    -1,
    1 << 70,
    1.5,
    "x" * 200,
    "../../../outside",
    [],
    {},
    None,
    True,
    [-5, -5, "x"],
    [1 << 62, 1 << 62, ""],
)


def _documents() -> list[bytes]:
    """Each word of the state with each value, in each step; and what is no state at all."""
    found = [b"", b"{", b"[" * 3000, b"[]", b"7", b"\xff\xfe"]
    for step in ("resting", "publishing", "marking", "removing"):
        found += [
            json.dumps({**_GOOD, "step": step, "next": [5, 5, "00"], **extra, word: value}).encode()
            for word in (*_GOOD, "next")
            for value in _VALUES
            for extra in ({}, {"token": "ab", "removes": 4096, "marker": "line 0"})
            if word not in {"format", "step"}
        ]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("command", ["rotate", "show", "doctor"])
def test_a_logs_state_that_somebody_else_wrote(ground: Ground, command: str) -> None:
    for number, document in enumerate(sampled(_documents())):
        ground.lay_out()
        os.setxattr(ground.root / LOG, ATTRIBUTE, document)
        before = ground.before()
        result = ground.run(COMMANDS[command], as_root=number % 2 == 0)
        require_untouched(ground, before, result, f"{command}: {document[:200]!r}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", sampled(KINDS, weight=10))
def test_a_restores_folder_that_is_something_else(ground: Ground, kind: str) -> None:
    ground.lay_out()
    path = ground.root / "data/.portfolio-ops-restore"
    KINDS[kind](ground, path)
    os.chown(path, OWNER, OWNER, follow_symlinks=False) if kind != "hard link" else None
    before = ground.before()
    for words in (["restore", "database", "latest", "--in-place", "--yes"], ["restore", "undo", "--yes"]):
        result = ground.run(words)
        require_untouched(ground, before, result, f"{words}: {kind}")
