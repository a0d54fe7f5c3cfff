"""What every job does around its work: lock, record, sweep, work, report, prune."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import NO_ROOM, NoRoomError, NotFoundError, PortfolioOpsError, RefusedError, foreseen
from portfolio_ops.host import messages
from portfolio_ops.host.files import remove_temporaries
from portfolio_ops.host.interrupted import interrupted_by
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import pruning
from portfolio_ops.moment import local
from portfolio_ops.restore import keeping
from portfolio_ops.store import catalogue, prune, retention, runs
from portfolio_ops.store.artifact import Artifact, Kind
from portfolio_ops.store.catalogue import Catalogue
from portfolio_ops.store.lock import held


@dataclass(frozen=True)
class Watched:
    """Something that runs by itself, and may be late.

    Attributes:
        name: In the journal and in units.
        overdue_after: Age of the last success beyond which it is late; None for one that runs on events.
    """

    name: str
    overdue_after: timedelta | None


@dataclass(frozen=True)
class Job(Watched):
    """One that makes artifacts, and prunes their kind. Its runs exclude each other by the lock of the kind's name."""

    kind: Kind


DAILY = Job("backup-daily", timedelta(hours=26), Kind.DAILY)
SOCIAL = Job("backup-social", timedelta(days=7, hours=6), Kind.SOCIAL)
GALLERY = Job("backup-gallery", None, Kind.EVENT)
ROTATE = Job("logs-rotate", timedelta(hours=26), Kind.LOGS)
BASE = Job(runs.BASE, None, Kind.WAL)
DRILL = Watched("drill", timedelta(days=7, hours=6))

JOBS = (DAILY, SOCIAL, GALLERY, ROTATE, BASE)


@dataclass(frozen=True)
class Task:
    """What a job's work gets: whose it is, where to publish, and where to say what happens."""

    site: Site
    job: Job
    folder: Path
    log: Log


@dataclass(frozen=True)
class Outcome:
    """What a run made and what it let go.

    Attributes:
        put_off: Whether nothing was let go because the clock may be wrong.
    """

    made: tuple[Artifact, ...]
    pruned: tuple[Artifact, ...]
    seconds: float
    put_off: bool = False


def run_job(site: Site, job: Job, work: Callable[[Task], list[Artifact]], *, wait: timedelta) -> Outcome:
    """Run `work` as the only run of `job`; prune its kind afterwards, and only if all went well.

    What cannot be pruned is told, and waits for the next success.

    Args:
        work: Returns what it published.
        wait: How long to wait for another run of the same job.

    Raises:
        PortfolioOpsError: As the work or the lock failed. Failures are recorded and in the journal.
    """
    log = Log(site=site.name, job=job.name)
    began = time.monotonic()
    try:
        task = Task(site, job, _prepared(site, job), log)
        with held(
            site.state,
            job.kind.value,
            wait=wait,
            on_wait=waiting(log, job.name),
        ):
            made = _recorded(task, work)
            pruned, put_off = _let_go(task)
    except Exception as error:
        if (failure := foreseen(error)) is None:
            raise
        if isinstance(failure, NoRoomError):
            failure.suggestion = _cure_of_no_room(site) or failure.suggestion
        _report(log, job, failure, time.monotonic() - began)
        raise failure from error
    return Outcome(tuple(made), tuple(pruned), time.monotonic() - began, put_off)


def waiting(log: Log, name: str) -> Callable[[str], object]:
    """What tells, where a lock is waited for, that this is so and who holds it."""
    return lambda holder: log.event(messages.JOB_WAITING, f"Waiting for another run of {name}: {holder}", holder=holder)


def _prepared(site: Site, job: Job) -> Path:
    """The job's folder; made if the site's root is there."""
    make_folders(site)
    folder = site.backups / job.kind.folder
    _make(folder)
    return folder


def make_folders(site: Site) -> None:
    """Make the folder of backups and that of the state, if the site's root is there.

    Raises:
        NotFoundError: It is not: an unmounted volume must not be filled behind its mount.
        RefusedError: Something else lies there.
    """
    if not site.root.is_dir():
        raise NotFoundError(f"the site's root {site.root} does not exist", suggestion="is the volume mounted?")
    _make(site.backups)
    _make(site.state)


def _make(path: Path) -> None:
    try:
        path.mkdir(mode=0o750, exist_ok=True)
    except FileExistsError as error:
        raise RefusedError(
            f"{path} should be a folder, and is none", suggestion="move it away; the next run makes the folder"
        ) from error


def _recorded(task: Task, work: Callable[[Task], list[Artifact]]) -> list[Artifact]:
    """Do the work between an opened and a closed record; the caller holds the job's lock."""
    died = runs.begin(task.site.state, task.job.name)
    if died is not None:
        began = local(datetime.fromisoformat(died.started))
        task.log.event(messages.RUN_DIED, f"The run of {task.job.name} that began {began} ended without a word")
    try:
        remove_temporaries(task.folder)
        made = work(task)
    except BaseException as error:
        known = foreseen(error) if isinstance(error, Exception) else None
        words = interrupted_by(error) or str(known or error) or type(error).__name__
        _remember(task, succeeded=False, message=words)
        raise
    _remember(task, succeeded=True, message=", ".join(artifact.path.name for artifact in made) or "nothing to do")
    return made


def _remember(task: Task, *, succeeded: bool, message: str) -> None:
    """Close the run's record. On a full disk it cannot be: the next run then says that this one died, no harm done."""
    try:
        runs.finish(task.site.state, task.job.name, succeeded=succeeded, message=message)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise


def _let_go(task: Task) -> tuple[list[Artifact], bool]:
    """Prune behind a success; gives what went, and whether nothing may because the clock may be wrong."""
    gone: list[Artifact] = []
    put_off = True  # until that is known
    with pruning.forgiven(task.site, task.job.name, task.log):
        found = catalogue.scan(task.site.backups, task.site.name)
        put_off = _is_put_off(found, task.log)
        if not put_off:
            gone = _pruned(task.site, task.job, found, task.log)
    return gone, put_off


def _is_put_off(found: Catalogue, log: Log) -> bool:
    """Whether the clock seems to have leapt ahead: then nothing is pruned before a day has passed."""
    leap = retention.clock_leapt(found.artifacts, datetime.now(UTC))
    if leap is None:
        return False
    log.event(
        messages.PRUNING_PUT_OFF,
        f"Nothing is pruned: nothing was made for {leap.days} days until a day ago. Is the clock right?",
        suggestion=f"if it is, the runs of tomorrow prune, or at once: {tool()} prune --yes",
    )
    return True


def _pruned(site: Site, job: Job, found: Catalogue, log: Log) -> list[Artifact]:
    """Let go what retention lets go of a job's kind; the caller holds its lock."""
    for problem in found.problems:
        if problem.path.parent.name == job.kind.folder and not problem.site:
            log.event(messages.ARTIFACT_PROBLEM, f"Not an artifact: {problem.reason}", file=problem.path.name)
    verdicts = keeping.verdicts(site, found.artifacts, datetime.now(UTC))
    gone: list[Artifact] = []
    for artifact in prune.carry_out([each for each in verdicts if each.artifact.metadata.kind is job.kind]):
        log.event(messages.PRUNED, f"Pruned {artifact.path.name}", artifact=artifact.path.name, bytes=artifact.bytes)
        gone.append(artifact)
    pruning.worked(site, job.name)
    return gone


def prune_kind(site: Site, job: Job, *, wait: timedelta) -> list[Artifact]:
    """Prune one kind by hand, under its lock.

    Raises:
        BusyError: A run of the job holds it for longer than `wait`.
        PortfolioOpsError: A file is no longer what was judged.
        OSError: A file cannot be deleted.
    """
    log = Log(site=site.name, job=job.name)
    with held(site.state, job.kind.value, wait=wait, on_wait=waiting(log, job.name)):
        return _pruned(site, job, catalogue.scan(site.backups, site.name), log)


def _cure_of_no_room(site: Site) -> str:
    try:
        cure = pruning.cure_of_no_room(site, catalogue.scan(site.backups, site.name), datetime.now(UTC))
    except OSError:  # what was refused is to be told all the same
        return ""
    return cure and f"{cure}; or enlarge the volume"


def _report(log: Log, job: Job, failure: PortfolioOpsError, seconds: float) -> None:
    failure.reported = log.event(
        messages.JOB_FAILED,
        f"{job.name} failed: {failure.message}",
        error=failure.code,
        suggestion=failure.suggestion,
        duration=round(seconds, 3),
    )
