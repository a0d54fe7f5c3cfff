"""How every job of a site is doing: what `status` shows and the hourly check judges."""

from dataclasses import dataclass
from datetime import datetime

from portfolio_ops.config import Site, format_duration
from portfolio_ops.host import messages
from portfolio_ops.host.files import free_bytes, reserve_bytes
from portfolio_ops.host.journal import Log
from portfolio_ops.host.timers import TimerState, timer_states
from portfolio_ops.jobs.run import JOBS, Job
from portfolio_ops.store import catalogue, lock, runs
from portfolio_ops.store.catalogue import Problem
from portfolio_ops.store.retention import limit_of

OK, RUNNING, WAITING, LATE, FAILED, NEVER = "ok", "running", "waiting", "late", "failed", "never"
"""A job's states. `waiting`: it has never run, and its timer will start it. The last three are findings."""

FINDINGS = frozenset({LATE, FAILED, NEVER})


@dataclass(frozen=True)
class JobHealth:
    """One job.

    Attributes:
        why: For a finding, what is wrong.
        success: When it last succeeded.
        timer: What systemd knows; None where no systemd runs or the timer is not installed.
        count: Artifacts of its kind.
        bytes: Their size together.
        retention: How long they are kept, as in the configuration.
    """

    job: Job
    state: str
    why: str
    success: datetime | None
    timer: TimerState | None
    count: int
    bytes: int
    retention: str


@dataclass(frozen=True)
class Health:
    """A whole site: its jobs, what lies among the artifacts that is none, and the room on the disk."""

    jobs: tuple[JobHealth, ...]
    problems: tuple[Problem, ...]
    free: int
    reserve: int

    @property
    def findings(self) -> list[str]:
        """What needs a person, in words; empty if all is well."""
        words = [f"{health.job.name}: {health.why}" for health in self.jobs if health.state in FINDINGS]
        words += [f"not an artifact: {problem.reason}" for problem in self.problems]
        if self.free < self.reserve:
            words.append(
                f"only {self.free:,} bytes are free on the disk of the backups, the reserve is {self.reserve:,}"
            )
        return words


def assess(site: Site, now: datetime) -> Health:
    """Look at artifacts, run records, locks, timers and the disk. Changes nothing."""
    found = catalogue.scan(site.backups, site.name)
    timers = timer_states(site.name) or {}
    place = site.backups if site.backups.is_dir() else site.root
    return Health(
        tuple(_job_health(site, job, found, timers.get(job.name), now) for job in JOBS),
        found.problems,
        free_bytes(place),
        reserve_bytes(place),
    )


def _job_health(site: Site, job: Job, found: catalogue.Catalogue, timer: TimerState | None, now: datetime) -> JobHealth:
    artifacts = found.of(job.kind)
    record = runs.read(site.state, job.name)
    moments = [artifact.taken for artifact in artifacts if artifact.taken <= now]
    if record is not None and record.success is not None:
        moments.append(datetime.fromisoformat(record.success.ended))
    success = max(moments, default=None)
    state, why = _judged(job, record, success, timer, now)
    if state == RUNNING and not lock.is_held(site.state, job.kind.value):
        state, why = FAILED, "the last run ended without a word: killed, or a power cut"
    limit = format_duration(limit_of(site.retention, job.kind))
    return JobHealth(job, state, why, success, timer, len(artifacts), sum(each.bytes for each in artifacts), limit)


def _judged(
    job: Job, record: runs.Record | None, success: datetime | None, timer: TimerState | None, now: datetime
) -> tuple[str, str]:
    """A job's state, and why for a finding."""
    if record is not None and record.latest.state == runs.RUNNING:
        return RUNNING, ""
    if record is not None and record.latest.state != runs.SUCCEEDED:
        return FAILED, f"the last run failed: {record.latest.message}"
    if job.overdue_after is None:
        return OK, ""
    if success is None:
        expected = timer is not None and timer.active and timer.next is not None
        return (WAITING, "") if expected else (NEVER, "it has never run, and no timer will start it")
    if now - success <= job.overdue_after:
        return OK, ""
    hours = int((now - success).total_seconds() // 3600)
    return LATE, f"the last success is {hours} h ago, the limit is {int(job.overdue_after.total_seconds() // 3600)} h"


def check(site: Site, health: Health) -> None:
    """Put the verdict into the journal: every time while something is wrong, once when it is well again."""
    log = Log(site=site.name, job="check")
    site.state.mkdir(mode=0o750, parents=True, exist_ok=True)
    before = runs.read(site.state, "check")
    runs.begin(site.state, "check")
    findings = "; ".join(health.findings)
    runs.finish(site.state, "check", succeeded=not findings, message=findings)
    if findings:
        log.event(messages.CHECK_FAILED, f"The check found: {findings}", findings=len(health.findings))
    elif before is not None and before.latest.state == runs.FAILED:
        log.event(messages.CHECK_RECOVERED, f"All is well again; it was: {before.latest.message}")
