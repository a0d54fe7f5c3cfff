"""Is a file a sound database, and what is in it? Asked of our own copies, never of the live file."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from portfolio_ops.errors import VerificationError
from portfolio_ops.sqlite.connection import immutable

_PROBLEMS_MOST = 5
_UNKNOWN = ("unknown function", "no such function", "no such collation sequence")
_CACHE_KIB = 16_384


@dataclass(frozen=True)
class DatabaseFacts:
    """What a sound database holds.

    Attributes:
        rows: Number of rows by table, virtual tables left out (their content stands in shadow tables, which are in).
        schema_sha256: Of every type, name, table and SQL text of the schema, in order of name.
        user_version: The application's own schema version (`PRAGMA user_version`).
        foreign_key_violations: Rows that refer to nothing. The site may never have enforced its foreign keys, so these
            are no damage; but a copy has as many as its original.
        unchecked: Why indexes could not be held against their tables; empty where they were.
    """

    rows: dict[str, int]
    schema_sha256: str
    user_version: int
    foreign_key_violations: int
    unchecked: str


def check_database(file: Path) -> DatabaseFacts:
    """Check the whole structure, every index against its table, and count all rows.

    Where an index asks for a function or a collation that only the site's own program has, SQLite cannot compare
    indexes with tables. The structure of all of them is checked then (`PRAGMA quick_check`). A CHECK is not evaluated
    at all: in a database that is open `immutable`, SQLite leaves them out.

    Args:
        file: A database that nobody writes. It is opened `immutable`: no lock is taken, and a `-wal` beside it is not
            looked at.

    Raises:
        VerificationError: It is damaged, or no database.
    """
    try:
        connection = immutable(file)
        try:
            connection.pragma("cache_size", -_CACHE_KIB)
            unchecked = _require_integrity(connection)
            return DatabaseFacts(
                _rows(connection),
                _schema_sha256(connection),
                int(connection.pragma("user_version")),
                sum(1 for _ in connection.execute("PRAGMA foreign_key_check")),
                unchecked,
            )
        finally:
            connection.close()
    except apsw.Error as error:
        raise VerificationError(f"the copy cannot be read as a database: {error}", suggestion=_SUGGESTION) from error


_SUGGESTION = (
    "run PRAGMA integrity_check on the live database: if it too is damaged, restore the latest verified backup"
)


def _require_integrity(connection: apsw.Connection) -> str:
    """Check the structure; gives why no more could be checked, if so."""
    try:
        _require_none(connection, "integrity_check")
    except apsw.SQLError as error:
        if not str(error).startswith(_UNKNOWN):
            raise
        # It stands in by name only: nothing is compared by it.
        connection.collation_needed(
            lambda own, name: own.create_collation(name, lambda one, other: (one > other) - (one < other))
        )
        _require_none(connection, "quick_check")
        return str(error)
    return ""


def _require_none(connection: apsw.Connection, check: str) -> None:
    rows = connection.execute(f"PRAGMA {check}({_PROBLEMS_MOST})")
    found = [line for row in rows for line in str(row[0]).splitlines()]  # one answer may hold several, below a heading
    if found != ["ok"]:
        raise VerificationError(f"{check} found: {'; '.join(found)}", suggestion=_SUGGESTION)


def _rows(connection: apsw.Connection) -> dict[str, int]:
    tables = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow') "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    return count_rows(connection, [str(row[0]) for row in tables])


def count_rows(connection: apsw.Connection, tables: Sequence[str]) -> dict[str, int]:
    """Number of rows by table, in the order given."""
    return {table: _count(connection, table) for table in tables}


def _count(connection: apsw.Connection, table: str) -> int:
    query = f"SELECT count(*) FROM {quoted(table)}"  # noqa: S608  (an identifier cannot be bound; it is quoted)
    return int(str(connection.execute(query).fetchall()[0][0]))


def quoted(name: str) -> str:
    """An identifier as SQL text."""
    return '"' + name.replace('"', '""') + '"'


def _schema_sha256(connection: apsw.Connection) -> str:
    digest = hashlib.sha256()
    for row in connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"):
        digest.update(repr(row).encode())
    return digest.hexdigest()
