"""Statements that somebody else wrote, or that take long: they end, and a Ctrl-C reaches us while they run."""

import contextlib
import math
import time
from collections.abc import Iterator

import apsw

from portfolio_ops.errors import RefusedError

_INSTRUCTIONS = 50_000  # of SQLite's virtual machine: some milliseconds


@contextlib.contextmanager
def bounded(connection: apsw.Connection, what: str, seconds: float = math.inf) -> Iterator[None]:
    """Let no statement of the block run on after its time (<https://www.sqlite.org/c3ref/progress_handler.html>).

    A signal's handler runs between two steps of Python only, and a statement may be one step for hours. So asking for
    the time is also what lets SIGINT and SIGTERM end it.

    Args:
        what: What runs, for the error.
        seconds: From now.

    Raises:
        RefusedError: The time is over.
    """
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _INSTRUCTIONS)
    try:
        yield
    except apsw.InterruptError as error:
        raise RefusedError(
            f"{what} was ended after {int(seconds)} s", suggestion="does it loop? Try it by hand with sqlite3"
        ) from error
    finally:
        connection.set_progress_handler(None)
