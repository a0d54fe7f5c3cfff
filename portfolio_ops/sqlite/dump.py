"""Running SQL that somebody hands us: into a new database of its own, and only what a dump of some tables needs.

An authorizer (<https://www.sqlite.org/c3ref/set_authorizer.html>) sees every action of every statement before it is
done, triggers included. What is not known to belong into a dump is refused. Our own exports go through here too: when
they are made, when they are verified, in drills, and in a restore.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import apsw

from portfolio_ops.errors import PortfolioOpsError, RefusedError, VerificationError
from portfolio_ops.host.files import free_bytes, reserve_bytes
from portfolio_ops.sqlite.bounds import bounded
from portfolio_ops.sqlite.check import count_rows, quoted
from portfolio_ops.sqlite.connection import immutable
from portfolio_ops.sqlite.export import GUARD, export_tables

_ALWAYS = {apsw.SQLITE_TRANSACTION, apsw.SQLITE_SELECT, apsw.SQLITE_REINDEX}
_ROWS = {apsw.SQLITE_READ, apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE}
_TABLES = {apsw.SQLITE_CREATE_TABLE, apsw.SQLITE_DROP_TABLE}
_TEMPORARY = {apsw.SQLITE_CREATE_TEMP_TABLE, apsw.SQLITE_DROP_TEMP_TABLE}
_BESIDE_A_TABLE = {
    apsw.SQLITE_CREATE_INDEX,
    apsw.SQLITE_DROP_INDEX,
    apsw.SQLITE_CREATE_TRIGGER,
    apsw.SQLITE_DROP_TRIGGER,
}
# Writing to the schema's own tables goes on inside CREATE and DROP; by itself it needs PRAGMA writable_schema.
_OWN_TABLES = {"sqlite_master", "sqlite_temp_master", "sqlite_sequence"}
_PRAGMAS = {"foreign_keys", "encoding", "busy_timeout"}
# Defaults, CHECKs, generated columns and indices of a site may call any other: they compute, and touch nothing.
_REFUSED_FUNCTIONS = {"load_extension", "fts3_tokenizer"}
_SECONDS, _BYTES_PER_SECOND = 600.0, 1e6
_SPARE_LENGTH = 1 << 20
# What SQLite says of the text that it was given. Anything else (no room, a failing disk) says nothing of it.
_OF_THE_TEXT = (
    apsw.SQLError,
    apsw.AuthError,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.TooBigError,
    ValueError,  # no UTF-8, or a NUL
)


class NotADumpError(RefusedError):
    """A text does what no dump of the given tables does, or is no SQL."""

    code = "NOT_A_DUMP"


def load_dump(file: Path, database: Path, tables: Sequence[str], encoding: str = "") -> dict[str, int]:
    """Run a dump into a new database.

    Args:
        file: The SQL, UTF-8.
        database: A new file. It may take all the room that is free but for the reserve.
        tables: Those that the dump may hold; names do not depend on case.
        encoding: That the new database must have, as `PRAGMA encoding` names it; empty for whatever the dump asks for.

    Returns:
        The tables that it held, each with its number of rows.

    Raises:
        NotADumpError: It does what no dump of these tables does, is not SQL, or holds none of them.
        RefusedError: There is too little room, or it takes longer than any dump of its size.
        PortfolioOpsError: The disk fails.
    """
    guard = _Guard(tables)
    size = file.stat().st_size
    connection = apsw.Connection(str(database))
    try:
        connection.pragma("journal_mode", "off")
        connection.pragma("synchronous", "off")
        connection.pragma("encoding", encoding or "UTF-8")
        room = free_bytes(database.parent) - reserve_bytes(database.parent)
        connection.pragma("max_page_count", max(1, room // int(connection.pragma("page_size"))))
        # What a dump states, stands in it: nothing in it is longer than itself.
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, min(size + _SPARE_LENGTH, (1 << 31) - 1))
        connection.authorizer = guard
        with bounded(connection, file.name, _SECONDS + size / _BYTES_PER_SECOND):
            _run_script(connection, file)
        connection.authorizer = None
        return _loaded(connection, file, guard.tables, encoding)
    except apsw.FullError as error:
        raise RefusedError(
            f"there is too little room in {database.parent} for the tables of {file.name}",
            suggestion="free some space, or name a larger place: [drill] scratch",
        ) from error
    except _OF_THE_TEXT as error:
        why = f"it does what no dump of {', '.join(tables)} does: {guard.refused[0]}" if guard.refused else str(error)
        raise NotADumpError(f"{file.name} was not restored: {why}", suggestion=_WHOLE) from error
    except apsw.Error as error:
        raise PortfolioOpsError(
            f"{file.name} could not be restored in {database.parent}: {error}",
            suggestion="see the kernel log (journalctl -k) for faults of the disk",
        ) from error
    finally:
        connection.close()


_WHOLE = "give a whole dump of the [social] tables, with their CREATE TABLE: sqlite3 DATABASE '.dump comments likes'"


def _loaded(connection: apsw.Connection, file: Path, allowed: set[str], encoding: str) -> dict[str, int]:
    """What there is after the last statement."""
    if not connection.get_autocommit():
        raise NotADumpError(f"{file.name} ends inside a transaction", suggestion=_WHOLE)
    found = str(connection.pragma("encoding"))
    if encoding and found != encoding:
        raise NotADumpError(
            f"{file.name} asks for text in {found}, the database's is in {encoding}",
            suggestion="leave its PRAGMA encoding out, if its text is ordinary: it is converted then",
        )
    names = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite@_%' ESCAPE '@'"
    )
    held = [str(row[0]) for row in names.fetchall()]
    if not held or not {name.lower() for name in held} <= allowed:
        raise NotADumpError(f"{file.name} makes none of the tables {', '.join(sorted(allowed))}", suggestion=_WHOLE)
    return count_rows(connection, held)


class _Guard:
    """The authorizer: what a dump of the given tables does."""

    def __init__(self, tables: Sequence[str]) -> None:
        self.tables = {table.lower() for table in tables}
        self.refused: list[str] = []

    def __call__(self, action: int, first: str | None, second: str | None, schema: str | None, *_: str | None) -> int:
        if self._belongs(action, (first or "").lower(), (second or "").lower(), schema):
            return int(apsw.SQLITE_OK)
        name = str(apsw.mapping_authorizer_function[action]).removeprefix("SQLITE_")
        self.refused.append(" ".join(word for word in (name, first, second) if word))
        return int(apsw.SQLITE_DENY)

    def _belongs(self, action: int, first: str, second: str, schema: str | None) -> bool:
        if action in _ROWS | _TABLES:
            return (
                first in self.tables
                or first in _OWN_TABLES
                or (first == GUARD and schema == "temp" and action in _ROWS)
                or (first == "pragma_encoding" and action == apsw.SQLITE_READ)
            )
        if action in _TEMPORARY:
            return first == GUARD
        if action in _BESIDE_A_TABLE:
            return second in self.tables
        if action == apsw.SQLITE_PRAGMA:
            return first in _PRAGMAS
        return action in _ALWAYS or (action == apsw.SQLITE_FUNCTION and second not in _REFUSED_FUNCTIONS)


def _run_script(connection: apsw.Connection, file: Path) -> None:
    """Run a script statement by statement, in constant memory."""
    lines: list[str] = []
    with file.open(encoding="utf-8", newline="\n") as script:
        for line in script:
            lines.append(line)
            if line.rstrip().endswith(";") and apsw.complete(statement := "".join(lines)):
                connection.execute(statement)
                lines = []
    connection.execute("".join(lines))


def drop_triggers(database: Path) -> list[str]:
    """Take the triggers out of a database that was loaded; gives their names."""
    connection = apsw.Connection(str(database))
    try:
        names = [str(row[0]) for row in connection.execute("SELECT name FROM sqlite_schema WHERE type='trigger'")]
        for name in names:
            connection.execute(f"DROP TRIGGER {quoted(name)}")
    finally:
        connection.close()
    return names


def check_export(file: Path, tables: Sequence[str]) -> None:
    """Restore an export into an empty database, export that, and require the same bytes.

    Args:
        file: The SQL; a database of about its size is made beside it and removed.
        tables: As they were exported.

    Raises:
        VerificationError: It does not restore, or restores to something else.
        PortfolioOpsError: That could not be found out.
    """
    target = file.with_name(f"{file.name}.sqlite")
    try:
        _restored_rows(file, target, tables)
        again = hashlib.sha256()
        connection = immutable(target)
        try:
            for chunk in export_tables(connection, tables):
                again.update(chunk)
        finally:
            connection.close()
    finally:
        target.unlink(missing_ok=True)
    with file.open("rb") as script:
        if hashlib.file_digest(script, "sha256").digest() != again.digest():
            raise VerificationError(
                "the export restores to other content than it was made from",
                suggestion="does a table hold values that its column types would convert? Keep the daily backup",
            )


def restored_rows(file: Path, tables: Sequence[str]) -> dict[str, int]:
    """Restore an export into an empty database beside it, that goes again; gives its rows by table.

    Raises:
        VerificationError: It does not restore.
        PortfolioOpsError: That could not be found out.
    """
    target = file.with_name(f"{file.name}.sqlite")
    try:
        return _restored_rows(file, target, tables)
    finally:
        target.unlink(missing_ok=True)


def _restored_rows(file: Path, target: Path, tables: Sequence[str]) -> dict[str, int]:
    try:
        return load_dump(file, target, tables)
    except NotADumpError as error:
        raise VerificationError(
            f"the export does not restore into an empty database: {error}",
            suggestion="does its schema use functions or collations that only the site's own program has?",
        ) from error
