"""Rows of some tables from one database into another, in one transaction: all of them, or only those that are missing.

The live tables keep their definitions, indices and triggers; triggers do not fire. Only a table that is missing is made
as the source has it. Foreign keys are not enforced row by row (the order of rows would matter) but checked at the end:
a row that refers to nothing, and did not before, takes everything back.

A table with a primary key is compared by it. In one without, a row is the same only if all of it is, and how often it
stands there counts.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import apsw

from portfolio_ops.errors import RefusedError
from portfolio_ops.sqlite.bounds import bounded
from portfolio_ops.sqlite.check import quoted
from portfolio_ops.sqlite.references import dangling, require_no_more
from portfolio_ops.sqlite.search import rebuild, search_tables

_GENERATED = {2, 3}  # `hidden` of PRAGMA table_xinfo: virtual and stored generated columns
_ASIDE = "try --into PATH, a file of its own, and take what you need"
_TIMES = '"portfolio_ops times"'


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
        triggers: Of the live table: they do not fire, so what they keep elsewhere stays as it is.
        put: Rows that were put there; 0 while nothing was done.
        clashes: Rows that a merge left out, because another unique value of theirs is taken.
    """

    table: str
    source: int
    live: int
    back: int
    changed: int
    lost: int
    made: bool
    unfilled: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    put: int = 0
    clashes: int = 0


@dataclass(frozen=True)
class Moved:
    """What a restore did.

    Attributes:
        changes: Of each table.
        unchecked: Tables whose foreign keys SQLite cannot check, since they name columns that are no key.
        searches: Full-text indices that were made anew.
    """

    changes: tuple[Change, ...]
    unchecked: tuple[str, ...]
    searches: tuple[str, ...]


def attach(connection: apsw.Connection, source: Path) -> None:
    """Open the source beside the live database, under the name `source`."""
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.pragma("foreign_keys", 0)
    connection.execute("ATTACH ? AS source", (str(source),))


@contextlib.contextmanager
def one_transaction(connection: apsw.Connection) -> Iterator[None]:
    """The block is one write transaction; whatever it raises, nothing was changed. A Ctrl-C ends it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        with bounded(connection, "the restore"):
            yield
        connection.execute("COMMIT")
    except BaseException:
        if not connection.get_autocommit():
            connection.execute("ROLLBACK")
        raise


def changes(connection: apsw.Connection, tables: Sequence[str]) -> list[Change]:
    """What would become of each table.

    Raises:
        RefusedError: A table cannot take the rows: it is a view, or lacks a column.
    """
    with bounded(connection, "the comparison"):
        return [_change(connection, table) for table in tables]


def replace_rows(connection: apsw.Connection, tables: Sequence[str], *, merge: bool) -> Moved:
    """Do it; the caller holds a transaction.

    Args:
        merge: Bring back only what is missing; what is there, stays as it is.

    Raises:
        RefusedError: As `changes`; or the live database does not take all rows as they are; or rows would refer to
            nothing that did not before.
        apsw.Error: SQLite refuses a row.
    """
    before = dangling(connection, tables)
    done = tuple(_moved(connection, table, merge=merge) for table in tables)
    searches = search_tables(connection, tables)
    rebuild(connection, searches)
    after = dangling(connection, tables)
    require_no_more(before, after)
    return Moved(done, tuple(after.unchecked), tuple(searches))


def _change(connection: apsw.Connection, table: str) -> Change:
    kind = connection.execute(
        "SELECT type FROM pragma_table_list WHERE schema='main' AND name=? COLLATE NOCASE", (table,)
    ).fetchall()
    source_count = _count(connection, f"source.{quoted(table)}")
    if not kind:
        return Change(table, source_count, 0, source_count, 0, 0, made=True)
    if kind[0][0] != "table":
        raise RefusedError(
            f"{table} is a {kind[0][0]} in the live database", suggestion="only plain tables are restored"
        )
    columns, unfilled = _columns(connection, table)
    key = _key(connection, table, columns)
    back, changed, lost = (
        _by_key(connection, table, columns, key) if key else _by_whole_rows(connection, table, columns)
    )
    triggers = connection.execute(
        "SELECT name FROM main.sqlite_schema WHERE type='trigger' AND tbl_name=? COLLATE NOCASE ORDER BY name", (table,)
    )
    return Change(
        table,
        source_count,
        _count(connection, f"main.{quoted(table)}"),
        back,
        changed,
        lost,
        made=False,
        unfilled=unfilled,
        triggers=tuple(str(row[0]) for row in triggers.fetchall()),
    )


def _by_key(
    connection: apsw.Connection, table: str, columns: Sequence[str], key: Sequence[str]
) -> tuple[int, int, int]:
    """Rows that come back, that differ, that would be lost."""
    # A dump may have left the key out of its table; the live one has an index of it.
    name, listed = quoted(f"portfolio_ops {table}"), ", ".join(quoted(column) for column in key)
    connection.execute(f"CREATE INDEX IF NOT EXISTS source.{name} ON {quoted(table)}({listed})")
    match = _match(key)
    others = " OR ".join(f"s.{quoted(column)} COLLATE BINARY IS NOT l.{quoted(column)}" for column in columns)
    live, source = f"main.{quoted(table)} l", f"source.{quoted(table)} s"
    return (
        _count(connection, source, f"NOT EXISTS (SELECT 1 FROM {live} WHERE {match})"),  # noqa: S608  (quoted)
        _count(connection, f"{source} JOIN {live} ON {match}", others),
        _count(connection, live, f"NOT EXISTS (SELECT 1 FROM {source} WHERE {match})"),  # noqa: S608
    )


def _by_whole_rows(connection: apsw.Connection, table: str, columns: Sequence[str]) -> tuple[int, int, int]:
    query = f"SELECT total(max({_TIMES}, 0)), total(max(-{_TIMES}, 0)) FROM ({_difference(table, columns)})"  # noqa: S608
    back, lost = connection.execute(query).fetchall()[0]
    return int(float(str(back))), 0, int(float(str(lost)))


def _difference(table: str, columns: Sequence[str]) -> str:
    """A query: each row that does not stand equally often in both, and how much more often in the source."""
    listed = ", ".join(quoted(column) for column in columns)
    grouped = ", ".join(f"{quoted(column)} COLLATE BINARY" for column in columns)
    return (
        f"SELECT {listed}, sum({_TIMES}) AS {_TIMES} FROM ("  # noqa: S608  (identifiers are quoted)
        f"SELECT {listed}, 1 AS {_TIMES} FROM source.{quoted(table)} UNION ALL "
        f"SELECT {listed}, -1 FROM main.{quoted(table)}) GROUP BY {grouped} HAVING sum({_TIMES}) <> 0"
    )


def _columns(connection: apsw.Connection, table: str) -> tuple[list[str], tuple[str, ...]]:
    """The columns that both have, and those that only the live table has."""
    live, source = (_plain_columns(connection, schema, table) for schema in ("main", "source"))
    names = {column.lower() for column in live}
    if extra := [column for column in source if column.lower() not in names]:
        raise RefusedError(
            f"the live table {table} has no column {', '.join(extra)}: their values would be lost", suggestion=_ASIDE
        )
    has = {column.lower() for column in source}
    return [each for each in live if each.lower() in has], tuple(each for each in live if each.lower() not in has)


def _plain_columns(connection: apsw.Connection, schema: str, table: str) -> list[str]:
    found = connection.execute("SELECT name, hidden FROM pragma_table_xinfo(?, ?) ORDER BY cid", (table, schema))
    return [str(name) for name, hidden in found.fetchall() if hidden not in _GENERATED]


def _key(connection: apsw.Connection, table: str, columns: Sequence[str]) -> list[str]:
    """The primary key's columns; empty where there is none, or where the source lacks one of them."""
    found = connection.execute("SELECT name FROM pragma_table_xinfo(?, 'main') WHERE pk ORDER BY pk", (table,))
    key = [str(row[0]) for row in found.fetchall()]
    return key if set(key) <= set(columns) else []


def _match(columns: Sequence[str]) -> str:
    return " AND ".join(f"s.{quoted(column)} IS l.{quoted(column)}" for column in columns)


def _count(connection: apsw.Connection, source: str, condition: str = "1") -> int:
    query = f"SELECT count(*) FROM {source} WHERE {condition}"  # noqa: S608  (identifiers are quoted)
    return int(str(connection.execute(query).fetchall()[0][0]))


def _moved(connection: apsw.Connection, table: str, *, merge: bool) -> Change:
    """One table's rows over."""
    change = _change(connection, table)
    later = _make(connection, table) if change.made else []
    columns, _ = _columns(connection, table)
    if merge and not change.made:
        put = _merged(connection, table, columns)
        change = replace(change, put=put, clashes=change.back - put)
    else:
        change = replace(change, put=_replaced(connection, table, columns))
    for sql in later:
        connection.execute(sql)
    _keep_sequence(connection, table)
    return change


def _replaced(connection: apsw.Connection, table: str, columns: Sequence[str]) -> int:
    names = [quoted(column) for column in columns]
    listed, selected = ", ".join(names), ", ".join(f"s.{name}" for name in names)
    if rowid := _free_rowid(connection, table):
        listed, selected = f"{rowid}, {listed}", f"s.{rowid}, {selected}"
    target, source = f"main.{quoted(table)}", f"source.{quoted(table)}"
    connection.execute(f"DELETE FROM {target}")  # noqa: S608  (quoted)
    connection.execute(f"INSERT INTO {target}({listed}) SELECT {selected} FROM {source} s")  # noqa: S608
    wanted, found = _count(connection, source), _count(connection, target)
    if wanted != found:
        raise RefusedError(
            f"of {wanted:,} rows of {table} the live database would keep {found:,}, by its own rules for conflicts; "
            "nothing was changed",
            suggestion=_ASIDE,
        )
    return found


def _merged(connection: apsw.Connection, table: str, columns: Sequence[str]) -> int:
    """Only the rows that are missing. One that meets another unique value is left out; any other fault fails."""
    listed = ", ".join(quoted(column) for column in columns)
    target = f"main.{quoted(table)}"
    if key := _key(connection, table, columns):
        missing = f"NOT EXISTS (SELECT 1 FROM {target} l WHERE {_match(key)})"  # noqa: S608  (quoted)
        selected = ", ".join(f"s.{quoted(column)}" for column in columns)
        connection.execute(
            f"INSERT INTO {target}({listed}) SELECT {selected} FROM source.{quoted(table)} s "  # noqa: S608
            f"WHERE {missing} ON CONFLICT DO NOTHING"
        )
        return connection.changes()
    put, times = 0, 1
    connection.execute(f"CREATE TEMP TABLE portfolio_ops_missing AS {_difference(table, columns)}")
    while _count(connection, "temp.portfolio_ops_missing", f"{_TIMES} >= {times}"):
        connection.execute(
            f"INSERT INTO {target}({listed}) SELECT {listed} FROM temp.portfolio_ops_missing "  # noqa: S608
            f"WHERE {_TIMES} >= {times} ON CONFLICT DO NOTHING"
        )
        put, times = put + connection.changes(), times + 1
    connection.execute("DROP TABLE temp.portfolio_ops_missing")
    return put


def _make(connection: apsw.Connection, table: str) -> list[str]:
    """Make a missing table; its indices and triggers are for later."""
    found = connection.execute(
        "SELECT type, sql FROM source.sqlite_schema WHERE tbl_name=? COLLATE NOCASE AND sql IS NOT NULL "
        "AND name NOT LIKE 'portfolio@_ops %' ESCAPE '@' ORDER BY type='trigger', type='index', rowid",
        (table,),
    ).fetchall()
    connection.execute(str(found[0][1]))
    return [str(sql) for _, sql in found[1:]]


def _free_rowid(connection: apsw.Connection, table: str) -> str | None:
    """A name of the rowid, where the table has one that no column stands for; both tables alike."""
    without = connection.execute(
        "SELECT max(wr) FROM pragma_table_list WHERE schema IN ('main', 'source') AND name=? COLLATE NOCASE", (table,)
    ).fetchall()[0][0]
    keyed = connection.execute("SELECT 1 FROM pragma_table_xinfo(?, 'main') WHERE pk", (table,)).fetchall()
    if without or keyed:
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
        "(SELECT CAST(seq AS INTEGER) FROM source.sqlite_sequence WHERE name=?1 COLLATE NOCASE), 0)) "
        "WHERE name=?1 COLLATE NOCASE",
        (table,),
    )
