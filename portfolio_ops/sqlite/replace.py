"""Rows of some tables from one database into another, in one transaction: all of them, or only those that are missing.

The live tables keep their definitions, indices and triggers; triggers do not fire. Only a table that is missing is made
as the source has it. Foreign keys are not enforced row by row (the order of rows would matter) but checked at the end:
a row that refers to nothing, and did not before, takes everything back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from portfolio_ops.errors import RefusedError
from portfolio_ops.sqlite.check import quoted

_GENERATED = {2, 3}  # `hidden` of PRAGMA table_xinfo: virtual and stored generated columns
_SHOWN = 3


@dataclass(frozen=True)
class Change:
    """What would become of one table.

    Attributes:
        source: Rows that come.
        live: Rows that are there.
        back: Rows of the source that the live table lacks.
        changed: Rows of both, by their key, that differ.
        lost: Rows of the live table that the source lacks: a replacement loses them, a merge keeps them.
        made: Whether the live database lacks the table.
        unfilled: Columns of the live table that the source lacks; they get their defaults.
    """

    table: str
    source: int
    live: int
    back: int
    changed: int
    lost: int
    made: bool
    unfilled: tuple[str, ...]


def attach(connection: apsw.Connection, source: Path) -> None:
    """Open the source beside the live database, under the name `source`."""
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.pragma("foreign_keys", 0)
    connection.execute("ATTACH ? AS source", (str(source),))


def changes(connection: apsw.Connection, tables: Sequence[str]) -> list[Change]:
    """What would become of each table.

    Raises:
        RefusedError: A table cannot take the rows: it is a view, or lacks a column.
    """
    return [_change(connection, table) for table in tables]


def replace_rows(connection: apsw.Connection, tables: Sequence[str], *, merge: bool) -> list[Change]:
    """Do it.

    Args:
        merge: Bring back only what is missing; what is there, stays as it is.

    Returns:
        What became of each table, counted inside the transaction.

    Raises:
        RefusedError: As `changes`; or rows would refer to nothing that did not before. Nothing is changed.
        apsw.Error: SQLite refuses a row. Nothing is changed.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        before = _violations(connection)
        done = [_replaced(connection, table, merge=merge) for table in tables]
        after = _violations(connection)
        _require_no_new(before, after)
        connection.execute("COMMIT")
    except BaseException:
        if not connection.get_autocommit():
            connection.execute("ROLLBACK")
        raise
    return done


def _change(connection: apsw.Connection, table: str) -> Change:
    kind = connection.execute(
        "SELECT type FROM pragma_table_list WHERE schema='main' AND name=? COLLATE NOCASE", (table,)
    ).fetchall()
    source_count = _count(connection, f"source.{quoted(table)}")
    if not kind:
        return Change(table, source_count, 0, source_count, 0, 0, made=True, unfilled=())
    if kind[0][0] != "table":
        raise RefusedError(
            f"{table} is a {kind[0][0]} in the live database", suggestion="only plain tables are restored"
        )
    columns, unfilled = _columns(connection, table)
    match = _match(_key(connection, table) or columns)
    others = " OR ".join(f"s.{quoted(column)} IS NOT l.{quoted(column)}" for column in columns)
    live, source = f"main.{quoted(table)} l", f"source.{quoted(table)} s"
    back = _count(connection, source, f"NOT EXISTS (SELECT 1 FROM {live} WHERE {match})")  # noqa: S608  (quoted)
    lost = _count(connection, live, f"NOT EXISTS (SELECT 1 FROM {source} WHERE {match})")  # noqa: S608
    changed = _count(connection, f"{source} JOIN {live} ON {match}", others)
    return Change(
        table,
        source_count,
        _count(connection, live),
        back,
        changed,
        lost,
        made=False,
        unfilled=unfilled,
    )


def _columns(connection: apsw.Connection, table: str) -> tuple[list[str], tuple[str, ...]]:
    """The columns that both have, and those that only the live table has."""
    live, source = (_plain_columns(connection, schema, table) for schema in ("main", "source"))
    names = {column.lower() for column in live}
    if extra := [column for column in source if column.lower() not in names]:
        raise RefusedError(
            f"the live table {table} has no column {', '.join(extra)}: their values would be lost",
            suggestion="restore to a file of its own and take what you need: --into PATH",
        )
    has = {column.lower() for column in source}
    return [each for each in live if each.lower() in has], tuple(each for each in live if each.lower() not in has)


def _plain_columns(connection: apsw.Connection, schema: str, table: str) -> list[str]:
    found = connection.execute("SELECT name, hidden FROM pragma_table_xinfo(?, ?) ORDER BY cid", (table, schema))
    return [str(name) for name, hidden in found.fetchall() if hidden not in _GENERATED]


def _key(connection: apsw.Connection, table: str) -> list[str]:
    """The primary key's columns; empty where there is none: then a row is the same only if all of it is."""
    found = connection.execute("SELECT name FROM pragma_table_xinfo(?, 'main') WHERE pk ORDER BY pk", (table,))
    return [str(row[0]) for row in found.fetchall()]


def _match(columns: Sequence[str]) -> str:
    return " AND ".join(f"s.{quoted(column)} IS l.{quoted(column)}" for column in columns)


def _count(connection: apsw.Connection, source: str, condition: str = "1") -> int:
    query = f"SELECT count(*) FROM {source} WHERE {condition}"  # noqa: S608  (identifiers are quoted)
    return int(str(connection.execute(query).fetchall()[0][0]))


def _replaced(connection: apsw.Connection, table: str, *, merge: bool) -> Change:
    change = _change(connection, table)
    later = _make(connection, table) if change.made else []
    columns, _ = _columns(connection, table)
    names = [quoted(column) for column in columns]
    listed, selected = ", ".join(names), ", ".join(f"s.{name}" for name in names)
    target, source = f"main.{quoted(table)}", f"source.{quoted(table)} s"
    if merge and not change.made:
        missing = f"NOT EXISTS (SELECT 1 FROM {target} l WHERE {_match(_key(connection, table) or columns)})"  # noqa: S608
        connection.execute(f"INSERT OR IGNORE INTO {target}({listed}) SELECT {selected} FROM {source} WHERE {missing}")  # noqa: S608
    else:
        if rowid := _free_rowid(connection, table):
            listed, selected = f"{rowid}, {listed}", f"s.{rowid}, {selected}"
        connection.execute(f"DELETE FROM {target}")  # noqa: S608
        connection.execute(f"INSERT INTO {target}({listed}) SELECT {selected} FROM {source}")  # noqa: S608
    for sql in later:
        connection.execute(sql)
    _keep_sequence(connection, table)
    return change


def _make(connection: apsw.Connection, table: str) -> list[str]:
    """Make a missing table; its indices and triggers are for later."""
    found = connection.execute(
        "SELECT type, sql FROM source.sqlite_schema WHERE tbl_name=? COLLATE NOCASE AND sql IS NOT NULL "
        "ORDER BY type='trigger', type='index', rowid",
        (table,),
    ).fetchall()
    connection.execute(str(found[0][1]))
    return [str(sql) for _, sql in found[1:]]


def _free_rowid(connection: apsw.Connection, table: str) -> str | None:
    """A name of the rowid, where the table has one that no column stands for; both tables alike."""
    without = connection.execute(
        "SELECT max(wr) FROM pragma_table_list WHERE schema IN ('main', 'source') AND name=? COLLATE NOCASE", (table,)
    ).fetchall()[0][0]
    if without or _key(connection, table):
        return None
    taken = {column.lower() for column in _plain_columns(connection, "main", table)}
    return next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), None)


def _keep_sequence(connection: apsw.Connection, table: str) -> None:
    """AUTOINCREMENT goes on behind the higher of both: an ID that was given out once does not come again."""
    for schema in ("main", "source"):
        if not connection.execute(f"SELECT 1 FROM {schema}.sqlite_schema WHERE name='sqlite_sequence'").fetchall():  # noqa: S608
            return
    connection.execute(
        "UPDATE main.sqlite_sequence SET seq = max(seq, coalesce("
        "(SELECT seq FROM source.sqlite_sequence WHERE name=?1 COLLATE NOCASE), 0)) WHERE name=?1 COLLATE NOCASE",
        (table,),
    )


def _violations(connection: apsw.Connection) -> set[tuple[Any, ...]] | None:
    """Rows that refer to nothing; None where SQLite cannot tell (a foreign key that names no key).

    In a database that holds only some of a site's tables, those that refer to the others refer to nothing by nature.
    """
    tables = {str(row[0]).lower() for row in connection.execute("SELECT name FROM main.sqlite_schema").fetchall()}
    try:
        found = connection.execute("PRAGMA main.foreign_key_check").fetchall()
    except apsw.SQLError:
        return None
    return {row for row in found if str(row[2]).lower() in tables}


def _require_no_new(before: set[tuple[Any, ...]] | None, after: set[tuple[Any, ...]] | None) -> None:
    new = sorted((after or set()) - (before or set()), key=str)
    if new:
        shown = "; ".join(f"{table} row {rowid} refers to {parent}" for table, rowid, parent, _ in new[:_SHOWN])
        raise RefusedError(
            f"{len(new)} rows would refer to nothing: {shown}; nothing was changed",
            suggestion="restore to a file of its own and take what you need: --into PATH",
        )
