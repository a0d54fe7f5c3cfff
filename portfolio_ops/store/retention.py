"""What is kept, and why. A pure function of the artifacts, the policy and the moment, so that years can be simulated.

An artifact is pruned only if all of this holds:

- it is older than its kind's limit, by its own time, never by the file's;
- newer verified artifacts stand in for it: `minimum` dailies for a daily, any database backup for an event backup or a
  base (for a base one that is past its time as well), one of the same log for a log archive, one export for an export;
- neither it nor those that stand in for it are dated in the future: a clock that was wrong protects nothing and
  endangers nothing;
- what a restore put away stands in for nothing but for its like;
- no moment of the archive that is kept begins with it. Such a moment needs a whole backup of before it that stands at a
  restore point of the same timeline; of those that are older than moments are kept, the newest is enough. One of each
  week stays, so that there is such a newest where dailies are kept for a shorter time than moments, and what lies
  before it can go. Where a file of the timeline cannot be read, all stay: which of them it needs is not known.

Every artifact was verified before it got its name, and a file that is no artifact counts for nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from portfolio_ops.config import Retention
from portfolio_ops.setting import format_duration
from portfolio_ops.store.artifact import CLOCK_SLACK, Artifact, Kind

_DAY, _LEAP = timedelta(days=1), timedelta(days=8)


@dataclass(frozen=True)
class Verdict:
    """Whether an artifact is kept, and the reason in words."""

    artifact: Artifact
    keep: bool
    reason: str


def limit_of(retention: Retention, kind: Kind) -> timedelta:
    """How long artifacts of `kind` are kept."""
    return {
        Kind.DAILY: retention.daily,
        Kind.SOCIAL: retention.social,
        Kind.EVENT: retention.event,
        Kind.LOGS: retention.logs,
        Kind.WAL: retention.wal,
    }[kind]


@dataclass(frozen=True)
class Ground:
    """That moments of the archive begin with an artifact, or may.

    Attributes:
        timeline: The name of theirs; names are in the order in which timelines were begun.
        doubtful: Whether that is not known, because a file cannot be read.
    """

    timeline: str
    doubtful: bool = False


def decide(
    artifacts: Iterable[Artifact], retention: Retention, now: datetime, grounds: Mapping[str, Ground] | None = None
) -> list[Verdict]:
    """A verdict for each artifact, in the order given.

    Args:
        artifacts: All of the site; event backups are judged against the dailies too.
        retention: The policy.
        now: The moment, with a zone.
        grounds: By ID, the artifacts with which moments of the archive begin.
    """
    everything = list(artifacts)
    present = [artifact for artifact in everything if artifact.taken <= now + CLOCK_SLACK]
    bases = _bases(present, retention, now, grounds or {})
    return [_verdict(artifact, present, retention, now, bases) for artifact in everything]


def clock_leapt(artifacts: Iterable[Artifact], now: datetime) -> timedelta | None:
    """For how long nothing was made until a day ago, if that is longer than a week: the clock may have leapt ahead.

    All that there is would seem to be past its limit. A clock that is right has passed a day later, and what was made
    by then tells.
    """
    last = max((each.taken for each in artifacts if each.taken < now - _DAY), default=now)
    return now - last if now - last > _LEAP else None


def _bases(
    present: Sequence[Artifact], retention: Retention, now: datetime, grounds: Mapping[str, Ground]
) -> frozenset[str]:
    """The IDs of those with which moments begin that are kept, or may.

    They are the newest that is past their time, and of each timeline the first, and the first of each week (ISO 8601).
    """

    def place(artifact: Artifact) -> tuple[str, datetime]:
        """By a clock that was ahead, a base of an earlier timeline can be dated later."""
        return grounds[artifact.id].timeline, artifact.taken

    doubtful = {identity for identity, ground in grounds.items() if ground.doubtful}
    known = [each for each in present if each.id in grounds and each.id not in doubtful and not each.put_away]
    known.sort(key=place)
    past = [each for each in known if now - each.taken > retention.wal][-1:]
    first: dict[tuple[str, int, int], Artifact] = {}
    for each in known:
        if not past or place(each) >= place(past[0]):
            week = each.taken.astimezone(UTC).isocalendar()
            first.setdefault((grounds[each.id].timeline, week.year, week.week), each)
    return frozenset(doubtful | {each.id for each in first.values()})


def _verdict(
    artifact: Artifact, present: Sequence[Artifact], retention: Retention, now: datetime, bases: frozenset[str]
) -> Verdict:
    kind = artifact.metadata.kind
    limit = limit_of(retention, kind)
    if artifact.taken > now + CLOCK_SLACK:
        return Verdict(artifact, keep=True, reason="dated in the future: kept, and protects nothing")
    if now - artifact.taken <= limit:
        return Verdict(artifact, keep=True, reason=f"younger than {format_duration(limit)}")
    needed = retention.minimum if kind is Kind.DAILY else 1
    newer = [other for other in present if other.taken > artifact.taken and _stands_in(other, artifact)]
    if kind is Kind.WAL:
        # Increments that are kept may begin with it: only another whole backup from before them stands in for it.
        newer = [other for other in newer if now - other.taken > limit]
    if len(newer) < needed:
        return Verdict(artifact, keep=True, reason=_too_few(len(newer), needed))
    if artifact.id in bases:
        return Verdict(artifact, keep=True, reason="past its limit, but moments of the archive begin with it")
    return Verdict(artifact, keep=False, reason=f"older than {format_duration(limit)}, {len(newer)} newer verified")


def _stands_in(newer: Artifact, older: Artifact) -> bool:
    """Whether `newer`, being newer, makes `older` dispensable once it is past its limit."""
    if newer.put_away and not older.put_away:
        return False
    if older.metadata.kind in {Kind.EVENT, Kind.WAL}:
        return newer.metadata.kind.holds_database
    if newer.metadata.kind is not older.metadata.kind:
        return False
    return older.metadata.kind is not Kind.LOGS or newer.metadata.details.get("log") == older.metadata.details.get(
        "log"
    )


def _too_few(newer: int, needed: int) -> str:
    if needed == 1:
        return "past its limit, but nothing newer is verified"
    return f"past its limit, but one of the {needed} newest (minimum = {needed}); {newer} newer verified"
