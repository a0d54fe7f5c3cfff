"""From a staged database to a backend that is well with it; or everything back as it was, and the backend with that."""

import contextlib
import errno
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import BusyError, PortfolioOpsError, RefusedError, foreseen
from portfolio_ops.host import backend, messages
from portfolio_ops.host.files import fsync_directory, remove_temporaries
from portfolio_ops.host.interrupted import interrupted_by
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs.database import back_up
from portfolio_ops.jobs.run import GALLERY, Task
from portfolio_ops.restore import record as records
from portfolio_ops.restore import work
from portfolio_ops.restore.plan import require_none_removed, who_holds
from portfolio_ops.restore.record import DONE, Record
from portfolio_ops.restore.stage import Staged
from portfolio_ops.restore.swap import dress, exchange, out_of_place, put_sides_back
from portfolio_ops.sqlite.place import SIDES, side
from portfolio_ops.store import ended
from portfolio_ops.store.artifact import BEFORE_RESTORE, Kind

_MODE_OF_NONE = 0o640
_LETS_GO_WITHIN = 15.0
_POLL = 0.1
_MAY_GO_ON = (backend.UnfinishedError, KeyboardInterrupt, SystemExit)
"""After these, a stop may still stop the backend when it has been found running."""


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


def carry_out(site: Site, record: Record, log: Log, stage: Callable[[Path], Staged | None]) -> Restored:
    """Restore what `stage` makes; the record is open, the caller is `alone`.

    Args:
        stage: Makes a checked database at the path that it is given, durably.

    Raises:
        PortfolioOpsError: It failed, and the former state is back.
    """
    database, notes, stopping = Path(record.database), [], False
    try:
        work.make(database)
        staged = stage(work.incoming_of(database))
        notes += _dressed(database)
        record = _with_what_is(site, record)
        records.write(site.state, record)
        require_none_removed(site, database)
        began, stopping = time.monotonic(), True
        if backend.is_known(site.backend):  # even if it does not run now: it may be about to be started again
            log.progress(f"Stopping {site.backend.described}")
            backend.stop(site.backend)
        _require_free(database)
        exchange(database, work.incoming_of(database), work.former_of(database))
        if record.running:
            log.progress(f"Starting {site.backend.described}")
            start_again(site, record)
            backend.wait_until_well(site.backend, log.progress)
        down = time.monotonic() - began if record.running else 0.0
    except BaseException as error:
        with _undisturbed():
            _put_back(site, record, log, error, stopping=stopping)
        raise
    if backend.is_known(site.backend) and not record.running:
        notes.append(f"{site.backend.described} did not run, and is left stopped")
    undo, note = _kept(site, record, log)
    log.event(
        messages.RESTORED,
        f"Restored {record.artifact} over {database}"
        + (f"; the backend was down for {down:.1f} s" if record.running else ""),
        database=str(database),
        artifact=record.artifact,
        undo=undo,
        duration=round(down, 3),
    )
    return Restored(staged, down, undo, (*notes, note) if note else tuple(notes))


def _dressed(database: Path) -> list[str]:
    """Make the staged file look like the live one; see, while nothing is stopped, whether it can take its place."""
    incoming = work.incoming_of(database)
    if not database.exists():
        incoming.chmod(_MODE_OF_NONE)
        return []
    notes = [f"the attribute {name} is the kernel's to give" for name in dress(incoming, database)]
    if database.stat().st_nlink > 1:
        notes.append(f"{database} has another name somewhere, which keeps the former content")
    probe = work.folder_of(database) / "probe"
    try:
        os.link(database, probe)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise RefusedError(
                f"{database} is mounted by itself, and cannot be exchanged",
                suggestion="mount its folder instead, or restore beside it: --to PATH",
            ) from error
        raise
    probe.unlink()
    return notes


def _with_what_is(site: Site, record: Record) -> Record:
    """The record with what it needs to tell after a death."""
    running = backend.is_known(site.backend) and backend.is_running(site.backend)
    return replace(record, new=work.incoming_of(Path(record.database)).stat().st_ino, running=running)


def _kept(site: Site, record: Record, log: Log) -> tuple[str, str]:
    """As `keep`; what goes wrong there does not take the restore back.

    Raises:
        PortfolioOpsError: It went wrong.
    """
    try:
        return keep(site, record, log)
    except (PortfolioOpsError, OSError, apsw.Error) as error:
        message = f"the restored database is in place, but what was there before could not be put away: {_words(error)}"
        failure = PortfolioOpsError(message, suggestion=_to_finish())
        failure.reported = log.event(
            messages.RESTORE_FAILED, message, database=record.database, error=getattr(error, "code", "OSERROR")
        )
        raise failure from error


def keep(site: Site, record: Record, log: Log) -> tuple[str, str]:
    """Keep the former state, and close the record.

    Returns:
        What undoes the restore, and what a person should know.
    """
    with _undisturbed():
        undo, note = _kept_former(site, record, work.former_of(Path(record.database)), log)
        record = replace(record, undo=undo)
        records.write(site.state, record)  # before what it tells of is removed
        _close(site, replace(record, state=DONE))
        ended.accept(site.state)  # whoever restores has seen what there was
    return undo, note


def _kept_former(site: Site, record: Record, former: Path, log: Log) -> tuple[str, str]:
    """The former state as an event backup; where that cannot be (it is damaged, or space is short), as raw files."""
    database = Path(record.database)
    if record.undo:  # of a restore that died just after keeping it, or just before renaming it
        if record.undo.startswith("/") and not Path(record.undo).exists():
            former.rename(record.undo)
        return record.undo, ""
    if not any(former.glob("*")):
        return "", "there was no database before, so there is nothing to return to"
    if not (former / database.name).exists():
        raw = _as_raw_files(database, former)
        return "", f"there was no database before, only a WAL: it is kept in {raw}, yours to delete"
    try:
        folder = site.backups / Kind.EVENT.folder
        folder.mkdir(mode=0o750, exist_ok=True)
        remove_temporaries(folder)  # the caller holds its lock
        task = Task(replace(site, database=former / database.name), GALLERY, folder, log)
        details = {"event": BEFORE_RESTORE, "name": "before a restore"}
        return back_up(task, "before-restore-%Y-%m-%d-%H%M%S", details).id, ""
    except (PortfolioOpsError, OSError, apsw.Error) as error:
        why = _words(error)
        raw = _free_raw_name(database)
        records.write(site.state, replace(record, undo=str(raw)))
        former.rename(raw)
        fsync_directory(database.parent)
        log.event(messages.RAW_FILES_KEPT, f"The former database is kept as raw files in {raw}: {why}", folder=str(raw))
        return str(raw), f"the former database is kept as raw files in {raw}, yours to delete ({why})"


def _as_raw_files(database: Path, former: Path) -> Path:
    raw = _free_raw_name(database)
    former.rename(raw)
    fsync_directory(database.parent)
    return raw


def _free_raw_name(database: Path) -> Path:
    path = database.with_name(f"{database.name}.before-restore-{datetime.now(UTC):%Y-%m-%d-%H%M%S}")
    names = (path if number == 1 else path.with_name(f"{path.name}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def _put_back(site: Site, record: Record, log: Log, error: BaseException, *, stopping: bool) -> None:
    """After a failure: the former state in its place, the backend as it was.

    Args:
        stopping: Whether it came as far as to stop the backend.
    """
    database = Path(record.database)
    log.progress("Putting the former state back")
    try:
        if work.has_come(database, record.new):
            if backend.is_known(site.backend):
                backend.stop(site.backend)
            _require_free(database)
            _exchange_back(database)
        elif work.former_of(database).is_dir():
            put_sides_back(database, work.former_of(database))
        if stopping and record.running and isinstance(error, _MAY_GO_ON):
            backend.wait_until_stopped(site.backend, log.progress)
        start_again(site, record)
    except (PortfolioOpsError, OSError, apsw.Error) as second:
        restored = work.has_come(database, record.new)
        with contextlib.suppress(PortfolioOpsError, OSError, apsw.Error):  # either way, a whole database is in place
            start_again(site, record)
        message = (
            f"the restore failed ({_words(error)}), and putting the former state back failed too ({_words(second)}). "
            f"The {'restored' if restored else 'former'} database is in place, and whole"
            + (f"; the former one is in {work.former_of(database)}" if restored else "")
        )
        told = log.event(messages.RESTORE_FAILED, message, database=str(database), error="NOT_PUT_BACK")
        failure = PortfolioOpsError(message, suggestion=_to_finish())
        failure.reported = told
        raise failure from error
    standing = _standing(site, record, stopping=stopping)
    message = f"the restore of {record.artifact} failed, the former state is in place, {standing}: {_words(error)}"
    message += close_taken_back(site, record)
    told = log.event(
        messages.RESTORE_FAILED,
        message,
        database=record.database,
        error="INTERRUPTED" if interrupted_by(error) else getattr(error, "code", type(error).__name__),
    )
    if isinstance(error, PortfolioOpsError):
        error.message, error.reported = message, told
    elif not told:
        error.add_note(message)  # whoever ended it reads no journal


def _standing(site: Site, record: Record, *, stopping: bool) -> str:
    """How the backend is, all being as before."""
    if not stopping:
        return "and nothing was stopped"
    if not backend.is_known(site.backend):
        return "and the site is yours to start"
    return f"and {site.backend.described} {'runs, as it did' if record.running else 'is stopped, as it was'}"


def _exchange_back(database: Path) -> None:
    """The way back; where there was no database, there is none again."""
    former, discarded = work.former_of(database), work.discarded_of(database)
    if (former / database.name).exists():
        exchange(database, former / database.name, discarded)
        return
    discarded.mkdir(mode=0o700)
    for ending in SIDES:
        side(database, ending).unlink(missing_ok=True)
    database.replace(discarded / database.name)
    put_sides_back(database, former)


def close_taken_back(site: Site, record: Record) -> str:
    """Close the record of a restore whose former state is in place again; leave nothing behind that is of no use.

    Returns:
        What a person should know, to be put behind a sentence; empty if there is nothing.
    """
    database, former, note = Path(record.database), work.former_of(Path(record.database)), ""
    if out_of_place(database, former):
        note = f"; side files that the site had meanwhile made anew are kept in {_as_raw_files(database, former)}"
    _close(site, records.taken_back(record))
    return note


def start_again(site: Site, record: Record) -> str:
    """Start the backend if it ran before and does not now.

    Returns:
        What a person has to do, to be put behind a sentence; empty if there is nothing.

    Raises:
        BackendError: It could not be asked or started.
    """
    if not record.running:
        return ""
    if not backend.is_known(site.backend):  # it was when the restore began
        return f"; the backend ran before, and is not started again: there is no [backend] in {site.file}; start it"
    if not backend.is_running(site.backend):
        backend.start(site.backend)
    return ""


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


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """What is to be brought to its end, either way, is not interrupted half way."""
    before: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Not SIG_IGN: that would be inherited by the backend that is started meanwhile (signal(7)).
            before[number] = signal.signal(number, lambda *_: None)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _words(error: BaseException) -> str:
    if isinstance(error, Exception) and (ours := foreseen(error)) is not None:
        return ours.message
    words = interrupted_by(error)
    return f"it was {words}" if words else repr(error)


def _to_finish() -> str:
    """What brings a restore to its end."""
    return f"mend the cause, then run `{tool()} restore undo`: it finishes this first"
