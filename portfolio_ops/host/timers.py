"""What systemd knows of a site's timers and of its archive, each in one call of `systemctl show`."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

TIMERS = ("backup-daily", "backup-social", "logs-rotate", "check", "drill")
"""The jobs that timers start, `portfolio-<job>@<site>.timer`."""

_PROPERTIES = "Id,LoadState,ActiveState,NextElapseUSecRealtime,LastTriggerUSec,Result"
_RUNS_HERE = Path("/run/systemd/system")  # sd_booted(3)
_TIMEOUT = 10


@dataclass(frozen=True)
class TimerState:
    """A timer as systemd sees it now.

    Attributes:
        next: When it will elapse by the calendar; None where it is not scheduled.
        last: When it last elapsed; None if never.
        active: Whether it is running.
        result: Of the timer itself, `success` if all is well.
    """

    next: datetime | None
    last: datetime | None
    active: bool
    result: str


def timer_states(site: str) -> dict[str, TimerState] | None:
    """The states of a site's timers by job; jobs whose timer is not installed are left out.

    Returns:
        None where no systemd runs, or where it does not answer.
    """
    shown = _shown(_PROPERTIES, *(f"portfolio-{job}@{site}.timer" for job in TIMERS))
    return None if shown is None else parse(shown)


@dataclass(frozen=True)
class ServiceState:
    """A service that runs always, as systemd sees it now.

    Attributes:
        enabled: Whether it starts with the host.
        active: `active` while it runs, or what it does instead, in systemd's word.
        said: What it said last of itself (`STATUS=`).
    """

    enabled: bool
    active: str
    said: str


def service_state(unit: str) -> ServiceState | None:
    """The state of a service; None where it is not installed, where no systemd runs, or where it does not answer."""
    return service_states(unit).get(unit)


def service_states(*units: str) -> dict[str, ServiceState]:
    """The states of those that are installed, asked for in one call; of sockets and paths as well."""
    shown = _shown("Id,LoadState,ActiveState,UnitFileState,StatusText", *units)
    return {
        values["Id"]: ServiceState(
            values.get("UnitFileState") == "enabled", values.get("ActiveState", ""), values.get("StatusText", "")
        )
        for values in _loaded(shown or "")
    }


def archive_is_off(site: str) -> bool:
    """Whether somebody turned the archive of a site off: its unit is installed and at rest, and no boot starts it."""
    state = service_state(f"portfolio-archive@{site}.service")
    return state is not None and not state.enabled and state.active == "inactive"


def status_text(unit: str) -> str:
    """What a unit said last of itself (`STATUS=`); empty where it said nothing, or where no systemd answers."""
    return (_shown("StatusText", unit) or "").removeprefix("StatusText=").strip()


def _shown(properties: str, *units: str) -> str | None:
    """What `systemctl show` says; None where no systemd runs, or where it does not answer."""
    if not _RUNS_HERE.is_dir():
        return None
    try:
        done = subprocess.run(  # noqa: S603  (an argument list)
            ["systemctl", "show", f"--property={properties}", "--", *units],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=True,
            # systemctl writes times in its own zone and language, whatever --timestamp= says (252 and 257).
            env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def parse(text: str) -> dict[str, TimerState]:
    """The blocks of `systemctl show`, one a unit, with times in UTC."""
    states = {}
    for values in _loaded(text):
        job = values["Id"].removeprefix("portfolio-").partition("@")[0]
        states[job] = TimerState(
            _moment(values.get("NextElapseUSecRealtime", "")),
            _moment(values.get("LastTriggerUSec", "")),
            values.get("ActiveState") == "active",
            values.get("Result", ""),
        )
    return states


def _loaded(text: str) -> Iterator[dict[str, str]]:
    """What `systemctl show` says of each unit that is installed."""
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("LoadState") == "loaded":
            yield values


def _moment(value: str) -> datetime | None:
    """`Tue 2026-11-24 01:03:46 UTC` as a moment; systemd writes nothing or `n/a` for never."""
    try:
        return datetime.strptime(value, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    except ValueError:
        return None
