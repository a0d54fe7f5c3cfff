"""Foreign keys after rows were moved: does any row refer to nothing that did not before?

Asked of SQLite (`PRAGMA foreign_key_check`), table by table, of the tables that were changed and of those that refer to
them. A row is known by what it refers to, since its rowid may be another's after a restore.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import apsw

from portfolio_ops.errors import RefusedError
from portfolio_ops.sqlite.check import quoted

_SHOWN = 3


@dataclass
class Dangling:
    """Rows that refer to nothing.

    Attributes:
        rows: How many there are, by (table, parent, number of the foreign key, values that refer).
        examples: A rowid for each of them; None where the table has none.
        unchecked: Tables of which SQLite cannot tell: a foreign key names columns that are no key.
    """

    rows: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    examples: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)


def dangling(connection: apsw.Connection, changed: Collection[str]) -> Dangling:
    """Look at the tables of `changed`, and at all that refer to one of them.

    In a database that holds only some of a site's tables, those that refer to the others refer to nothing by nature.
    """
    found = Dangling()
    names = [str(row[0]) for row in connection.execute("SELECT name FROM main.sqlite_schema WHERE type='table'")]
    present, wanted = {name.lower() for name in names}, {name.lower() for name in changed}
    for table in names:
        columns = _referring_columns(connection, table)
        if not columns or not (table.lower() in wanted or wanted & {parent.lower() for parent, _ in columns.values()}):
            continue
        try:
            rows = connection.execute(f"PRAGMA main.foreign_key_check({quoted(table)})").fetchall()
        except apsw.SQLError:
            found.unchecked.append(table)
            continue
        for _, rowid, parent, number in rows:
            if str(parent).lower() in present:
                key = (table, str(parent), number, _values(connection, table, rowid, columns[int(str(number))][1]))
                found.rows[key] += 1
                found.examples.setdefault(key, rowid)
    return found


def require_no_more(before: Dangling, after: Dangling) -> None:
    """Refuse if there are rows that refer to nothing, and did not before.

    Raises:
        RefusedError: There are.
    """
    new = after.rows - before.rows
    if new:
        shown = [
            f"{key[0]} row {'?' if after.examples[key] is None else after.examples[key]} refers to {key[1]}"
            for key in list(new)[:_SHOWN]
        ]
        raise RefusedError(
            f"{new.total()} rows would refer to nothing: {'; '.join(shown)}; nothing was changed",
            suggestion="restore to a file of its own and take what you need: --into PATH",
        )


def _referring_columns(connection: apsw.Connection, table: str) -> dict[int, tuple[str, list[str]]]:
    """By number of the foreign key: the table that it refers to, and the columns that do."""
    columns: dict[int, tuple[str, list[str]]] = {}
    query = 'SELECT id, "table", "from" FROM pragma_foreign_key_list(?, \'main\') ORDER BY id, seq'
    for number, parent, column in connection.execute(query, (table,)).fetchall():
        columns.setdefault(int(str(number)), (str(parent), []))[1].append(str(column))
    return columns


def _values(connection: apsw.Connection, table: str, rowid: Any, columns: list[str]) -> tuple[Any, ...]:
    """What a row refers by; empty for one that has no rowid: such rows are only counted."""
    if rowid is None:
        return ()
    listed = ", ".join(quoted(column) for column in columns)
    try:
        found = connection.execute(f"SELECT {listed} FROM main.{quoted(table)} WHERE rowid = ?", (rowid,)).fetchall()  # noqa: S608  (quoted)
    except apsw.SQLError:
        return ()
    return tuple(found[0]) if found else ()
