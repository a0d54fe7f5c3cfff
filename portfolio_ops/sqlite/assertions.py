"""The site's own SQL on a restored copy: it may read, and nothing else."""

from pathlib import Path
from typing import Any

import apsw

from portfolio_ops.errors import RefusedError
from portfolio_ops.sqlite.bounds import bounded
from portfolio_ops.sqlite.connection import immutable

_READS = {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE}
_SECONDS = 60.0
_NO_SQL = ("syntax error", "unrecognized token", "incomplete input")


def failed_assertions(file: Path, statements: tuple[str, ...]) -> list[str]:
    """Those statements whose value is not true, and those that cannot be run; each with the reason.

    Args:
        file: A database that nobody writes.
        statements: Each one SELECT of one row, for example `SELECT count(*) > 0 FROM galleries`. Its first value is
            judged as SQL judges it: text is true only if it begins with a number other than 0.
    """
    return [f"{statement}: {why}" for statement in statements if (why := _fault(file, statement))]


def faults_of_words(statements: tuple[str, ...]) -> list[str]:
    """Those that are not one SELECT, whatever tables there are; each with what SQLite says of it.

    SQLite reads a statement to its end before it looks for a table, so a name that is missing says that all was well.
    Between brackets nothing but one statement that gives rows is any.
    """
    memory = apsw.Connection(":memory:")
    faults = []
    for statement in statements:
        try:
            memory.execute(f"EXPLAIN SELECT EXISTS (\n{statement.rstrip().removesuffix(';')}\n)")
        except apsw.SQLError as error:
            if any(words in str(error) for words in _NO_SQL):
                faults.append(f"{statement!r} is not one SELECT: {error}")
    memory.close()
    return faults


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
