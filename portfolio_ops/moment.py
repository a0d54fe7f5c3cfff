"""A moment as a person writes it, and as it was understood.

What the host's clock shows is not always one moment: when summer time ends an hour comes twice, when it begins one is
left out. Such times are refused and never guessed, for a restore is to go back to what was meant.
"""

import re
from datetime import UTC, date, datetime, timedelta, tzinfo

from portfolio_ops.errors import UsageError
from portfolio_ops.setting import parse_duration

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
"""Moments are kept as whole numbers of these since then: floats would not give each of them back."""

EXAMPLES = "'2025-10-14 14:30', 2025-10-14T12:30:00Z, '2h ago', 'today 10:20', 'yesterday 04:00' or @1760445000"

_CLOCK = r"(?P<clock>\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)"
_OFFSET = r"(?P<offset>[Zz]|[+-]\d{2}:\d{2})"
_DATED = re.compile(rf"(?P<date>\d{{4}}-\d{{2}}-\d{{2}})([Tt ]{_CLOCK}{_OFFSET}?)?", re.ASCII)
_NAMED = re.compile(rf"(?P<day>today|yesterday) {_CLOCK}", re.ASCII)
_UNIX = re.compile(r"@(\d{1,12})", re.ASCII)


def parse_moment(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """A moment that a person wrote, in UTC.

    That is: RFC 3339 (`2025-10-14T12:30:00Z`); date and time of the local clock, or a date alone for its midnight; how
    long ago (`2h ago`, `3d 2h`); `yesterday 04:00`, `today 04:00`; `now`; `@` and the seconds since 1970.

    Args:
        now: The present, with a zone.
        zone: Of the local clock; None for the host's.

    Raises:
        UsageError: It is none of these, or a local time that summer time left out, or that came twice.
    """
    words = text.strip()
    try:
        return _parsed(words, now, zone).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no time", suggestion=f"write {EXAMPLES}") from error


def describe_moment(moment: datetime) -> str:
    """A moment as it was understood: by the host's clock with its offset, and in UTC. Either can be typed again."""
    return f"{_written(moment.astimezone()).replace('T', ' ')} ({exact(moment)})"


def local(moment: datetime) -> str:
    """A moment for people: as the host's clock shows it, with its zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def exact(moment: datetime) -> str:
    """A moment in UTC that `parse_moment` reads back to the microsecond."""
    return _written(moment.astimezone(UTC)).replace("+00:00", "Z")


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds")


def _parsed(words: str, now: datetime, zone: tzinfo | None) -> datetime:
    """As `parse_moment`, in any zone; what is no moment is a ValueError or an OverflowError."""
    if words == "now":
        return now
    if found := _UNIX.fullmatch(words):
        return datetime.fromtimestamp(int(found[1]), UTC)
    if found := _NAMED.fullmatch(words):
        day = now.astimezone(zone).date() - timedelta(days=found["day"] == "yesterday")
        return _local(day, found["clock"], zone)
    if found := _DATED.fullmatch(words):
        if found["offset"]:
            return datetime.fromisoformat(words.upper())
        return _local(date.fromisoformat(found["date"]), found["clock"] or "00:00", zone)
    return now - parse_duration(words.removesuffix(" ago"))


def _local(day: date, clock: str, zone: tzinfo | None) -> datetime:
    """The one moment at which the local clock shows this.

    Raises:
        UsageError: There are two, or none.
    """
    shown = datetime.fromisoformat(f"{day}T{clock}")
    first, second = sorted(shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first == second:
        return first
    one, two = (each.astimezone(zone).isoformat(" ") for each in (first, second))
    came = "came twice" if first.astimezone(zone).replace(tzinfo=None, fold=0) == shown else "was left out"
    raise UsageError(
        f"{shown} {came} on the local clock: {one} or {two} may be meant",
        suggestion=f"give the offset from UTC: '{one}' or '{two}'",
    )


def utc(moment: datetime) -> str:
    """A moment for programs: RFC 3339, UTC."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
