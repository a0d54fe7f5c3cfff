"""Full-text indices whose text stands in a table of the site: made anew when that table's rows were replaced.

Such an index (<https://www.sqlite.org/fts5.html#external_content_tables>) is kept by triggers of the table, and those
do not fire in a restore. Left as it was, it would name rows that are gone: SQLite then calls the database malformed.
"""

import re
from collections.abc import Collection

import apsw

from portfolio_ops.sqlite.check import quoted

_OF_TABLE = re.compile(r"""USING\s+fts[45]\b.*?\bcontent\s*=\s*(['"`\[]?)([^'"`\],)]+)""", re.IGNORECASE | re.DOTALL)


def search_tables(connection: apsw.Connection, tables: Collection[str]) -> list[str]:
    """The full-text indices whose content is one of `tables`."""
    wanted = {table.lower() for table in tables}
    rows = connection.execute("SELECT name, sql FROM main.sqlite_schema WHERE type='table' AND rootpage=0")
    return [
        str(name)
        for name, sql in rows.fetchall()
        if (found := _OF_TABLE.search(str(sql))) and found[2].strip().lower() in wanted
    ]


def rebuild(connection: apsw.Connection, searches: Collection[str]) -> None:
    """Make them anew from the rows that are there."""
    for name in searches:
        connection.execute(f"INSERT INTO main.{quoted(name)}({quoted(name)}) VALUES('rebuild')")
