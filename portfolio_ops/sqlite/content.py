"""What a database says, whatever its file looks like."""

import contextlib
import hashlib
from pathlib import Path

import apsw

from portfolio_ops.sqlite.connection import immutable


def content_sha256(file: Path) -> str:
    """A hash of the schema and of every row: equal for two files that answer every question alike.

    Pages that nothing uses do not count: what stands in them depends on when the file was last made shorter.

    Raises:
        apsw.Error: It cannot be read.
    """
    digest = hashlib.sha256()
    with contextlib.closing(immutable(file)) as connection:
        schema = connection.execute("SELECT type, name, sql, rootpage FROM sqlite_schema ORDER BY rowid").fetchall()
        for kind, name, sql, root in schema:
            digest.update(repr((kind, name, sql)).encode())
            if kind == "table" and root:  # neither virtual nor a view: read in the order in which it is stored
                _add_rows(digest, connection, str(name))
    return digest.hexdigest()


def _add_rows(digest: "hashlib._Hash", connection: apsw.Connection, table: str) -> None:
    quoted = table.replace('"', '""')
    for row in connection.execute(f'SELECT * FROM "{quoted}" NOT INDEXED'):  # noqa: S608  (quoted)
        digest.update(repr(row).encode("utf-8", "surrogatepass"))
