"""The site's own SQL on a restored copy: it may read, and nothing else."""

from pathlib import Path

import apsw

from portfolio_ops.sqlite.connection import immutable

_READS = {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE}


def failed_assertions(file: Path, statements: tuple[str, ...]) -> list[str]:
    """Those statements whose first value is not true, and those that cannot be run; each with the reason.

    Args:
        file: A database that nobody writes.
        statements: Each one SELECT, for example `SELECT count(*) > 0 FROM galleries`.
    """
    connection = immutable(file)
    try:
        connection.authorizer = _only_reading
        return [f"{statement}: {why}" for statement in statements if (why := _fault(connection, statement))]
    finally:
        connection.close()


def _fault(connection: apsw.Connection, statement: str) -> str:
    try:
        rows = connection.execute(statement).fetchall()
    except apsw.Error as error:
        return str(error)
    if not rows:
        return "gave no row"
    return "" if rows[0][0] else f"gave {rows[0][0]!r}"


def _only_reading(action: int, *words: str | None) -> int:
    """An authorizer (<https://www.sqlite.org/c3ref/set_authorizer.html>): no function that loads code."""
    if action == apsw.SQLITE_FUNCTION and words[1] == "load_extension":
        return int(apsw.SQLITE_DENY)
    return int(apsw.SQLITE_OK if action in _READS else apsw.SQLITE_DENY)
