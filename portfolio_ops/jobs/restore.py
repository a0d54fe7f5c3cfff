"""A restore in place: stage, stop, exchange, start, see that it is well; or everything back as it was."""

import contextlib
import itertools
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from portfolio_ops.config import Site
from portfolio_ops.errors import BusyError, NotFoundError, PortfolioOpsError, RefusedError, explained
from portfolio_ops.host import backend, messages
from portfolio_ops.host.files import copy_durably, fsync_directory
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs.database import back_up
from portfolio_ops.jobs.run import GALLERY, Task
from portfolio_ops.restore import record as records
from portfolio_ops.restore import work
from portfolio_ops.restore.plan import plan_in_place, require_a_way_to_stop, require_at_home, who_holds
from portfolio_ops.restore.record import DONE, OPEN, PUT_BACK, Record
from portfolio_ops.restore.stage import Staged, stage_database
from portfolio_ops.restore.swap import dress, exchange, finish_move, put_sides_back, side
from portfolio_ops.sqlite.connection import SIDES
from portfolio_ops.store.artifact import Artifact, Kind
from portfolio_ops.store.catalogue import BEFORE_RESTORE
from portfolio_ops.store.lock import held

_MODE_OF_NONE = 0o640
_LETS_GO_WITHIN = 15.0
_POLL = 0.1


@dataclass(frozen=True)
class Restored:
    """What a restore in place did.

    Attributes:
        staged: What was restored, and how long staging took; None for raw files, which are not checked.
        down_seconds: From the order to stop the backend until it was well again; 0 if it did not run.
        undo: What holds the state before.
        notes: What a person should know besides.
    """

    staged: Staged | None
    down_seconds: float
    undo: str
    notes: tuple[str, ...]


@contextlib.contextmanager
def alone(site: Site, *, wait: timedelta) -> Iterator[Log]:
    """Be the only restore, while no backup reads the database; gives the log of restores.

    Raises:
        BusyError: Another run holds a lock for longer than `wait`.
        NotFoundError: The backups' folder is not there.
    """
    log = Log(site=site.name, job="restore")
    if not site.backups.is_dir():
        raise NotFoundError(f"there is no folder {site.backups}", suggestion="is the volume mounted?")

    def waiting(holder: str) -> None:
        log.event(messages.JOB_WAITING, f"Waiting for another run: {holder}", holder=holder)

    with contextlib.ExitStack() as locks:
        for name in ("restore", Kind.DAILY.value, Kind.SOCIAL.value, Kind.EVENT.value):
            locks.enter_context(held(site.state, name, wait=wait, on_wait=waiting))
        yield log


def restore_in_place(site: Site, artifact: Artifact, log: Log, *, force: str) -> Restored:
    """Restore an artifact over the live database. The caller is `alone`, and acts as the site's owner.

    Args:
        force: Why something that looks foreign is restored all the same.

    Raises:
        PortfolioOpsError: It was refused before anything was changed, or it failed and the former state is back.
    """
    plan = plan_in_place(site, artifact)
    require_at_home(plan, force)
    require_a_way_to_stop(site, plan)
    record = _begun(site, f"{plan.artifact.path.name} ({plan.artifact.id})", plan.target)
    log.event(
        messages.RESTORE_BEGUN,
        f"Restoring {plan.artifact.path.name} over {plan.target}" + (f"; forced: {force}" if force else ""),
        artifact=plan.artifact.path.name,
        artifact_id=plan.artifact.id,
        database=str(plan.target),
    )
    try:
        staged = stage_database(plan.artifact, work.incoming_of(plan.target), log)
    except BaseException as error:
        _give_up(site, record, log, error)
        raise
    return _swap_in(site, record, staged, log)


def restore_raw(site: Site, former: Record, log: Log) -> Restored:
    """Return to raw files that an earlier restore kept. They are not checked: they were kept because they are damaged.

    Raises:
        PortfolioOpsError: As `restore_in_place`.
    """
    folder, database = Path(former.undo), Path(former.database)
    if not (folder / database.name).is_file():
        raise NotFoundError(
            f"{folder} does not hold {database.name} any more", suggestion="restore an artifact instead"
        )
    record = _begun(site, f"raw files of {folder.name}", database)
    try:
        # Copies: the raw files stay until a person deletes them.
        for ending in ("", *SIDES):
            if side(folder / database.name, ending).exists():
                raw = side(folder / database.name, ending)
                copy_durably(raw, side(work.incoming_of(database), ending), raw.stat().st_mode & 0o7777)
    except BaseException as error:
        _give_up(site, record, log, error)
        raise
    return _swap_in(site, record, None, log)


def undoable(site: Site) -> Record:
    """The latest restore that can be undone.

    Raises:
        NotFoundError: There is none.
    """
    record = _read(site)
    if record is None or record.state == OPEN or not record.undo:
        raise NotFoundError(
            "there is no restore in place that could be undone",
            suggestion="any backup can be restored: portfolio-ops list",
        )
    return record


def was_put_back(site: Site) -> bool:
    """Whether the latest restore in place was taken back."""
    record = _read(site)
    return record is not None and record.state == PUT_BACK


def interrupted(site: Site) -> Record | None:
    """The restore that died in its middle, if one did (or one that runs now)."""
    record = _read(site)
    return record if record is not None and record.state == OPEN else None


def finish_interrupted(site: Site, log: Log) -> str:
    """Bring a restore that died to its end: forward if the new database is in place, else back. The caller is `alone`.

    Forward means forward: the site may have run with the new database for days, and what it wrote is not thrown away
    because it is not well now. `undo` may be asked for then.

    Returns:
        Which database is in place, in words; empty if no restore died.
    """
    record = interrupted(site)
    if record is None:
        return ""
    database = Path(record.database)
    if work.has_come(database, record.new):
        words = f"an interrupted restore of {record.artifact} was finished: the restored database is in place"
        log.event(messages.RESTORE_RECOVERED, words.capitalize(), database=str(database))
        finish_move(work.incoming_of(database), database)
        try:
            _start_again(site, record)
        except backend.BackendError as error:  # must not stand between a person and an undo
            words = f"{words}; {error.message}"
        _keep(site, record, log)
        return words
    work.require_nothing_left(database)
    words = f"an interrupted restore of {record.artifact} was taken back: the former state is in place"
    log.event(messages.RESTORE_RECOVERED, words.capitalize(), database=str(database))
    if work.former_of(database).is_dir():
        put_sides_back(database, work.former_of(database))
    _start_again(site, record)
    _close(site, records.taken_back(record))
    return words


def _begun(site: Site, source: str, database: Path) -> Record:
    """A record, and an empty folder to work in; refused while either still tells of an earlier restore."""
    records.require_none_open(site.state)
    work.require_nothing_left(database)
    record = records.begin(site.state, source, database)
    work.make(database)
    return record


def _swap_in(site: Site, record: Record, staged: Staged | None, log: Log) -> Restored:
    """From a staged file to a backend that is well with it; or back."""
    database = Path(record.database)
    began, notes = time.monotonic(), []
    incoming = work.incoming_of(database)
    try:
        if database.exists():
            notes += [f"the attribute {name} is the kernel's to give" for name in dress(incoming, database)]
        else:
            incoming.chmod(_MODE_OF_NONE)
        known = backend.is_known(site.backend)
        record = replace(record, new=incoming.stat().st_ino, running=known and backend.is_running(site.backend))
        records.write(site.state, record)
        if known:  # even if it does not run now: it may be about to be started again after a crash
            log.progress(f"Stopping {site.backend.described}")
            backend.stop(site.backend)
        _require_free(database)
        exchange(database, incoming, work.former_of(database))
    except BaseException as error:
        with _undisturbed():
            _put_back(site, record, log, error)
        raise
    kept = _settle_in(site, record, log, began=began)
    notes += [kept.note] if kept.note else []
    return Restored(staged, kept.down_seconds if record.running else 0.0, kept.undo, tuple(notes))


@dataclass(frozen=True)
class _Kept:
    undo: str
    note: str
    down_seconds: float


def _settle_in(site: Site, record: Record, log: Log, *, began: float) -> _Kept:
    """The new database is in place: start the backend, see that it is well, keep the former state for an undo."""
    database = Path(record.database)
    try:
        if record.running:
            log.progress(f"Starting {site.backend.described}")
            _start_again(site, record)
            backend.wait_until_well(site.backend, log.progress)
    except BaseException as error:
        with _undisturbed():
            _put_back(site, record, log, error)
        raise
    down = time.monotonic() - began
    undo_by, note = _keep(site, record, log)
    log.event(
        messages.RESTORED,
        f"Restored {record.artifact} over {database}"
        + (f"; the backend was down for {down:.1f} s" if record.running else ""),
        database=str(database),
        artifact=record.artifact,
        undo=undo_by,
        duration=round(down, 3),
    )
    return _Kept(undo_by, note, down)


def _keep(site: Site, record: Record, log: Log) -> tuple[str, str]:
    """Keep the former state, and close the record."""
    with _undisturbed():
        undo_by, note = _kept_former(site, record, work.former_of(Path(record.database)), log)
        record = replace(record, undo=undo_by)
        records.write(site.state, record)  # before what it tells of is removed
        _close(site, replace(record, state=DONE))
    return undo_by, note


def _kept_former(site: Site, record: Record, former: Path, log: Log) -> tuple[str, str]:
    """The former state as an event backup; where that cannot be (it is damaged, or space is short), as raw files.

    Returns:
        What undoes the restore, and what a person should know.
    """
    database = Path(record.database)
    if not any(former.glob("*")):
        if record.undo:  # of a restore that died just after keeping it
            return record.undo, ""
        return "", "there was no database before, so there is nothing to return to"
    try:
        folder = site.backups / Kind.EVENT.folder
        folder.mkdir(mode=0o750, exist_ok=True)
        task = Task(replace(site, database=former / database.name), GALLERY, folder, log)
        details = {"event": BEFORE_RESTORE, "name": "before a restore"}
        return back_up(task, "before-restore-%Y-%m-%d-%H%M%S", details).id, ""
    except (PortfolioOpsError, OSError) as error:
        why = error.message if isinstance(error, PortfolioOpsError) else explained(error).message
        raw = _free_name(database.with_name(f"{database.name}.before-restore-{datetime.now(UTC):%Y-%m-%d-%H%M%S}"))
        records.write(site.state, replace(record, undo=str(raw)))
        former.rename(raw)
        fsync_directory(database.parent)
        log.event(messages.RAW_FILES_KEPT, f"The former database is kept as raw files in {raw}: {why}", folder=str(raw))
        return str(raw), f"the former database is kept as raw files in {raw}, yours to delete ({why})"


def _free_name(path: Path) -> Path:
    names = (path if number == 1 else path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def _put_back(site: Site, record: Record, log: Log, error: BaseException) -> None:
    """After a failure: the former state in its place, the backend as it was."""
    database = Path(record.database)
    former = work.former_of(database)
    try:
        if work.has_come(database, record.new):
            if record.running and backend.is_running(site.backend):
                backend.stop(site.backend)
            if (former / database.name).exists():
                _require_free(database)
                exchange(database, former / database.name, None)
            else:
                database.unlink()
        elif former.is_dir():
            put_sides_back(database, former)
        _start_again(site, record)
    except (PortfolioOpsError, OSError) as second:
        message = (
            f"the restore failed ({_words(error)}), and putting the former state back failed too ({_words(second)}). "
            f"The former database is whole, in {former} or in its place"
        )
        told = log.event(messages.RESTORE_FAILED, message, database=str(database), error="NOT_PUT_BACK")
        failure = PortfolioOpsError(
            message, suggestion="mend the cause, then run `portfolio-ops restore undo`: it finishes this first"
        )
        failure.reported = told
        raise failure from error
    _give_up(site, record, log, error)


def _give_up(site: Site, record: Record, log: Log, error: BaseException) -> None:
    """Leave nothing behind; the former state is in place."""
    _close(site, records.taken_back(record))
    message = f"the restore of {record.artifact} failed, the former state is in place: {_words(error)}"
    told = log.event(
        messages.RESTORE_FAILED,
        message,
        database=record.database,
        error=getattr(error, "code", type(error).__name__),
    )
    if isinstance(error, PortfolioOpsError):
        error.message, error.reported = message, told


def _start_again(site: Site, record: Record) -> None:
    if record.running and not backend.is_running(site.backend):
        backend.start(site.backend)


def _close(site: Site, record: Record) -> None:
    work.remove(Path(record.database))
    records.write(site.state, record)


def _require_free(database: Path) -> None:
    """Wait a little for the last process to let go of the database.

    Raises:
        BusyError: One does not.
    """
    deadline = time.monotonic() + _LETS_GO_WITHIN
    while found := who_holds(database):
        if time.monotonic() > deadline:
            raise BusyError(
                f"the backend was stopped, but {database} is still open in {', '.join(map(str, found))}",
                suggestion="does a restart policy start it again, or does another program use it? Stop that too",
            )
        time.sleep(_POLL)


def _read(site: Site) -> Record | None:
    try:
        return records.read(site.state)
    except ValueError as error:
        raise RefusedError(
            str(error),
            suggestion=f"see whether {work.folder_of(site.database)} holds a former database; then delete that file",
        ) from error


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """What is to be brought to its end, either way, is not interrupted half way."""
    before: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before[number] = signal.signal(number, signal.SIG_IGN)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _words(error: BaseException) -> str:
    if isinstance(error, PortfolioOpsError):
        return error.message
    if isinstance(error, OSError):
        return explained(error).message
    return "it was interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else repr(error)
