"""A restore point exactly where a whole backup stands, so that a drill can hold the one against the other.

Whoever begins a backup leaves word of its position in the WAL. The archive flushes at most once a second, and so mostly
past it; having found that word, it flushes up to there first. Where the word comes too late there is no such point.
"""

import os
import re
from pathlib import Path

from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.files import open_regular, write_atomically
from portfolio_ops.sqlite.snapshot import Position

_NAME = "archive-witness"
_WORDS = re.compile(rb"([0-9a-f]{16}) (\d{1,10})\n")
_MOST = 64


def ask(state: Path, position: Position) -> None:
    """Ask for a restore point at a position; the word of another backup is replaced.

    Raises:
        OSError: The disk is full or fails.
    """
    write_atomically(state / _NAME, f"{position.salts} {position.frame}\n".encode())


def take(state: Path) -> Position | None:
    """What is asked for, once; None where nothing is, or nothing that can be understood."""
    path = state / _NAME
    try:
        descriptor = open_regular(path)
    except (PortfolioOpsError, OSError):
        return None
    try:
        found = _WORDS.fullmatch(os.read(descriptor, _MOST))
    finally:
        os.close(descriptor)
    path.unlink(missing_ok=True)
    return Position(found[1].decode(), int(found[2])) if found else None
