"""A restored database beside the live one: is anything missing that was there when it was taken?

The live one has moved on, so counts differ. But rows that came since have higher rowids than any that was there then,
or took the place of deleted ones. So of the rows that the live table has *up to the highest rowid of the copy*, there
can be no more than the copy has. More of them means that the copy lacks some (or that the site chooses its rowids at
random). Where no column stands for the rowid, VACUUM may give others: such tables are only counted.
"""

from dataclasses import dataclass
from pathlib import Path

import apsw

from portfolio_ops.sqlite.check import quoted
from portfolio_ops.sqlite.connection import immutable

_TABLES = (
    "SELECT name FROM pragma_table_list WHERE schema='main' AND type='table' "
    "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
)
# One column is the primary key, and that has no index of its own: it is the rowid (lang_createtable.html#rowid).
_ROWID_COLUMN = (
    "SELECT max(name) FROM pragma_table_xinfo(?1, 'main') WHERE pk HAVING count(*) = 1 "
    "AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk')"
)


@dataclass(frozen=True)
class Comparison:
    """How a copy stands beside the live database.

    Attributes:
        rows: By table: rows of the copy, rows of the live one.
        missing: Tables of the live database that the copy lacks.
        fewer: Tables of which the copy lacks rows, in words.
    """

    rows: dict[str, tuple[int, int]]
    missing: tuple[str, ...]
    fewer: tuple[str, ...]


def compare(copy: Path, live: apsw.Connection) -> Comparison:
    """Hold a copy against the live database.

    Args:
        copy: A file that nobody writes.
        live: In a read transaction.
    """
    connection = immutable(copy)
    try:
        ours = {str(row[0]) for row in connection.execute(_TABLES)}
        theirs = [str(row[0]) for row in live.execute(_TABLES).fetchall()]
        common = [name for name in theirs if name in ours]
        rows = {name: (_count(connection, name), _count(live, name)) for name in common}
        fewer = [
            f"{name}: {more} rows that the live table has had since before"
            for name in common
            if (more := _unexplained(connection, live, name)) > 0
        ]
    finally:
        connection.close()
    return Comparison(rows, tuple(name for name in theirs if name not in ours), tuple(fewer))


def _count(connection: apsw.Connection, table: str) -> int:
    return _number(connection, f"SELECT count(*) FROM {quoted(table)}")  # noqa: S608  (an identifier, quoted)


def _unexplained(copy: apsw.Connection, live: apsw.Connection, table: str) -> int:
    """Rows that the live table has up to the copy's highest rowid, beyond those that the copy has."""
    found = live.execute(_ROWID_COLUMN, (table,)).fetchall()
    if not found:
        return 0
    rowid = quoted(str(found[0][0]))
    highest = _number(copy, f"SELECT coalesce(max({rowid}), 0) FROM {quoted(table)}")  # noqa: S608
    then = _number(live, f"SELECT count(*) FROM {quoted(table)} WHERE {rowid} <= {highest}")  # noqa: S608
    return then - _count(copy, table)


def _number(connection: apsw.Connection, query: str) -> int:
    return int(str(connection.execute(query).fetchall()[0][0]))
