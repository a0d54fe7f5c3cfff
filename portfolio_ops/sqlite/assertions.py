"""The site's own SQL on a restored copy: it may read, and nothing else."""

from pathlib import Path
from typing import Any

import apsw

from portfolio_ops.errors import RefusedError
from portfolio_ops.sqlite.bounds import bounded
from portfolio_ops.sqlite.connection import immutable

_READS = {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE}
_SECONDS = 60.0


def failed_assertions(file: Path, statements: tuple[str, ...]) -> list[str]:
    """Those statements whose value is not true, and those that cannot be run; each with the reason.

    Args:
        file: A database that nobody writes.
        statements: Each one SELECT of one row, for example `SELECT count(*) > 0 FROM galleries`. Its first value is
            judged as SQL judges it: text is true only if it begins with a number other than 0.
    """
    return [f"{statement}: {why}" for statement in statements if (why := _fault(file, statement))]


def _fault(file: Path, statement: str) -> str:
    connection = immutable(file)
    seen: list[str] = []

    def only_one(_: apsw.Cursor, sql: str, __: Any) -> bool:
        seen.append(sql)
        return len(seen) == 1

    try:
        connection.authorizer = _only_reading
        connection.exec_trace = only_one
        with bounded(connection, "it", _SECONDS):
            cursor = connection.execute(statement)
            first, second = next(cursor, None), next(cursor, None)
    except apsw.ExecTraceAbort:
        return "is more than one statement"
    except RefusedError as error:
        return error.message
    except apsw.Error as error:
        return str(error)
    finally:
        connection.close()
    if first is None or second is not None:
        return "gave no row" if first is None else "gave more than one row"
    return "" if _is_true(first[0]) else f"gave {first[0]!r}"


def _is_true(value: Any) -> bool:
    """As SQLite judges it (<https://www.sqlite.org/lang_expr.html#boolean_expressions>)."""
    memory = apsw.Connection(":memory:")
    try:
        return bool(memory.execute("SELECT ? IS TRUE", (value,)).fetchall()[0][0])
    finally:
        memory.close()


def _only_reading(action: int, *words: str | None) -> int:
    """An authorizer (<https://www.sqlite.org/c3ref/set_authorizer.html>): no function that loads code."""
    if action == apsw.SQLITE_FUNCTION and words[1] == "load_extension":
        return int(apsw.SQLITE_DENY)
    return int(apsw.SQLITE_OK if action in _READS else apsw.SQLITE_DENY)
