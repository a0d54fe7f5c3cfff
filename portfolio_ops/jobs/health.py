"""How every job of a site is doing: what `status` shows and the hourly check judges."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import BusyError, PortfolioOpsError
from portfolio_ops.host import messages
from portfolio_ops.host.files import free_bytes, name_below, nearest, remove_temporaries, reserve_bytes, temporaries
from portfolio_ops.host.holders import holders_of_removed, rescue
from portfolio_ops.host.journal import Log
from portfolio_ops.host.timers import TimerState, service_states, timer_states
from portfolio_ops.jobs import archive_health, pruning
from portfolio_ops.jobs.archive_health import ArchiveHealth
from portfolio_ops.jobs.drill_report import Report, last_report
from portfolio_ops.jobs.run import BASE, DRILL, JOBS, ROTATE, Job, Watched
from portfolio_ops.logs import holes
from portfolio_ops.moment import local
from portfolio_ops.mount import read_only
from portfolio_ops.restore import record
from portfolio_ops.setting import format_duration
from portfolio_ops.sqlite import removed
from portfolio_ops.sqlite.place import located, require_the_sites
from portfolio_ops.store import catalogue, lock, others, requests, runs, timeline, verified
from portfolio_ops.store.artifact import Kind
from portfolio_ops.store.catalogue import Problem
from portfolio_ops.store.retention import limit_of

OK, RUNNING, WAITING, LATE, FAILED, NEVER = "ok", "running", "waiting", "late", "failed", "never"
"""A job's states. `waiting`: it has never run, and its timer will start it; or a timeline's base is still to be made.
The last three are findings.
"""

_HEALTH_SECONDS = 5.0
_WRITTEN_WITHIN = 3600.0  # seconds in which a small file is surely written; a larger one has a run's lock
_BASE_TRIED = timedelta(minutes=30)
"""For so long a timeline may have no base: it is tried every ten minutes, and the archive's stop ends a try as well."""

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

    job: Watched
    state: str
    why: str
    success: datetime | None
    timer: TimerState | None
    count: int
    bytes: int
    retention: str


@dataclass(frozen=True)
class Health:
    """A whole site.

    Attributes:
        backups: The folder of the artifacts.
        problems: What lies among them and is none of the site's.
        drill: The latest one.
        archive: None where nothing was ever archived.
        unfinished: What waits for a person, in words: a filesystem that is read-only, a database or a log that is gone,
            a log with a hole, a database that is root's, an interrupted restore, bad artifacts, what could not be
            pruned, a timeline that ended by another's doing, a sick backend.
        free, reserve: Bytes on the disk of the backups, and those of them that are left to the site.
        cure: What makes room, in words, where it has come to the reserve and something may go.
    """

    jobs: tuple[JobHealth, ...]
    backups: Path
    problems: tuple[Problem, ...]
    drill: Report | None
    archive: ArchiveHealth | None
    unfinished: tuple[str, ...]
    free: int
    reserve: int
    cure: str

    @property
    def findings(self) -> list[str]:
        """What needs a person, in words; empty if all is well."""
        words = [f"{health.job.name}: {health.why}" for health in self.jobs if health.state in FINDINGS]
        words += others.told(self.backups, self.problems)
        words += self.unfinished
        if self.archive is not None and self.archive.finding:
            words.append(self.archive.finding)
        if self.free < self.reserve:
            room = f"only {self.free:,} bytes are free on the disk of the backups, the reserve is {self.reserve:,}"
            words.append(f"{room}: {self.cure}" if self.cure else room)
        return words


def assess(site: Site, now: datetime, *, ask_backend: bool = True) -> Health:
    """Look at artifacts, run records, locks, timers and the disk; ask the backend how it is. Changes nothing."""
    found = catalogue.scan(site.backups, site.name)
    timers = timer_states(site.name) or {}
    place = nearest(site.backups)
    archive = archive_health.assess(site, found, now)
    free, reserve = free_bytes(place), reserve_bytes(place)
    return Health(
        (
            *(_job_health(site, job, found, timers.get(job.name), now) for job in JOBS if job is not BASE),
            *_base_health(site, found, archive, now),
            _drill_health(site, found, timers.get(DRILL.name), now),
        ),
        site.backups,
        found.problems,
        last_report(site),
        archive,
        (
            *_read_only(site),
            *_no_backups(site, timers),
            *_lost_database(site, found),
            *_logs(site, found),
            *_unfinished_restore(site),
            *_bad_artifacts(site),
            *pruning.failing(site.state),
            *archive_health.endings(site),
            *_resting(site, archive),
            *(sick_backend(site) if ask_backend else ()),
        ),
        free,
        reserve,
        pruning.cure_of_no_room(site, found, now) if free < reserve else "",
    )


def _job_health(site: Site, job: Job, found: catalogue.Catalogue, timer: TimerState | None, now: datetime) -> JobHealth:
    artifacts = found.of(job.kind)
    record = runs.read(site.state, job.name)
    moments = [artifact.taken for artifact in artifacts if artifact.taken <= now and not artifact.put_away]
    # A rotation may succeed with nothing to do. Any other success is an artifact, and counts as long as that is there.
    if job.kind is Kind.LOGS and record is not None and record.success is not None:
        moments.append(datetime.fromisoformat(record.success.ended))
    success = max(moments, default=None)
    state, why = _judged(job, record, success, timer, now)
    if state == RUNNING and not lock.is_held(site.state, job.kind.value):
        state, why = FAILED, "the last run ended without a word: killed, or a power cut"
    limit = format_duration(limit_of(site.retention, job.kind))
    return JobHealth(job, state, why, success, timer, len(artifacts), sum(each.bytes for each in artifacts), limit)


def _base_health(
    site: Site, found: catalogue.Catalogue, archive: ArchiveHealth | None, now: datetime
) -> Iterator[JobHealth]:
    """The bases, where the archive needs any. They are judged by what they are for: whether moments can be restored.

    A try that failed is no finding by itself: it is tried again, and any other whole backup serves as well. But however
    often it is tried, and whether that is recorded or not, a timeline to which nothing leads for long is one.
    """
    health = _job_health(site, BASE, found, None, now)
    since = None if archive is None or archive.off else archive.baseless
    if since is None:
        if health.count:
            yield replace(health, state=OK, why="") if health.state == FAILED else health
        return
    record = runs.read(site.state, BASE.name)
    failure = None if record is None else record.unmended
    if now - since < _BASE_TRIED:
        yield replace(health, state=RUNNING if health.state == RUNNING else WAITING, why="")
    elif health.state == RUNNING and failure is None:
        yield health
    else:
        reason = health.why or ("there is none" if failure is None else f"the last run failed: {failure.message}")
        yield replace(
            health,
            state=FAILED,
            why=f"no moment since {local(since)} can be restored: {reason}"
            f" (`{tool()} backup daily` makes a base as well, or says what to do)",
        )


def _drill_health(site: Site, found: catalogue.Catalogue, timer: TimerState | None, now: datetime) -> JobHealth:
    """The rehearsals. Where none was ever made, one is due when the oldest backup is as old as a drill may be."""
    record = runs.read(site.state, DRILL.name)
    success = None if record is None or record.success is None else datetime.fromisoformat(record.success.ended)
    since = success or min((artifact.taken for artifact in found.artifacts), default=now)
    state, why = _judged(DRILL, record, since, timer, now)
    if state == RUNNING and not lock.is_held(site.state, DRILL.name):
        state, why = FAILED, "the last drill ended without a word: killed, or a power cut"
    elif state == LATE and success is None:
        why = f"there was never a drill that passed; rehearse one: {tool()} drill"
    elif state == OK and success is None:
        state = WAITING
    return JobHealth(DRILL, state, why, success, timer, 0, 0, "")


def _unfinished_restore(site: Site) -> list[str]:
    try:
        found = record.read(site.state)
    except ValueError as error:
        return [str(error)]
    if found is None or found.state != record.OPEN or lock.is_held(site.state, lock.RESTORE):
        return []
    return [f"the restore of {found.artifact} was interrupted; `{tool()} restore undo` brings it to its end"]


def _bad_artifacts(site: Site) -> list[str]:
    files = verified.quarantined(site.backups)
    if not files:
        return []
    return [f"{len(files)} bad artifacts lie in {files[0].parent}: look at them, then delete them"]


def _read_only(site: Site) -> list[str]:
    """Whether no backup can be written, nor that one has failed: then nothing else tells before one is late."""
    mount = read_only(site.backups)
    return [] if mount is None else [f"{mount.text}; {mount.cure}"]


def _no_backups(site: Site, timers: Mapping[str, TimerState]) -> list[str]:
    """Whether the folder of backups is there, where units are: without it systemd starts none of them."""
    if not timers or site.backups.is_dir():
        return []
    return [f"there is no folder {site.backups}, and no unit starts without it: deploy again, if it was removed"]


def _lost_database(site: Site, found: catalogue.Catalogue) -> list[str]:
    """Whether the database has lost its name, or its owner; a site of which there is no backup may have none yet."""
    try:
        path = located(site.database)
        require_the_sites(path)
    except PortfolioOpsError as error:
        return [f"{error.message}: {error.suggestion}"]
    lost = removed.look(path, but=lock.holder_of(site.state, lock.ARCHIVING))
    if lost is not None:
        return [f"{lost.text}; {lost.cure}"]
    if path.exists() or catalogue.newest_database(found) is None:
        return []
    unknown = f"the site may have it open still: before you stop that, `{tool()} doctor`, as root, tells"
    return [f"there is no database at {path}; {unknown}"]


def _logs(site: Site, found: catalogue.Catalogue) -> list[str]:
    """Whether a log is not there, or has a hole.

    One that was never rotated the site may not have begun yet, until a rotation has come; and where no log is named in
    the site's file, it may have none.
    """
    archived = {artifact.metadata.details.get("log") for artifact in found.of(Kind.LOGS)}
    named = any(setting.key == "logs.files" and setting.origin != "default" for setting in site.settings)
    record = runs.read(site.state, ROTATE.name)
    words = []
    for log in site.logs:
        if os.path.lexists(log):
            if torn := holes.look(site, log):
                words.append("; ".join(holes.told(log, torn)))
            continue
        if name_below(log, site.root) not in archived:
            if named and record is not None and record.success is not None:
                cure = f"see why the site does not write it, or correct [logs] files in {site.file}"
                words.append(f"there is no log {log}, and no archive of it: {cure}")
            continue
        who = holders_of_removed(log)
        if who:
            holder, opened = who[0]
            rescued = rescue(Path("/dev/fd/7"), f"{log}.rescued")
            hold = f"in a shell of root's: exec 7<{opened}; then restart the site; then in the same shell: {rescued}"
            words.append(f"{log} was removed, and {holder} has it open still; {hold}")
        else:
            words.append(f"the log {log} is not there any more: the site has not written it, or it was moved")
    return words


def _resting(site: Site, archive: ArchiveHealth | None) -> list[str]:
    """The units that were turned on and do not run: for who asks for backups; an archive that has nothing."""
    units = [f"portfolio-gallery@{site.name}.path", f"portfolio-api@{site.name}.socket"]
    if archive is None:
        units.append(f"portfolio-archive@{site.name}.service")
    return [
        f"{unit} does not run ({state.active}): systemctl reset-failed {unit}; systemctl start {unit}"
        for unit, state in service_states(*units).items()
        if state.enabled and state.active not in {"active", "activating"}
    ]


def sick_backend(site: Site) -> list[str]:
    """Whether the backend's health URL answers. What a backup holds is of no use to a site that is down."""
    if not site.backend.health:
        return []
    from portfolio_ops.host.http import HttpError, get  # noqa: PLC0415  (urllib takes longer to load than all else here)

    try:
        get(site.backend.health, _HEALTH_SECONDS)
    except HttpError as error:
        return [f"the backend is not well: {site.backend.health}: {error}"]
    return []


def _judged(
    job: Watched, record: runs.Record | None, success: datetime | None, timer: TimerState | None, now: datetime
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
        never = "there is none" if record is not None else "it has never run"
        return (WAITING, "") if expected else (NEVER, f"{never}, and no timer will start it")
    if now - success <= job.overdue_after:
        return OK, ""
    hours = int((now - success).total_seconds() // 3600)
    return LATE, f"the last success is {hours} h ago, the limit is {int(job.overdue_after.total_seconds() // 3600)} h"


def check(site: Site, health: Health) -> None:
    """Put the verdict into the journal: every time while something is wrong, once when it is well again.

    And remove what runs have left unfinished; afterwards, so that what cannot be removed keeps nobody from the verdict.

    Raises:
        OSError: The verdict cannot be remembered; or something unfinished cannot be removed.
    """
    log = Log(site=site.name, job="check")
    before, findings = runs.read(site.state, "check"), "; ".join(health.findings)
    # Told first: what is found may be the reason why nothing can be written.
    if findings:
        log.event(messages.CHECK_FAILED, f"The check found: {findings}", findings=len(health.findings))
    elif before is not None and before.latest.state == runs.FAILED:
        log.event(messages.CHECK_RECOVERED, f"All is well again; it was: {before.latest.message}")
    site.state.mkdir(mode=0o750, parents=True, exist_ok=True)
    runs.begin(site.state, "check")
    runs.finish(site.state, "check", succeeded=not findings, message=findings)
    _sweep(site)


def _sweep(site: Site) -> None:
    """Remove what runs that ended have left unfinished, of which the next of the job may be a week away, or never come.

    In the state nobody has a lock for all that is written there, so age alone tells. Of a job's folder what is old may
    still be of a run that goes on. Only where something lies its lock is asked for: not everybody waits for one.
    """
    for folder in (site.state, *requests.folders(site.state)):
        remove_temporaries(folder, older_than=_WRITTEN_WITHIN)
    for job in JOBS:
        for folder in _folders(site, job):
            # Somebody writes there, or the folder of a timeline went when it was empty.
            with contextlib.suppress(BusyError, FileNotFoundError):
                if temporaries(folder, older_than=_WRITTEN_WITHIN):
                    with lock.held(site.state, job.kind.value, wait=timedelta(), on_wait=lambda _: None):
                        remove_temporaries(folder, older_than=_WRITTEN_WITHIN)


def _folders(site: Site, job: Job) -> list[Path]:
    """Where a job writes; beside the bases, the archive has a folder for each timeline."""
    folder = site.backups / job.kind.folder
    timelines = [timeline.folder_of(site.backups, name) for name in timeline.ids(site.backups)] if job is BASE else []
    return [folder, *timelines] if folder.is_dir() else []
