"""Which rows were added to a table, whatever was done to it between two looks."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from portfolio_ops.sqlite.connection import writing
from portfolio_ops.sqlite.rows import Look, Mark, NotWatchableError, look


class Table:
    """A site's table, and what is known of it."""

    def __init__(self, path: Path, schema: str, encoding: str = "UTF-8") -> None:
        self.site = sqlite3.connect(path, isolation_level=None)
        self.site.execute(f"PRAGMA encoding='{encoding}'")
        self.site.execute("PRAGMA journal_mode=wal")
        if schema:
            self.site.execute(schema)
        self.opened = writing(path)
        self.connection = self.opened.__enter__()
        self.known: tuple[Mark, ...] | None = None

    def do(self, *statements: str) -> None:
        for statement in statements:
            self.site.execute(statement)

    def look(self) -> Look:
        found = look(self.connection, "Galleries", "slug", self.known)
        assert not self.connection.in_transaction
        self.known = found.marks
        return found

    def added(self) -> list[str]:
        return [row.name for row in self.look().added]


PLAIN = "CREATE TABLE galleries(id INTEGER PRIMARY KEY, slug)"


@pytest.fixture
def table(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Table]:
    schema = getattr(request, "param", PLAIN)
    made = Table(tmp_path / "a.sqlite", schema)
    yield made
    made.opened.__exit__(None, None, None)
    made.site.close()


def names(*values: str) -> str:
    return f"INSERT INTO galleries(slug) VALUES {', '.join(f'({value!r})' for value in values)}"


def test_what_is_there_at_the_first_look_is_known(table: Table) -> None:
    table.do(names("a", "b"))
    assert table.added() == []
    assert table.added() == []
    table.do(names("c", "d"))
    assert table.added() == ["c", "d"]
    assert table.added() == []


def test_the_first_rows_of_an_empty_table_are_new(table: Table) -> None:
    assert table.added() == []
    table.do(names("a"))
    assert table.added() == ["a"]


@pytest.mark.parametrize("gone", [1, 2, 5])
def test_a_rowid_that_is_given_again_is_another_row(table: Table, gone: int) -> None:
    table.do(names(*"abcdef"))
    table.look()
    table.do(f"DELETE FROM galleries WHERE id > {6 - gone}", names("new"))
    assert table.added() == ["new"]
    table.do(f"DELETE FROM galleries WHERE id > {6 - gone}")
    assert table.added() == []
    table.do(names("newer", "newest"))
    assert table.added() == ["newer", "newest"]


def test_all_rows_may_go_and_others_come(table: Table) -> None:
    table.do(names(*"abc"))
    table.look()
    table.do("DELETE FROM galleries", names("x", "y"))
    assert table.added() == ["x", "y"]
    table.do("DELETE FROM galleries")
    assert table.added() == []
    table.do(names("x"))
    assert table.added() == ["x"]


def test_more_rows_go_than_are_remembered(table: Table) -> None:
    table.do(names(*(f"n{number}" for number in range(100))))
    table.look()
    table.do("DELETE FROM galleries WHERE id > 50")
    assert table.added() == []
    table.do(names("x"))
    assert table.added() == ["x"]


def test_a_row_that_is_gone_at_the_next_look_is_no_event(table: Table) -> None:
    table.do(names("a"))
    table.look()
    table.do(names("b"), "DELETE FROM galleries WHERE slug = 'b'")
    assert table.added() == []


def test_of_many_rows_a_hundred_and_the_last_are_told(table: Table) -> None:
    table.look()
    table.do(names(*(f"n{number}" for number in range(100))))
    found = table.look()
    assert ([row.name for row in found.added], found.more) == ([f"n{number}" for number in range(100)], False)
    table.do(names(*(f"m{number}" for number in range(5000))))
    found = table.look()
    assert [row.name for row in found.added] == [f"m{number}" for number in (*range(100), 4999)]
    assert (found.more, found.added[-1].mark.rowid) == (True, 5100)


@pytest.mark.parametrize("table", ["CREATE TABLE galleries(id INTEGER PRIMARY KEY AUTOINCREMENT, slug)"], indirect=True)
def test_with_autoincrement_a_name_that_changes_is_no_new_row(table: Table) -> None:
    table.do(names("a", "b"))
    table.look()
    table.do("UPDATE galleries SET slug = 'c' WHERE slug = 'b'")
    assert table.added() == []
    table.do("DELETE FROM galleries", names("d"))
    assert table.added() == ["d"]


@pytest.mark.parametrize("table", ["CREATE TABLE galleries(slug TEXT)"], indirect=True)
def test_a_vacuum_that_numbers_the_rows_anew_adds_none(table: Table) -> None:
    table.do(names(*"abcdef"), "DELETE FROM galleries WHERE slug IN ('a', 'c', 'd')")
    table.look()
    table.do("VACUUM")
    assert table.site.execute("SELECT max(rowid) FROM galleries").fetchone() == (3,)
    assert table.added() == []
    table.do(names("g"))
    assert table.added() == ["g"]


@pytest.mark.parametrize("table", [""], indirect=True)
def test_the_rows_of_a_table_that_comes_later_are_new(table: Table) -> None:
    assert table.look() == Look(False, ())
    table.do(PLAIN, names("a"))
    assert table.added() == ["a"]
    table.do("DROP TABLE galleries")
    assert table.look() == Look(False, ())
    table.do(PLAIN, names("a"))
    assert table.added() == ["a"]


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("CREATE VIEW galleries AS SELECT 'a' AS slug, 1 AS rowid", "is a view"),
        ("CREATE VIRTUAL TABLE galleries USING fts5(slug)", "is a virtual table"),
        ("CREATE TABLE galleries(slug PRIMARY KEY) WITHOUT ROWID", "has no rowid"),
        ("CREATE TABLE galleries(slug PRIMARY KEY, rowid) WITHOUT ROWID", "has no rowid"),
        ("CREATE TABLE galleries(rowid, oid, _rowid_, slug)", "hide its rowid"),
        ("CREATE TABLE galleries(name)", "no column slug"),
    ],
    indirect=["table"],
)
def test_what_cannot_be_followed_is_told(table: Table, why: str) -> None:
    with pytest.raises(NotWatchableError, match=why):
        table.look()
    assert not table.connection.in_transaction


@pytest.mark.parametrize("table", ["CREATE TABLE galleries(rowid TEXT, slug)"], indirect=True)
def test_a_column_called_rowid_is_not_taken_for_one(table: Table) -> None:
    table.do("INSERT INTO galleries VALUES ('zzz', 'a')")
    table.look()
    table.do("INSERT INTO galleries VALUES ('aaa', 'b')")
    assert table.added() == ["b"]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("NULL", "row 1"),
        ("'  '", "row 1"),
        ("7", "7"),
        ("2.5", "2.5"),
        ("x'00ff'", "X'00ff'"),
        ("CAST(x'61ff' AS TEXT)", "a\N{REPLACEMENT CHARACTER}"),
        ("'../../x'", "../../x"),
        ("printf('%.*c', 12000, 'x')", "x" * 10_000),
        ("zeroblob(1000000)", "row 1"),
    ],
)
def test_any_value_has_a_name(table: Table, value: str, name: str) -> None:
    table.look()
    table.do(f"INSERT INTO galleries(slug) VALUES ({value})")
    assert table.added() == [name]
    assert table.added() == []


def test_names_of_a_database_in_utf_16(tmp_path: Path) -> None:
    table = Table(tmp_path / "b.sqlite", PLAIN, "UTF-16le")
    table.look()
    table.do(names("Grüße"), "INSERT INTO galleries(slug) VALUES (12)")
    assert table.added() == ["Grüße", "12"]
    table.opened.__exit__(None, None, None)
    table.site.close()
