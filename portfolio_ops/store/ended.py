"""Timelines that ended by another's doing, until a person has seen to it: one small file in the site's state."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from portfolio_ops.host.files import write_atomically
from portfolio_ops.moment import exact

_NAME = "timelines-ended.json"
_MOST = 20
_OF_ONE = timedelta(minutes=1)
"""What ends so soon after another is a part of the same: a file is replaced, then its WAL, then the site starts."""


@dataclass(frozen=True)
class Ended:
    """How one ended.

    Attributes:
        at: When that was found, with a zone.
        why: In words.
    """

    at: datetime
    why: str


def note(state: Path, ended: Ended) -> None:
    """Note one, durably; not what comes of the one before it, and no more than a person can look at.

    Raises:
        OSError: It cannot be written.
    """
    before = noted(state)
    if len(before) < _MOST and not any(ended.at - each.at < _OF_ONE for each in before):
        document = [[exact(each.at), each.why] for each in (*before, ended)]
        write_atomically(state / _NAME, json.dumps(document).encode())


def noted(state: Path) -> list[Ended]:
    """What waits for a person, the first one first; nothing where the file is damaged (it is only memory)."""
    try:
        document = json.loads((state / _NAME).read_bytes())
        # To the host's own zone, so that one which that cannot tell is found out here.
        return [Ended(datetime.fromisoformat(at).astimezone(), str(why)) for at, why in document]
    except (OSError, ValueError, TypeError, OverflowError):
        return []


def accept(state: Path) -> None:
    """Forget all, for a person has seen to it.

    Raises:
        OSError: They cannot be forgotten.
    """
    (state / _NAME).unlink(missing_ok=True)
