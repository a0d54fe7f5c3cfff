"""Some tables of a database as plain SQL, which restores into an existing database and into an empty one.

The text is for the `sqlite3` program (no dot-commands) as well as for a driver's script call. It is one transaction:
foreign keys off, each table dropped, made, filled (column lists, several rows a statement) and only then given its
indices and triggers, so that no trigger fires. Before COMMIT a guard compares row counts and rolls back if one is off:
the shell goes on after an error unless it is told `-bail`, and would commit half a table.

The same content gives the same bytes. So the check of an export is: restore it, export that, compare.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from portfolio_ops.errors import RefusedError
from portfolio_ops.sqlite.check import quoted
from portfolio_ops.sqlite.literal import literal

_CODECS = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}
_STATEMENT_CHARACTERS = 1 << 16
_ROWID_NAMES = ("rowid", "_rowid_", "oid")
_GENERATED = {2, 3}  # `hidden` of PRAGMA table_xinfo: virtual and stored generated columns

_HEAD = """\
-- Tables of a site, exported by portfolio-ops. Each table below is replaced whole; nothing else is touched.
-- Restore, with the site stopped:  sqlite3 -bail DATABASE < THIS_FILE
PRAGMA busy_timeout=10000;
PRAGMA encoding='{encoding}';
PRAGMA foreign_keys=OFF;
BEGIN IMMEDIATE;
"""

GUARD = "portfolio_ops_guard"
"""A temporary table that an export makes and drops again."""

_GUARD = """\
-- If anything went wrong above, this rolls all of it back.
CREATE TEMP TABLE portfolio_ops_guard(complete INTEGER CHECK(complete));
INSERT OR ROLLBACK INTO portfolio_ops_guard SELECT {conditions};
DROP TABLE temp.portfolio_ops_guard;
COMMIT;
"""


@dataclass(frozen=True)
class _Table:
    """What exporting one table needs to know.

    Attributes:
        columns: What is inserted: no generated columns, but the rowid where no column stands for it.
        counts: Whether it has AUTOINCREMENT.
        later: The SQL of its indices, then of its triggers.
    """

    name: str
    sql: str
    columns: tuple[str, ...]
    counts: bool
    later: tuple[str, ...]


def missing_tables(connection: apsw.Connection, tables: Sequence[str]) -> list[str]:
    """Those of `tables` that the database does not have. Names of tables do not depend on case."""
    present = {
        str(row[0]).lower() for row in connection.execute("SELECT name FROM pragma_table_list WHERE schema='main'")
    }
    return [table for table in tables if table.lower() not in present]


def export_tables(connection: apsw.Connection, tables: Sequence[str]) -> Iterator[bytes]:
    """Stream the SQL, a statement or less at a time, in constant memory.

    Args:
        connection: In a read transaction already, so that all tables are of one moment.
        tables: Existing ones.

    Raises:
        RefusedError: One is a view or a virtual table, or SQLite's own.
    """
    described = [_described(connection, table) for table in tables]
    encoding = str(connection.pragma("encoding"))
    yield _HEAD.format(encoding=encoding).encode()
    counts = []
    for table in described:
        yield f"DROP TABLE IF EXISTS {quoted(table.name)};\n{_terminated(table.sql)}\n".encode()
        count = 0
        for statement, rows in _inserts(connection, table, _CODECS[encoding]):
            count += rows
            yield statement.encode()
        counts.append(count)
        yield "".join((*_sequence(connection, table), *(f"{_terminated(sql)}\n" for sql in table.later))).encode()
    conditions = [f"(SELECT encoding FROM pragma_encoding)='{encoding}'"]  # noqa: S608  (text for a file)
    conditions += [
        f"(SELECT count(*) FROM {quoted(table.name)})={count}"  # noqa: S608  (quoted; this is text for a file)
        for table, count in zip(described, counts, strict=True)
    ]
    yield _GUARD.format(conditions="\n  AND ".join(conditions)).encode()


def _described(connection: apsw.Connection, name: str) -> _Table:
    kind, without_rowid = _row(
        connection, "SELECT type, wr FROM pragma_table_list WHERE schema='main' AND name=? COLLATE NOCASE", name
    )
    if kind not in {"table", "shadow"} or name.lower().startswith("sqlite_"):
        what = "one of SQLite's own" if kind == "table" else f"a {kind}"
        raise RefusedError(
            f"{name} cannot be exported: it is {what}",
            suggestion="name plain tables only in [social] tables; the daily backup holds the whole database",
        )
    name, sql = _row(
        connection, "SELECT name, sql FROM sqlite_schema WHERE type='table' AND name=? COLLATE NOCASE", name
    )
    found = connection.execute("SELECT name, hidden FROM pragma_table_xinfo(?) ORDER BY cid", (name,)).fetchall()
    later = connection.execute(
        "SELECT sql FROM sqlite_schema WHERE tbl_name=? COLLATE NOCASE AND type IN ('index','trigger') "
        "AND sql IS NOT NULL ORDER BY type, rowid",
        (name,),
    )
    columns = [str(column) for column, hidden in found if hidden not in _GENERATED]
    rowid = None if without_rowid else _bare_rowid(connection, name, [str(column) for column, _ in found])
    return _Table(
        name,
        sql,
        (*([rowid] if rowid else []), *(quoted(column) for column in columns)),
        _has_autoincrement(sql),
        tuple(str(row[0]) for row in later),
    )


def _row(connection: apsw.Connection, query: str, name: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = connection.execute(query, (name,)).fetchall()[0]
    return row


def _bare_rowid(connection: apsw.Connection, name: str, columns: Sequence[str]) -> str | None:
    """The name of a rowid that no column stands for; None if one does, or if its names are all taken by columns.

    A primary key that is the rowid (<https://www.sqlite.org/lang_createtable.html#rowid>) has no index of its own.
    """
    has_key = connection.execute("SELECT 1 FROM pragma_table_xinfo(?) WHERE pk", (name,)).fetchall()
    has_index = connection.execute("SELECT 1 FROM pragma_index_list(?) WHERE origin='pk'", (name,)).fetchall()
    if has_key and not has_index:
        return None
    taken = {column.lower() for column in columns}
    return next((each for each in _ROWID_NAMES if each not in taken), None)


def _has_autoincrement(sql: str) -> bool:
    """Whether making this table makes SQLite keep a sequence for it: asked of SQLite, in memory."""
    trial = apsw.Connection(":memory:")
    try:
        trial.execute(sql)
        return bool(trial.execute("SELECT 1 FROM sqlite_schema WHERE name='sqlite_sequence'").fetchall())
    finally:
        trial.close()


def _terminated(sql: str) -> str:
    """The statement with its semicolon, where a comment at its end cannot hide it."""
    bare = sql.rstrip()
    return f"{bare}\n;" if "--" in bare else f"{bare};"


def _inserts(connection: apsw.Connection, table: _Table, codec: str) -> Iterator[tuple[str, int]]:
    """The INSERT statements with their numbers of rows.

    NOT INDEXED: the planner may otherwise walk a covering index, whose order is another.
    """
    values = ", ".join(
        f"typeof({column}), iif(typeof({column})='text', CAST({column} AS BLOB), {column})" for column in table.columns
    )
    query = f"SELECT {values} FROM {quoted(table.name)} NOT INDEXED"  # noqa: S608  (identifiers, quoted)
    head = f"INSERT INTO {quoted(table.name)}({','.join(table.columns)}) VALUES\n"
    rows: list[str] = []
    size = 0

    def statement() -> tuple[str, int]:
        return head + ",\n".join(rows) + ";\n", len(rows)

    for row in connection.execute(query):
        pairs = zip(row[::2], row[1::2], strict=True)
        rows.append(f"({','.join(literal(str(kind), value, codec) for kind, value in pairs)})")
        size += len(rows[-1])
        if size >= _STATEMENT_CHARACTERS:
            yield statement()
            rows, size = [], 0
    if rows:
        yield statement()


def _sequence(connection: apsw.Connection, table: _Table) -> Iterator[str]:
    """Put AUTOINCREMENT where it was: IDs that were given out once must not come again."""
    if table.counts:
        name = literal("text", table.name.encode(), "utf-8")
        yield f"DELETE FROM sqlite_sequence WHERE name={name};\n"  # noqa: S608  (text for a file)
        for (seq,) in connection.execute("SELECT seq FROM sqlite_sequence WHERE name=?", (table.name,)):
            yield f"INSERT INTO sqlite_sequence(name,seq) VALUES({name},{'NULL' if seq is None else int(str(seq))});\n"
