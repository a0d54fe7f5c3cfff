"""That a timeline ended by another's doing, until a person has seen to it: one small file in the site's state."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from portfolio_ops.host.files import write_atomically

_NAME = "timeline-ended.json"


@dataclass(frozen=True)
class Ended:
    """How it ended.

    Attributes:
        at: When that was found, UTC, RFC 3339.
        last: The last moment before that can be restored, the same; empty where there is none any more.
        why: In words.
    """

    at: str
    last: str
    why: str


def note(state: Path, ended: Ended) -> None:
    """Note it, durably. While nobody has seen to one, others come of it, and are not noted.

    Raises:
        OSError: It cannot be written.
    """
    if noted(state) is None:
        write_atomically(state / _NAME, json.dumps(asdict(ended)).encode())


def noted(state: Path) -> Ended | None:
    """What waits for a person; None where nothing does, or where the file is damaged (it is only memory)."""
    try:
        return Ended(**json.loads((state / _NAME).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def accept(state: Path) -> bool:
    """Forget it, for a person has seen to it; gives whether there was anything.

    Raises:
        OSError: It cannot be removed.
    """
    try:
        (state / _NAME).unlink()
    except FileNotFoundError:
        return False
    return True
