"""What must be there, in plain words and numbers: the model that the product is held against.

It knows the documentation, and no line of the product.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.integration.model.writer import State

DAY = timedelta(days=1)
LIMITS = {"daily": 2 * DAY, "social": 3 * DAY, "event-triggered": 2 * DAY, "logs-archive": DAY, "wal": 10 * DAY}
"""How long what lies in each folder is kept; as `place.py` configures it."""

MINIMUM = 2
WHOLE = frozenset({"daily", "event-triggered", "wal"})
"""The folders of whole databases."""

_SECONDS_KEPT, _MINUTES_KEPT = DAY, 7 * DAY
_SLACK = timedelta(minutes=5)


@dataclass(frozen=True)
class Kept:
    """An artifact.

    Attributes:
        folder: Which tells its kind.
        put_away: Whether a restore made it of what was there before: it stands in for its like only.
        digest: Of the file.
        holds: What it gives back: a database, some tables, or the bytes of a log.
    """

    name: str
    folder: str
    taken: datetime
    put_away: bool
    digest: str
    holds: State | bytes


@dataclass(frozen=True)
class Moment:
    """A second of the archive, and what the database held then."""

    at: datetime
    state: State


@dataclass
class Promise:
    """All that was promised up to now.

    Attributes:
        artifacts: By name.
        moments: In the order in which they came.
        written: All that the site ever wrote to its log.
        archived: All of it that ever went into archives, in the order in which these were made.
    """

    artifacts: dict[str, Kept] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    written: bytes = b""
    archived: list[tuple[str, bytes]] = field(default_factory=list)

    def of(self, *folders: str) -> list[Kept]:
        """The artifacts in some folders."""
        return [each for each in self.artifacts.values() if each.folder in folders]

    def may_go(self, each: Kept, now: datetime) -> bool:
        """Whether retention permits that an artifact is gone: it is past its time, and enough newer ones stand in."""
        limit = LIMITS[each.folder]
        if now - each.taken <= limit:
            return False
        alike = WHOLE if each.folder in {"event-triggered", "wal"} else {each.folder}
        newer = [
            other
            for other in self.of(*alike)
            if each.taken < other.taken <= now + _SLACK and (each.put_away or not other.put_away)
        ]
        if each.folder == "wal":
            newer = [other for other in newer if now - other.taken > limit]
        return len(newer) >= (MINIMUM if each.folder == "daily" else 1)

    def is_leap(self, now: datetime) -> bool:
        """Whether nothing was made in the days before yesterday: the clock may be wrong then, and nothing need go."""
        before = [each.taken for each in self.artifacts.values() if each.taken < now - DAY]
        return bool(before) and now - max(before) > 8 * DAY

    def kept(self, now: datetime) -> list[Moment]:
        """The moments of the archive that must come back exactly: with time, the last of each minute, then hour."""
        return [
            each
            for each in self.moments
            if now - each.at <= _SECONDS_KEPT
            or (now - each.at <= _MINUTES_KEPT and self._is_last(each, _minute))
            or (now - each.at <= LIMITS["wal"] and self._is_last(each, _hour))
        ]

    def _is_last(self, moment: Moment, span: Callable[[datetime], datetime]) -> bool:
        return not any(moment.at < other.at and span(moment.at) == span(other.at) for other in self.moments)

    def remember(self, at: datetime, state: State) -> None:
        """A moment was archived."""
        self.moments = [each for each in self.moments if each.at != at]
        self.moments.append(Moment(at, state))

    def turned_back(self, now: datetime) -> None:
        """The clock went back: what is dated later may come twice, and neither is promised."""
        self.moments = [each for each in self.moments if each.at < now]

    @property
    def unarchived(self) -> bytes:
        """What must be in the live log still."""
        return self.written[sum(len(data) for _, data in self.archived) :]

    def shown(self) -> bytes:
        """What the log must read as: the archives that are there, then the rest."""
        there = [data for name, data in self.archived if name in self.artifacts]
        return b"".join(there) + self.unarchived


def digest_of(path: Path) -> str:
    """The hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def moment_of(text: str) -> datetime:
    """A moment as the product writes it."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
