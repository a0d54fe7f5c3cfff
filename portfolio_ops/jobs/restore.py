"""Restores in place: what is restored, and what becomes of one that died. How: `exchange`."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import NotFoundError, RefusedError
from portfolio_ops.host import backend, messages
from portfolio_ops.host.files import copy_durably, require_space
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import exchange
from portfolio_ops.jobs.exchange import Restored
from portfolio_ops.jobs.run import DRILL
from portfolio_ops.moment import exact
from portfolio_ops.restore import record as records
from portfolio_ops.restore import work
from portfolio_ops.restore.plan import plan_in_place, require_a_way_to_stop, require_at_home, who_holds
from portfolio_ops.restore.points import MomentPlan
from portfolio_ops.restore.record import OPEN, PUT_BACK, Record
from portfolio_ops.restore.replay import stage
from portfolio_ops.restore.swap import finish_move, put_sides_back
from portfolio_ops.sqlite.place import SIDES, located, side
from portfolio_ops.store.artifact import Artifact, Kind
from portfolio_ops.store.lock import EXCHANGE, PINNED, RESTORE, held


@contextlib.contextmanager
def alone(site: Site, *, wait: timedelta, exchanging: bool = True) -> Iterator[Log]:
    """Be the only restore, while no backup and no drill reads the database; gives the log of restores.

    Args:
        exchanging: Whether the database's file is to be exchanged: the archive lets go of it then.

    Raises:
        BusyError: Another run holds a lock for longer than `wait`.
        NotFoundError: The backups' folder is not there.
    """
    log = Log(site=site.name, job="restore")

    def waiting(holder: str) -> None:
        log.event(messages.JOB_WAITING, f"Waiting for another run: {holder}", holder=holder)

    with contextlib.ExitStack() as locks:
        names = (RESTORE, Kind.DAILY.value, Kind.SOCIAL.value, Kind.EVENT.value, Kind.WAL.value, DRILL.name)
        for name in (*names, *((EXCHANGE, PINNED) if exchanging else ())):
            locks.enter_context(held(site.state, name, wait=wait, on_wait=waiting))
        yield log


def restore_in_place(
    site: Site, artifact: Artifact, log: Log, *, force: str, moment: MomentPlan | None = None
) -> Restored:
    """Restore an artifact over the live database. The caller is `alone`, and acts as the site's owner.

    Args:
        moment: What is restored instead, if the artifact is its base.
        force: Why something that looks foreign is restored all the same.

    Raises:
        PortfolioOpsError: It was refused before anything was changed, or it failed and the former state is back.
    """
    plan = plan_in_place(site, artifact)
    require_at_home(artifact.path.name, plan.foreign, force)
    require_a_way_to_stop(site, plan.target, plan.holders, running=plan.running)
    _require_nothing_open(site, plan.target)
    what = "" if moment is None else f"the moment {exact(moment.found)} from "
    record = records.begin(site.state, f"{what}{artifact.path.name} ({artifact.id})", plan.target)
    log.event(
        messages.RESTORE_BEGUN,
        f"Restoring {what}{artifact.path.name} over {plan.target}" + (f"; forced: {force}" if force else ""),
        artifact=artifact.path.name,
        artifact_id=artifact.id,
        database=str(plan.target),
    )
    return exchange.carry_out(site, record, log, lambda incoming: stage(artifact, moment, incoming, log))


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
    files = [(ending, side(folder / database.name, ending)) for ending in ("", *SIDES)]
    files = [(ending, file) for ending, file in files if file.exists()]
    running = backend.is_running(site.backend) if backend.is_known(site.backend) else None
    require_a_way_to_stop(site, database, who_holds(database), running=running)
    require_space(database.parent, sum(file.stat().st_size for _, file in files))
    _require_nothing_open(site, database)
    record = records.begin(site.state, f"raw files of {folder.name}", database)

    def copy(incoming: Path) -> None:
        # The raw files themselves stay until a person deletes them.
        for ending, file in files:
            copy_durably(file, side(incoming, ending), file.stat().st_mode & 0o7777)

    return exchange.carry_out(site, record, log, copy)


def _require_nothing_open(site: Site, database: Path) -> None:
    """Refuse while a record, or a folder, still tells of an earlier restore.

    Raises:
        RefusedError: One does.
    """
    records.require_none_open(site.state)
    work.require_nothing_left(database)


def undoable(site: Site) -> Record:
    """The latest restore that can be undone.

    Raises:
        NotFoundError: There is none.
        RefusedError: Its raw files are another site's.
    """
    record = _read(site)
    if record is None or record.state == OPEN or not record.undo:
        raise NotFoundError(
            "there is no restore in place that could be undone",
            suggestion=f"any backup can be restored: {tool()} list",
        )
    if record.undo.startswith("/"):  # an artifact is among the site's own, wherever that is
        _require_own(site, record)
    return record


def was_put_back(site: Site) -> bool:
    """Whether the latest restore in place was taken back."""
    record = _read(site)
    return record is not None and record.state == PUT_BACK


def interrupted(site: Site) -> Record | None:
    """The restore that died in its middle, if one did (or one that runs now).

    Raises:
        RefusedError: It is another site's.
    """
    record = _read(site)
    if record is None or record.state != OPEN:
        return None
    _require_own(site, record)
    return record


def _require_own(site: Site, record: Record) -> None:
    """Check that a record is of the site's own database, and what it kept beside that.

    Who copies a site copies its state as well, and the paths in it are those of the former one.

    Raises:
        RefusedError: It is not.
    """
    database = located(site.database)
    beside = not record.undo.startswith("/") or Path(record.undo).parent == database.parent
    if record.database == str(database) and beside:
        return
    file = site.state / "restore.json"
    raise RefusedError(
        f"{file} tells of {record.database if beside else record.undo}, and the site's database is {database}:"
        " it was copied with the site, or moved",
        suggestion=f"if the former site is there still: delete {file}; if this is that site: correct the paths in it",
    )


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
        finish_move(work.incoming_of(database), database)
        try:
            words += exchange.start_again(site, record)
        except backend.BackendError as error:  # must not stand between a person and an undo
            words = f"{words}; {error.message}"
        log.event(messages.RESTORE_RECOVERED, words[0].upper() + words[1:], database=str(database))
        exchange.keep(site, record, log)
        return words
    former = work.former_of(database)
    if (former / database.name).exists() and not database.exists():
        os.link(former / database.name, database)
    work.require_nothing_left(database)
    if former.is_dir():
        put_sides_back(database, former)
    words = f"an interrupted restore of {record.artifact} was taken back: the former state is in place"
    words += exchange.start_again(site, record)
    words += exchange.close_taken_back(site, record)
    log.event(messages.RESTORE_RECOVERED, words[0].upper() + words[1:], database=str(database))
    return words


def _read(site: Site) -> Record | None:
    try:
        return records.read(site.state)
    except ValueError as error:
        raise RefusedError(
            str(error),
            suggestion=f"see whether {work.folder_of(site.database)} holds a former database; then delete that file",
        ) from error
