"""Running SQL that somebody hands us: into a new database of its own, and only what a dump of some tables needs.

An authorizer (<https://www.sqlite.org/c3ref/set_authorizer.html>) sees every action of every statement before it is
done, triggers included. What is not known to belong into a dump is refused.
"""

from collections.abc import Sequence
from pathlib import Path

import apsw

from portfolio_ops.errors import RefusedError
from portfolio_ops.sqlite.export import GUARD, run_script

_ALWAYS = {apsw.SQLITE_TRANSACTION, apsw.SQLITE_SELECT, apsw.SQLITE_REINDEX}
_ON_A_TABLE = {
    apsw.SQLITE_READ,
    apsw.SQLITE_INSERT,
    apsw.SQLITE_UPDATE,
    apsw.SQLITE_DELETE,
    apsw.SQLITE_CREATE_TABLE,
    apsw.SQLITE_DROP_TABLE,
    apsw.SQLITE_CREATE_TEMP_TABLE,
    apsw.SQLITE_DROP_TEMP_TABLE,
}
_BESIDE_A_TABLE = {
    apsw.SQLITE_CREATE_INDEX,
    apsw.SQLITE_DROP_INDEX,
    apsw.SQLITE_CREATE_TRIGGER,
    apsw.SQLITE_DROP_TRIGGER,
}
# Writing to the schema's own tables goes on inside CREATE and DROP; by itself it needs PRAGMA writable_schema.
_OWN_TABLES = {"sqlite_master", "sqlite_temp_master", "sqlite_sequence", "pragma_encoding", GUARD}
_PRAGMAS = {"foreign_keys", "encoding", "busy_timeout"}
_FUNCTIONS = {"replace", "char", "count", "unistr"}


def load_dump(file: Path, database: Path, tables: Sequence[str], encoding: str) -> list[str]:
    """Run a dump into a new database.

    Args:
        file: The SQL, UTF-8.
        database: A new file.
        tables: Those that it may hold; names do not depend on case.
        encoding: Of the new database, as `PRAGMA encoding` names it.

    Returns:
        The tables that it held.

    Raises:
        RefusedError: It does what no dump of these tables does, is not SQL, or holds none of them.
    """
    refused: list[str] = []
    allowed = {table.lower() for table in tables} | _OWN_TABLES

    def authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if _belongs(action, first or "", second or "", allowed):
            return int(apsw.SQLITE_OK)
        name = str(apsw.mapping_authorizer_function[action]).removeprefix("SQLITE_")
        refused.append(" ".join(word for word in (name, first, second) if word))
        return int(apsw.SQLITE_DENY)

    connection = apsw.Connection(str(database))
    try:
        connection.pragma("journal_mode", "off")
        connection.pragma("synchronous", "off")
        connection.pragma("encoding", encoding)
        connection.authorizer = authorize
        run_script(connection, file)
        connection.authorizer = None
        if not connection.get_autocommit():
            raise RefusedError(f"{file.name} ends inside a transaction", suggestion=_WHOLE)
        found = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite@_%' ESCAPE '@'"
        )
        held = [str(row[0]) for row in found.fetchall()]
    except (apsw.Error, UnicodeDecodeError) as error:
        why = f"it does what no dump of {', '.join(tables)} does: {refused[0]}" if refused else str(error)
        raise RefusedError(f"{file.name} was not restored: {why}", suggestion=_WHOLE) from error
    finally:
        connection.close()
    if not held:
        raise RefusedError(f"{file.name} makes none of the tables {', '.join(tables)}", suggestion=_WHOLE)
    return held


_WHOLE = "give a whole dump of the [social] tables, with their CREATE TABLE: sqlite3 DATABASE '.dump comments likes'"


def _belongs(action: int, first: str, second: str, allowed: set[str]) -> bool:
    """Whether a dump of the allowed tables does this."""
    if action in _ALWAYS:
        return True
    if action in _ON_A_TABLE:
        return first.lower() in allowed
    if action in _BESIDE_A_TABLE:
        return second.lower() in allowed
    if action == apsw.SQLITE_PRAGMA:
        return first.lower() in _PRAGMAS
    return action == apsw.SQLITE_FUNCTION and second.lower() in _FUNCTIONS
