"""What a setting may be: each check gives the value as it is used, or raises ValueError with what it must be."""

import re
from datetime import timedelta
from typing import Any

_DURATION = re.compile(r"(\d+)([smhdw])")
_CREDENTIAL = re.compile(r"credential:[A-Za-z0-9_.-]+")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=36525)


def parse_duration(text: str) -> timedelta:
    """A duration such as `30d`, `12w`, `36h`, or several parts: `1w 3d`.

    Raises:
        ValueError: It is not of that form, is zero, or is longer than a century.
    """
    parts = text.split()
    matches = [_DURATION.fullmatch(part) for part in parts]
    if not parts or not all(matches):
        raise ValueError(f"{text!r} is not a duration; write a number and s, m, h, d or w, for example 30d")
    total = timedelta()
    for match in matches:
        if match is not None:
            if len(match[1]) > 10:  # noqa: PLR2004  (a century has ten digits of seconds; timedelta overflows later)
                raise ValueError(f"{text!r} is longer than a century")
            total += timedelta(**{_UNITS[match[2]]: int(match[1])})
    if not timedelta() < total <= _LONGEST:
        raise ValueError(f"{text!r} must be more than nothing and at most a century")
    return total


def format_duration(value: timedelta) -> str:
    """The shortest form that `parse_duration` reads back: `30d`, `12w`, `36h`."""
    seconds = int(value.total_seconds())
    for letter, length in (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0 and (letter != "w" or seconds > 30 * 86400):
            return f"{seconds // length}{letter}"
    return f"{seconds}s"


def text(value: Any) -> str:
    """Some text."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError('must be text, for example "data/portfolio.sqlite"')
    return value


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts, each once."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item and "\0" not in item for item in value):
        raise ValueError('must be a list of texts, for example ["logs/backend.log"]')
    if len(set(value)) != len(value):
        raise ValueError("names something twice")
    return tuple(value)


def duration(value: Any) -> str:
    """A duration, as it is written: `30d`."""
    if not isinstance(value, str):
        raise ValueError('must be a duration in quotes, for example "30d"')  # noqa: TRY004  (one error type for all faults)
    parse_duration(value)
    return value


def budget(value: Any) -> str:
    """A time in milliseconds, as it is written: `50ms`."""
    if not isinstance(value, str) or not re.fullmatch(r"[1-9]\d{0,3}ms", value):
        raise ValueError('must be milliseconds in quotes, for example "50ms"')
    return value


def count(value: Any) -> int:
    """A whole number from 1 to 1000."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1000:  # noqa: PLR2004
        raise ValueError("must be a whole number from 1 to 1000")
    return value


def argv(value: Any) -> tuple[str, ...]:
    """A program with its arguments."""
    words = value if isinstance(value, list) else []
    if not words or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise ValueError('must be a program and its arguments as a list, for example ["systemctl", "stop", "backend"]')
    return tuple(words)


def url(value: Any) -> str:
    """A URL of http or https."""
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^\s/]+\S*", value):
        raise ValueError('must be a URL, for example "http://127.0.0.1:3000/health"')
    return value


def address(value: Any) -> str:
    """One mail address."""
    if not isinstance(value, str) or not re.fullmatch(r"[^\s@,]+(@[^\s@,]+)?", value):
        raise ValueError('must be one mail address, for example "owner@example.org"')
    return value


def secret_url(value: Any) -> str:
    """A URL, or the name of a credential that holds one."""
    if isinstance(value, str) and _CREDENTIAL.fullmatch(value):
        return value
    try:
        return url(value)
    except ValueError as error:
        raise ValueError(f'{error}, or the name of a systemd credential: "credential:webhook"') from None


def credential(value: Any) -> str:
    """The name of a credential: nothing that anybody may read is a secret."""
    if not isinstance(value, str) or not _CREDENTIAL.fullmatch(value):
        raise ValueError(
            'must name a systemd credential, for example "credential:api-token": anybody may read this file'
        )
    return value
