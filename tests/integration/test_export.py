"""Social exports: what went in comes out, through the real sqlite3 program, into an empty and an existing database."""

import random
import shutil
import sqlite3
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portfolio_ops.errors import RefusedError, VerificationError
from portfolio_ops.sqlite.check import quoted
from portfolio_ops.sqlite.dump import check_export
from portfolio_ops.sqlite.export import export_tables, missing_tables
from portfolio_ops.sqlite.literal import literal
from portfolio_ops.sqlite.snapshot import reading_one_moment

SQLITE3 = shutil.which("sqlite3") or "sqlite3"


def export(database: Path, *tables: str) -> bytes:
    connection = apsw.Connection(str(database))
    connection.execute("BEGIN")
    text = b"".join(export_tables(connection, tables))
    connection.close()
    return text


def restore(script: bytes, target: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    """With the distribution's own sqlite3 program, which is another SQLite than the product's."""
    return subprocess.run([SQLITE3, *options, str(target)], input=script, capture_output=True, check=False)


def content(database: Path, *tables: str) -> dict[str, list[Any]]:
    """Every value of the tables, bit for bit, with its rowid where it has one that can be asked for."""
    connection = apsw.Connection(str(database))
    found: dict[str, list[Any]] = {}
    for table in tables:
        columns = [
            quoted(str(row[0]))
            for row in connection.execute("SELECT name FROM pragma_table_xinfo(?) ORDER BY cid", (table,))
        ]
        (plain,) = connection.execute("SELECT wr FROM pragma_table_list WHERE name=?", (table,)).fetchall()[0]
        columns += [] if plain else ["rowid"]
        asked = ", ".join(
            f"typeof({c}), CASE typeof({c}) WHEN 'text' THEN CAST({c} AS BLOB) ELSE {c} END" for c in columns
        )
        rows = connection.execute(f"SELECT {asked} FROM {quoted(table)} NOT INDEXED").fetchall()
        found[table] = [[struct.pack(">d", v) if isinstance(v, float) else v for v in row] for row in rows]
    found["schema"] = connection.execute(
        "SELECT type, name, rtrim(sql, char(10)) FROM sqlite_schema "
        f"WHERE tbl_name IN ({','.join('?' * len(tables))}) ORDER BY name",
        tables,
    ).fetchall()
    connection.close()
    return found


NASTY = """
CREATE TABLE comments(id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL, length INTEGER AS (length(body)) STORED,
  shout TEXT GENERATED ALWAYS AS (upper(body)) VIRTUAL, parent INTEGER REFERENCES comments(id) ON DELETE CASCADE);
CREATE TABLE likes(image INTEGER, visitor TEXT, at REAL DEFAULT 0.5, PRIMARY KEY(image, visitor)) WITHOUT ROWID;
CREATE TABLE "odd ""name"" -- x"("select" ANY, "a b" TEXT COLLATE NOCASE, "rowid" TEXT, plain -- a comment
);
CREATE TABLE loose(a, b BLOB, c REAL, d NUMERIC, e TEXT);
CREATE TABLE strict_one(a INTEGER, b TEXT, c ANY) STRICT;
CREATE TABLE audit(what TEXT);
CREATE UNIQUE INDEX loose_a ON loose(a) WHERE a IS NOT NULL;
CREATE INDEX by_length ON comments(length, lower(body)) -- trailing
;
CREATE TRIGGER told AFTER INSERT ON comments BEGIN INSERT INTO audit VALUES('c;' || new.id); SELECT 1; END;
CREATE TRIGGER told_too AFTER DELETE ON likes WHEN old.at > 1 BEGIN INSERT INTO audit VALUES('l'); END;
"""
TABLES = ("comments", "likes", 'odd "name" -- x', "loose", "strict_one")
TEXTS = [
    "",
    "'",
    "''; DROP TABLE comments; --",
    "a\nb\r\nc\rd",
    "\\n",
    "\\r\r",
    "nul\0in",
    "\x1b[31m",
    "ünï\U0001f600",
    ";\n;\n",
    "\t",
]


def make(path: Path, encoding: str = "UTF-8") -> None:
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA encoding='{encoding}'")
    connection.execute(NASTY)
    connection.execute("BEGIN")
    for number, text in enumerate(TEXTS):
        connection.execute("INSERT INTO comments(id, body) VALUES(?, ?)", (number * 3 + 1, text))
        connection.execute("INSERT INTO likes(image, visitor, at) VALUES(?, ?, ?)", (number, text, number / 3))
        connection.execute(
            'INSERT INTO "odd ""name"" -- x"("select", "a b", "rowid") VALUES(?, ?, ?)', (number, text, text)
        )
        connection.execute("INSERT INTO loose(rowid, a, b) VALUES(?, ?, ?)", (-(2**40) + number, text, text.encode()))
    for value in (
        0.1,
        -0.0,
        1e300,
        5e-324,
        2.2250738585072014e-308,
        float("inf"),
        float("-inf"),
        2**63 - 1,
        -(2**63),
        4.5,
    ):
        connection.execute("INSERT INTO loose(c, d, e) VALUES(?, ?, ?)", (value, value, value))
        connection.execute("INSERT INTO strict_one VALUES(?, ?, ?)", (7, "x", value))
    connection.execute("INSERT INTO loose(e) VALUES(CAST(X'ff41fe00' AS TEXT)), (CAST(X'' AS TEXT)), (zeroblob(3))")
    connection.execute("DELETE FROM comments WHERE id > 20")
    connection.execute("COMMIT")
    connection.close()


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_restores_into_an_empty_database_bit_for_bit(tmp_path: Path, encoding: str) -> None:
    make(tmp_path / "site", encoding)
    script = export(tmp_path / "site", *TABLES)
    done = restore(script, tmp_path / "new", "-bail")
    assert (done.returncode, done.stderr) == (0, b"")
    assert content(tmp_path / "new", *TABLES) == content(tmp_path / "site", *TABLES)
    assert export(tmp_path / "new", *TABLES) == script


def test_restores_into_an_existing_database_and_touches_nothing_else(tmp_path: Path) -> None:
    make(tmp_path / "site")
    script = export(tmp_path / "site", *TABLES)
    before = content(tmp_path / "site", *TABLES)
    make(tmp_path / "later")
    later = sqlite3.connect(tmp_path / "later")
    later.executescript("DELETE FROM comments WHERE id < 9; DROP TABLE likes; CREATE INDEX extra ON loose(b);")
    audit = later.execute("SELECT count(*) FROM audit").fetchone()
    later.executescript(script.decode())
    assert later.execute("SELECT count(*) FROM audit").fetchone() == audit  # no trigger fired
    assert later.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    later.close()
    assert content(tmp_path / "later", *TABLES) == before


def test_ids_that_were_given_out_do_not_come_again(tmp_path: Path) -> None:
    make(tmp_path / "site")
    restore(export(tmp_path / "site", "comments"), tmp_path / "new")
    new = sqlite3.connect(tmp_path / "new")
    assert new.execute("SELECT seq FROM sqlite_sequence").fetchall() == [(3 * (len(TEXTS) - 1) + 1,)]
    new.close()


def test_a_plain_shell_that_goes_on_after_an_error_commits_nothing(tmp_path: Path) -> None:
    make(tmp_path / "site")
    script = export(tmp_path / "site", "loose", "strict_one")
    make(tmp_path / "later")
    before = content(tmp_path / "later", *TABLES)
    broken = script.replace(b'INSERT INTO "strict_one"', b'INSERT INTO "strict_two"', 1)
    done = restore(broken, tmp_path / "later")
    assert b"CHECK constraint failed" in done.stderr
    assert content(tmp_path / "later", *TABLES) == before


def test_a_database_of_another_encoding_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path / "site")
    make(tmp_path / "other", "UTF-16le")
    before = content(tmp_path / "other", *TABLES)
    restore(export(tmp_path / "site", *TABLES), tmp_path / "other")
    assert content(tmp_path / "other", *TABLES) == before


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    make(tmp_path / "site")
    script = export(tmp_path / "site", *TABLES)
    connection = sqlite3.connect(tmp_path / "site")
    connection.execute("CREATE INDEX covering ON loose(e, a, b, c, d)")
    connection.execute("DROP INDEX covering")
    connection.execute("ANALYZE")
    connection.close()
    assert export(tmp_path / "site", *TABLES) == script


def test_every_row_is_a_line(tmp_path: Path) -> None:
    make(tmp_path / "site")
    lines = export(tmp_path / "site", "comments").decode().splitlines()
    rows = [line for line in lines if line.startswith("(")]
    assert len(rows) == len([number for number in range(len(TEXTS)) if number * 3 + 1 <= 20])
    assert all(line.endswith((",", ";")) for line in rows)


def test_missing_names_do_not_depend_on_case(tmp_path: Path) -> None:
    make(tmp_path / "site")
    connection = apsw.Connection(str(tmp_path / "site"))
    assert missing_tables(connection, ["Comments", "LIKES", "gone"]) == ["gone"]
    connection.close()
    assert export(tmp_path / "site", "COMMENTS") == export(tmp_path / "site", "comments")


@pytest.mark.parametrize("name", ["a_view", "words", "sqlite_schema"])
def test_what_is_no_plain_table_is_refused(tmp_path: Path, name: str) -> None:
    connection = sqlite3.connect(tmp_path / "site")
    connection.executescript("CREATE VIEW a_view AS SELECT 1; CREATE VIRTUAL TABLE words USING fts5(body);")
    connection.close()
    with pytest.raises(RefusedError, match="cannot be exported"):
        export(tmp_path / "site", name)


@pytest.mark.parametrize(
    "damage",
    [(b'INSERT INTO "likes"', b"-- "), (b"PRIMARY KEY AUTOINCREMENT", b"PRIMARY KEY"), (b"CREATE INDEX", b"-- ")],
)
def test_the_check_sees_what_does_not_restore(tmp_path: Path, damage: tuple[bytes, bytes]) -> None:
    make(tmp_path / "site")
    script = export(tmp_path / "site", *TABLES)
    file = tmp_path / "export.sql"
    file.write_bytes(script)
    check_export(file, TABLES)
    assert damage[0] in script
    file.write_bytes(script.replace(damage[0], damage[1]))
    with pytest.raises(VerificationError):
        check_export(file, TABLES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.sql", "site"]


VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.floats(allow_nan=False, width=32),
    st.binary(max_size=40),
    st.text(max_size=40),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=60))
def test_any_value_survives(tmp_path: Path, rows: list[tuple[Any, Any]]) -> None:
    for name in ("site", "new"):
        (tmp_path / name).unlink(missing_ok=True)
    connection = apsw.Connection(str(tmp_path / "site"))
    connection.execute("CREATE TABLE t(a, b TEXT)")
    connection.executemany("INSERT INTO t VALUES(?, ?)", rows)
    connection.close()
    done = restore(export(tmp_path / "site", "t"), tmp_path / "new", "-bail")
    assert (done.returncode, done.stderr) == (0, b"")
    assert content(tmp_path / "new", "t") == content(tmp_path / "site", "t")


def test_a_hundred_thousand_doubles_are_read_back_exactly_by_both_libraries() -> None:
    chance = random.Random(7)
    values = [struct.unpack(">d", chance.randbytes(8))[0] for _ in range(60_000)]
    values += [round(chance.uniform(0, 5), chance.randrange(1, 6)) for _ in range(40_000)]
    values = [value for value in values if value == value]  # noqa: PLR0124  (NaN is NULL to SQLite)
    old, new = sqlite3.connect(":memory:"), apsw.Connection(":memory:")
    for start in range(0, len(values), 500):
        part = values[start : start + 500]
        query = "SELECT column1 FROM (VALUES " + ",".join(f"({literal('real', each, 'utf-8')})" for each in part) + ")"
        assert [row[0] for row in old.execute(query)] == part
        assert [row[0] for row in new.execute(query)] == part
    old.close()
    new.close()


def test_many_rows_come_in_many_statements_and_little_memory(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "site")
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT)")
    connection.executemany("INSERT INTO t(body) VALUES(?)", (("x" * 100,) for _ in range(20_000)))
    connection.commit()
    connection.close()
    reader = apsw.Connection(str(tmp_path / "site"))
    chunks = list(export_tables(reader, ["t"]))
    reader.close()
    assert max(map(len, chunks)) < 70_000
    assert len(chunks) > 20


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_all_tables_are_of_one_moment_and_no_writer_waits(
    tmp_path: Path, mode: str, elsewhere: Callable[..., Any]
) -> None:
    """Two tables that a writer keeps equal are equal in the export, and the writer commits while it is read."""
    database = tmp_path / "site"
    connection = sqlite3.connect(database)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.executescript("CREATE TABLE a(n INTEGER); CREATE TABLE b(n INTEGER);")
    connection.close()
    writer = elsewhere(database, 0.5)
    stop = threading.Event()
    done = 0

    def write() -> None:
        nonlocal done
        while not stop.is_set():
            for sql in ("BEGIN IMMEDIATE", "INSERT INTO a VALUES(1)", "INSERT INTO b VALUES(1)", "COMMIT"):
                writer.execute(sql)
            done += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(10):
            with reading_one_moment(database, tmp_path) as reader:
                stream = export_tables(reader, ["a", "b"])
                script = next(stream)
                seen = done
                while done < seen + 3:  # in the middle of the export
                    assert thread.is_alive()
                script += b"".join(stream)
            target = tmp_path / f"new-{number}"
            assert restore(script, target, "-bail").returncode == 0
            new = sqlite3.connect(target)
            counts = new.execute("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)").fetchone()
            new.close()
            assert counts[0] == counts[1]
    finally:
        stop.set()
        thread.join()
