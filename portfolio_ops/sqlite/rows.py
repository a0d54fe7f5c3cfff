"""Which rows were added to a table since the last look, by their rowids; without a trace in the database.

A new row gets the rowid after the greatest (<https://www.sqlite.org/autoinc.html>), so new rows are those above the
greatest that is known. But that may have been deleted, and its rowid given again: so the greatest few are remembered
with a digest of their names, and what lies above the greatest that is still there is new. A VACUUM may number a table
anew, closing gaps: a name that was known under a greater rowid is known.

Not seen: a row that is gone again at the next look, one that is inserted with an explicit rowid below the greatest,
and one that takes rowid and name of one that was deleted. Where AUTOINCREMENT gives no rowid twice, another name on a
known rowid is a change of the name; elsewhere the newest row with another name counts as added.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import apsw

from portfolio_ops.errors import PortfolioOpsError

NAMES_MOST = 100
"""So many names are listed; of more rows only the last is named."""

_MARKS = 16
_NAME_BYTES = 40_000
_NAME_LENGTH = 10_000


class NotWatchableError(PortfolioOpsError):
    """The table cannot be followed by rowids."""

    code = "NOT_WATCHABLE"


@dataclass(frozen=True)
class Mark:
    """A row that is known: its rowid, and a digest of its name."""

    rowid: int
    digest: str


@dataclass(frozen=True)
class Row:
    """A row: its mark, and its name in words (not empty, at most 10,000 characters)."""

    mark: Mark
    name: str


@dataclass(frozen=True)
class Look:
    """What a look found.

    Attributes:
        is_there: Whether there is such a table.
        marks: What is known from now on, greatest rowid first; empty where there is no table, or no row.
        added: Rows that were not known, in order: the first of them, and the last.
        more: Whether there are others between these.
    """

    is_there: bool
    marks: tuple[Mark, ...]
    added: tuple[Row, ...] = ()
    more: bool = False


def look(connection: apsw.Connection, table: str, column: str, known: tuple[Mark, ...] | None) -> Look:
    """Look at a table, in a read transaction of its own. It costs the same for a table of any length.

    Args:
        connection: Without a transaction.
        column: Where the rows' names are.
        known: The marks of the last look; None where there was none: then all that is there is known.

    Raises:
        NotWatchableError: It is a view, a virtual table, has no rowid, or no such column.
        apsw.Error: It cannot be read.
    """
    connection.execute("BEGIN")
    try:
        found = connection.execute(
            "SELECT name, type, rootpage FROM sqlite_schema "
            "WHERE name = ? COLLATE NOCASE AND type IN ('table', 'view')",
            (table,),
        ).fetchall()
        if not found:
            return Look(False, ())
        [(name, kind, page)] = found
        if not page:  # neither has one
            raise NotWatchableError(f"{name} is a {'view' if kind == 'view' else 'virtual table'}, not a table")
        return _Table(connection, str(name), column).compared(known)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


class _Table:
    """A table that is there."""

    def __init__(self, connection: apsw.Connection, name: str, column: str) -> None:
        self._connection, self._name = connection, name
        self._encoding = str(connection.pragma("encoding"))
        columns = {str(row[0]).lower() for row in connection.execute("SELECT name FROM pragma_table_xinfo(?)", (name,))}
        if column.lower() not in columns:
            raise NotWatchableError(f"the table {name} has no column {column}")
        # A column of that name would hide the rowid.
        rowid = next((word for word in ("rowid", "_rowid_", "oid") if word not in columns), None)
        if rowid is None:
            raise NotWatchableError(f"the columns of {name} hide its rowid")
        self._rowid, quoted = f"t.{rowid}", column.replace('"', '""')
        # With the table's name before it, SQLite does not take what is no column for text. Bytes: text may be no text.
        value = f't."{quoted}"'
        self._query = (
            f"SELECT {self._rowid}, typeof({value}), "  # noqa: S608  (quoted)
            f"CASE WHEN octet_length({value}) <= {_NAME_BYTES} THEN CAST({value} AS BLOB) END "
            f"FROM {self._quoted()} AS t"
        )

    def _quoted(self) -> str:
        quoted = self._name.replace('"', '""')
        return f'main."{quoted}"'

    def _rows(self, rest: str, *values: int) -> list[Row]:
        try:
            found = self._connection.execute(f"{self._query} {rest}", values).fetchall()
        except apsw.SQLError as error:
            if "no such column" in str(error):
                raise NotWatchableError(f"the table {self._name} has no rowid (WITHOUT ROWID)") from error
            raise
        return [self._row(*row) for row in found]

    def _row(self, rowid: Any, kind: Any, raw: Any) -> Row:
        """A row of what `_query` selects."""
        digest = hashlib.sha256(kind.encode() + (raw or b"")).hexdigest()[:16]
        if raw is None:
            name = ""
        elif kind == "blob":
            name = f"X'{raw.hex()}'"
        else:
            name = raw.decode(self._encoding, "replace")
        return Row(Mark(rowid, digest), name[:_NAME_LENGTH] if name.strip() else f"row {rowid}")

    def compared(self, known: tuple[Mark, ...] | None) -> Look:
        """What is there beside what is known."""
        newest = self._rows(f"ORDER BY {self._rowid} DESC LIMIT {_MARKS}")
        marks = tuple(row.mark for row in newest)
        if known is None or marks == known:
            return Look(True, marks)
        if known:
            above = self._greatest_known(known)
            added = self._rows(f"WHERE {self._rowid} > ? ORDER BY {self._rowid} LIMIT {NAMES_MOST + 1}", above)
        else:
            added = self._rows(f"ORDER BY {self._rowid} LIMIT {NAMES_MOST + 1}")
        more = len(added) > NAMES_MOST
        return Look(True, marks, (*added[:NAMES_MOST], newest[0]) if more else tuple(added), more)

    def _greatest_known(self, known: tuple[Mark, ...]) -> int:
        """The greatest rowid of a row that is known; or the one below all that were, where none of them is left."""
        greatest = known[0].rowid
        if self._gives_no_rowid_twice():
            return greatest
        for row in self._rows(f"WHERE {self._rowid} <= ? ORDER BY {self._rowid} DESC LIMIT {_MARKS}", greatest):
            if any(row.mark.digest == mark.digest and row.mark.rowid <= mark.rowid for mark in known):
                return row.mark.rowid
        return known[-1].rowid - 1

    def _gives_no_rowid_twice(self) -> bool:
        """Whether it is AUTOINCREMENT: then, and only then, it is in `sqlite_sequence` once it had a row."""
        connection = self._connection
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'").fetchall():
            return False
        return bool(connection.execute("SELECT 1 FROM sqlite_sequence WHERE name = ?", (self._name,)).fetchall())
