"""A restore point exactly where a whole backup stands, so that a drill can hold the one against the other.

Whoever begins a backup leaves word of its position in the WAL, and of when that was the present. The archive flushes at
most once a second, and so mostly past it; having found that word, it flushes up to there first. Where the word comes
too late there is no such point.
"""

import contextlib
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.files import open_regular, overwrite
from portfolio_ops.moment import EPOCH, MICROSECOND
from portfolio_ops.sqlite.snapshot import Position

_NAME = "archive-witness"
_WORDS = re.compile(rb"([0-9a-f]{16}) (\d{10}) (\d{17})\n")
_LENGTH = 46


@dataclass(frozen=True)
class Asked:
    """A restore point that is asked for.

    Attributes:
        position: Where.
        seen: When a look began, UTC, that saw the database there: what was committed before, is in it.
    """

    position: Position
    seen: datetime


def ask(state: Path, position: Position, seen: datetime) -> None:
    """Ask for a restore point; the word of another backup is replaced. Where that fails, the backup matters more.

    By one small write that nobody waits for: each millisecond counts, and after a power cut the word is worth nothing.
    """
    words = f"{position.salts} {position.frame:010} {(seen - EPOCH) // MICROSECOND:017}\n"
    with contextlib.suppress(OSError):
        overwrite(state / _NAME, words.encode())


def asked(state: Path) -> Asked | None:
    """What is asked for; None where nothing is, or nothing that can be understood."""
    try:
        descriptor = open_regular(state / _NAME)
    except (PortfolioOpsError, OSError):
        return None
    try:
        found = _WORDS.match(os.read(descriptor, _LENGTH))
    finally:
        os.close(descriptor)
    if found is None:
        return None
    return Asked(Position(found[1].decode(), int(found[2])), EPOCH + int(found[3]) * MICROSECOND)


def forget(state: Path) -> None:
    """Let go of what was asked for.

    Raises:
        OSError: It cannot be removed.
    """
    (state / _NAME).unlink(missing_ok=True)
