"""The units as text: what all jobs share is the same in all, and what they promise adds up."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from portfolio_ops.errors import ExitCode
from portfolio_ops.host import timers
from portfolio_ops.jobs import following
from portfolio_ops.jobs.run import DRILL, JOBS
from portfolio_ops.setting import parse_duration

SYSTEMD = Path(__file__).parents[2] / "systemd"
JOB_UNITS = ("portfolio-backup-daily@", "portfolio-backup-social@", "portfolio-logs-rotate@")
SANDBOXED = (
    *JOB_UNITS,
    *(
        f"portfolio-{name}@"
        for name in ("archive", "check", "drill", "doctor", "gallery", "api", "alert", "ping", "well")
    ),
)


def settings(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def seconds(text: str) -> float:
    return parse_duration(text.replace("min", "m")).total_seconds()


@pytest.mark.parametrize("name", SANDBOXED)
def test_all_stand_in_the_same_sandbox(name: str) -> None:
    def sandbox(unit: str) -> list[str]:
        text = (SYSTEMD / f"{unit}.service").read_text().partition("# --- Sandbox.")[2].partition("[Install]")[0]
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    assert sandbox(name) == sandbox(SANDBOXED[0])
    assert len(sandbox(name)) > 25


@pytest.mark.parametrize("name", JOB_UNITS)
def test_a_job_that_fails_slowly_is_not_tried_for_ever(name: str) -> None:
    unit = settings(f"{name}.service")
    burst, interval = int(unit["StartLimitBurst"][0]), seconds(unit["StartLimitIntervalSec"][0])
    assert burst * (seconds(unit["TimeoutStartSec"][0]) + seconds(unit["RestartSec"][0])) < interval


def test_an_archive_that_crashes_in_a_loop_ends_in_an_alert() -> None:
    unit = settings("portfolio-archive@.service")
    burst, interval = int(unit["StartLimitBurst"][0]), seconds(unit["StartLimitIntervalSec"][0])
    slowest = max(
        seconds(unit["TimeoutStartSec"][0]) + seconds(unit["TimeoutStopSec"][0]), seconds(unit["WatchdogSec"][0])
    )
    assert burst * (slowest + seconds(unit["RestartSec"][0])) < interval
    assert unit["OnFailure"] == ["portfolio-alert@%n.service"]


def test_the_archive_reports_three_times_before_the_watchdog_bites() -> None:
    assert seconds(settings("portfolio-archive@.service")["WatchdogSec"][0]) >= 3 * following.ALIVE


@pytest.mark.parametrize("name", [*JOB_UNITS, "portfolio-archive@"])
def test_only_what_may_heal_is_tried_again(name: str) -> None:
    codes = {int(code) for code in settings(f"{name}.service")["RestartPreventExitStatus"][0].split()}
    assert codes == {ExitCode.USAGE, ExitCode.NOT_PERMITTED, ExitCode.REFUSED}


@pytest.mark.parametrize(
    "job", [job for job in (*JOBS, DRILL) if job.overdue_after is not None], ids=lambda job: job.name
)
def test_a_day_that_the_calendar_skips_is_made_up_for_before_the_job_is_late(job: object) -> None:
    name, overdue = job.name, job.overdue_after  # type: ignore[attr-defined]
    timer = settings(f"portfolio-{name}@.timer")
    spare = seconds(timer["OnUnitInactiveSec"][0])
    period = timedelta(days=7 if timer["OnCalendar"][0].startswith("Sun") else 1).total_seconds()
    delay = seconds(timer["RandomizedDelaySec"][0])
    assert period + 3600 + delay < spare  # not on an ordinary day, nor on the one of 25 hours
    assert spare + delay < overdue.total_seconds()
    assert timer["Persistent"] == ["yes"]


def test_every_timer_that_status_asks_for_is_there() -> None:
    assert {f"portfolio-{job}@.timer" for job in timers.TIMERS} == {path.name for path in SYSTEMD.glob("*.timer")}


def test_every_directive_that_relaxes_the_sandbox_has_its_reason() -> None:
    lines = (SYSTEMD / "portfolio-logs-rotate@.service").read_text().splitlines()
    assert lines[lines.index("PrivateUsers=no") - 1].startswith("# ")
    for path in SYSTEMD.glob("*.service"):
        assert not re.search(
            r"^(ReadWritePaths|BindPaths|User=(?!portfolio-alert$))", path.read_text(), re.MULTILINE
        ), path
