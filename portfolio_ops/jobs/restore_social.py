"""The social tables back into a database: staged in one of its own, compared, and moved over in one transaction."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import apsw

from portfolio_ops.calling import tool
from portfolio_ops.config import Site, SocialTable
from portfolio_ops.errors import NotFoundError, PortfolioOpsError, RefusedError, UsageError
from portfolio_ops.host import messages
from portfolio_ops.host.files import TEMPORARY_PREFIX, copy_durably, fsync_directory, remove_temporaries, require_space
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs.restore import alone
from portfolio_ops.jobs.run import SOCIAL, Task
from portfolio_ops.jobs.scratch import scratch_folder
from portfolio_ops.jobs.social import export
from portfolio_ops.mount import read_only
from portfolio_ops.restore.named import ZSTD, damaged, handed_over, head_of, require_unpacked
from portfolio_ops.restore.plan import foreign_site
from portfolio_ops.restore.stage import decode_to
from portfolio_ops.sqlite.connection import explained, reading, writing
from portfolio_ops.sqlite.dump import drop_triggers, load_dump
from portfolio_ops.sqlite.export import missing_tables
from portfolio_ops.sqlite.replace import Change, Moved, attach, changes, one_transaction, replace_rows
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import BEFORE_RESTORE, Artifact, Kind, NotAnArtifactError, read_artifact
from portfolio_ops.store.catalogue import LATEST
from portfolio_ops.store.lock import held

_ROOM = 3
_NAME = "restore-social"


@dataclass(frozen=True)
class Source:
    """Where social tables come from: one of our exports, or plain SQL of another tool."""

    path: Path
    artifact: Artifact | None

    def foreign(self, site: Site) -> tuple[str, ...]:
        """Why it may not belong to this site, in words; empty if it looks at home."""
        if self.artifact is None:
            return ()
        known = {table.lower() for table in _configured(site)}
        others = [table for table in self.artifact.metadata.details.get("rows", {}) if table.lower() not in known]
        tables = (f"it holds {', '.join(others)}, and [social] does not",) if others else ()
        return foreign_site(site, self.artifact) + tables


@dataclass(frozen=True)
class Staged:
    """Tables in a database of their own.

    Attributes:
        left_out: Triggers that the source would have made.
    """

    database: Path
    tables: tuple[str, ...]
    left_out: tuple[str, ...]


def choose(site: Site, reference: str) -> Source:
    """The export that a person names: `latest`, an ID, a name, or a file: an artifact, or plain SQL.

    Raises:
        NotFoundError: There is none.
        UsageError: It is an artifact of another kind.
        RefusedError: It is no regular file, or compressed by other means.
        NotAnArtifactError: It is a damaged artifact.
    """
    if "/" in reference or os.path.lexists(reference):
        return _of_file(Path(reference).absolute())
    found = catalogue.scan(site.backups, site.name, [Kind.SOCIAL])
    if reference != LATEST:
        try:
            return _of_artifact(catalogue.find(found, reference))
        except NotFoundError:  # it may be there, and of another kind
            return _of_artifact(catalogue.find(catalogue.scan(site.backups, site.name), reference))
    exports = [each for each in found.artifacts if not each.put_away]
    if not exports:
        raise NotFoundError("there is no social export yet", suggestion=f"make one: {tool()} backup social")
    return _of_artifact(exports[-1])


def _of_artifact(artifact: Artifact) -> Source:
    if artifact.metadata.kind is not Kind.SOCIAL:
        raise UsageError(
            f"{artifact.path.name} holds {artifact.metadata.kind.value}, not social tables",
            suggestion=f"a whole database: {tool()} restore database",
        )
    return Source(artifact.path, artifact)


def _of_file(path: Path) -> Source:
    with handed_over(path):
        start = head_of(path)
        try:
            return _of_artifact(read_artifact(path))
        except NotAnArtifactError as error:
            if start.startswith(ZSTD):
                raise damaged(error, path, start) from error
            require_unpacked(path, start)
            return Source(path, None)


@contextlib.contextmanager
def staged(site: Site, source: Source, log: Log, *, into: Path | None, wait: timedelta) -> Iterator[Staged]:
    """The tables in a scratch database, while the block runs. Nobody else restores the site's social tables meanwhile.

    Args:
        into: The other database that they are for; None for the live one.

    Raises:
        BusyError: Somebody else does, for longer than `wait`.
        VerificationError: An artifact is damaged.
        RefusedError: Plain SQL does what no dump does; or there is too little space.
    """
    with _scratch(site, into, wait) as folder:
        sql, database = folder / "dump.sql", folder / "tables.sqlite"
        if source.artifact is not None:
            require_space(folder, _ROOM * source.artifact.metadata.content.bytes)
            decode_to(source.artifact, sql, log)
            allowed = list(source.artifact.metadata.details.get("rows", {})) or _configured(site)
        else:
            require_space(folder, _ROOM * source.path.stat().st_size)
            copy_durably(source.path, sql, 0o600)
            allowed = _configured(site)
        try:
            rows = load_dump(sql, database, allowed, _encoding(site, into))
        except RefusedError as error:
            error.message = error.message.replace(sql.name, source.path.name)
            raise
        sql.unlink()
        # Of another tool's triggers nobody here knows what they do.
        triggers = drop_triggers(database) if source.artifact is None else []
        yield Staged(database, tuple(rows), tuple(triggers))


@contextlib.contextmanager
def _scratch(site: Site, into: Path | None, wait: timedelta) -> Iterator[Path]:
    """The scratch place, locked; where a failing disk made that read-only, one beside the database that is made."""
    if into is not None and read_only(site.state):
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=into.parent) as folder:
            yield Path(folder)
        return
    with held(site.state, _NAME, wait=wait, on_wait=lambda _: None), scratch_folder(site, _NAME) as folder:
        yield folder


def _configured(site: Site) -> list[str]:
    return [table.name for table in site.social_tables]


def _encoding(site: Site, into: Path | None) -> str:
    """Of what takes the rows: a database that is attached to it must have the same; a new one has the live one's."""
    is_new = into is not None and not into.exists()
    database = site.database if into is None or is_new else into
    if not database.exists():
        return "UTF-8"
    try:
        with reading(database) as connection:
            return str(connection.pragma("encoding"))
    except PortfolioOpsError:
        if is_new:  # it may have any, and the live one may be what is broken
            return "UTF-8"
        raise


def compared(database: Path, source: Staged) -> list[Change]:
    """What would become of each table of an existing database.

    Raises:
        PortfolioOpsError: The database cannot be read, or cannot take the rows.
    """
    with writing(database) as connection, _taken_whole(database):
        attach(connection, source.database)
        return changes(connection, source.tables)


def restore_into_new(source: Staged, target: Path) -> None:
    """Make the staged tables a database of their own; the name must be free.

    Raises:
        RefusedError: It is taken.
    """
    work = target.with_name(f".tmp-{target.name}-{os.getpid()}")
    try:
        copy_durably(source.database, work, 0o640)
        os.link(work, target)
    except FileExistsError as error:
        raise RefusedError(f"{target} exists by now", suggestion="name a new file") from error
    finally:
        work.unlink(missing_ok=True)
    fsync_directory(target.parent)


def restore_rows(database: Path, source: Staged, *, merge: bool) -> Moved:
    """Move the rows into an existing database, in one transaction.

    Raises:
        RefusedError: The database does not take a row as it is, or one would refer to nothing.
        PortfolioOpsError: SQLite refuses; nothing was changed.
    """
    with writing(database) as connection, _taken_whole(database):
        attach(connection, source.database)
        with one_transaction(connection):
            return replace_rows(connection, source.tables, merge=merge)


def restore_live(site: Site, source: Staged, log: Log, *, merge: bool, wait: timedelta) -> tuple[Moved, str]:
    """Into the live database; what these tables held before is exported first.

    The export is made inside the transaction that replaces the rows: what the site writes comes before it, and is in
    the export, or after it, and stays. The site's writers wait meanwhile.

    Returns:
        What was done, and the ID of the export that undoes it (empty if there was nothing to export).

    Raises:
        PortfolioOpsError: Nothing was changed.
    """
    with alone(site, wait=wait, exchanging=False):
        folder = _swept(site)
        with writing(site.database) as connection, _taken_whole(site.database):
            attach(connection, source.database)
            with one_transaction(connection):
                undo = _export_first(site, folder, connection, source.tables, log)
                done = replace_rows(connection, source.tables, merge=merge)
    rows = sum(change.put for change in done.changes)
    log.event(
        messages.SOCIAL_RESTORED,
        f"Restored {rows:,} rows of {', '.join(source.tables)} into {site.database}",
        database=str(site.database),
        undo=undo or "nothing",
    )
    return done, undo


@contextlib.contextmanager
def _taken_whole(database: Path) -> Iterator[None]:
    """What SQLite says against a row or the database, in our words."""
    try:
        yield
    except apsw.ConstraintError as error:
        raise RefusedError(
            f"{database} does not take a row: {error}; nothing was changed",
            suggestion="restore to a file of its own and take what you need: --into PATH",
        ) from error
    except apsw.Error as error:
        raise explained(error, database) from error


def _swept(site: Site) -> Path:
    """The folder of exports, without what killed runs left; the caller holds its lock, and no writer waits yet."""
    folder = site.backups / Kind.SOCIAL.folder
    folder.mkdir(mode=0o750, exist_ok=True)
    remove_temporaries(folder)
    return folder


def _export_first(site: Site, folder: Path, connection: apsw.Connection, tables: tuple[str, ...], log: Log) -> str:
    """The present rows of these tables as an export of their own."""
    missing = {table.lower() for table in missing_tables(connection, tables)}
    present = tuple(SocialTable(table, optional=False) for table in tables if table.lower() not in missing)
    if not present:
        return ""
    task = Task(replace(site, social_tables=present), SOCIAL, folder, log)
    return export(task, contextlib.nullcontext(connection), {"event": BEFORE_RESTORE}).id
