"""Checking a copy of a database whose schema asks for what only the site's own program has."""

import re
import sqlite3
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.errors import VerificationError
from portfolio_ops.sqlite.check import check_database
from tests.integration.test_jobs import asked, call

SCHEMAS = {
    "an index": "CREATE TABLE works(name TEXT); CREATE INDEX works_slug ON works(slug(name))",
    "a partial index": "CREATE TABLE works(name TEXT); CREATE INDEX some ON works(name) WHERE slug(name) = name",
    "a collation": "CREATE TABLE works(name TEXT COLLATE swiss); CREATE INDEX works_name ON works(name)",
}


def build(path: Path, schema: str) -> None:
    connection = sqlite3.connect(path)
    connection.create_function("slug", 1, lambda text: text, deterministic=True)
    connection.create_collation("swiss", lambda one, other: (one < other) - (one > other))
    connection.executescript(schema)
    connection.executemany("INSERT INTO works VALUES(?)", [(f"{number:04} {'x' * 200}",) for number in range(500)])
    connection.commit()
    connection.close()


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_only_the_site_knows_is_no_damage(tmp_path: Path, name: str) -> None:
    path = tmp_path / "copy.sqlite"
    build(path, SCHEMAS[name])
    facts = check_database(path)
    assert facts.rows == {"works": 500}
    assert "slug" in facts.unchecked or "swiss" in facts.unchecked


def test_a_check_is_not_evaluated(tmp_path: Path) -> None:
    build(tmp_path / "copy.sqlite", "CREATE TABLE works(name TEXT CHECK(slug(name) = name))")
    assert check_database(tmp_path / "copy.sqlite").unchecked == ""


@pytest.mark.parametrize("name", SCHEMAS)
def test_damage_is_found_all_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / "copy.sqlite"
    build(path, SCHEMAS[name])
    data = bytearray(path.read_bytes())
    middle = len(data) // 4096 // 2 * 4096
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(data)
    with pytest.raises(VerificationError):
        check_database(path)


def test_what_is_damaged_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "copy.sqlite"
    build(path, "CREATE TABLE works(name TEXT)")
    data = bytearray(path.read_bytes())
    data[36:40] = (5).to_bytes(4)  # how many free pages there are, says the header
    path.write_bytes(data)
    with pytest.raises(VerificationError) as caught:
        check_database(path)
    assert re.fullmatch(r"integrity_check found: \*\*\* in database main \*\*\*; Freelist: .+", caught.value.message)


def test_such_a_site_is_backed_up_and_comes_back_and_it_is_said(site: Site, tmp_path: Path) -> None:
    site.database.unlink()
    for side in site.database.parent.glob("portfolio.sqlite-*"):
        side.unlink()
    build(site.database, SCHEMAS["an index"])
    done = call(site, "backup", "daily")
    assert "verified but for what its indexes hold (unknown function: slug())" in done.stderr
    shown = asked(site, "show", "latest")["data"]
    assert shown["details"]["verified"]["checks"] == ["sha256", "quick_check", "foreign_key_check"]
    call(site, "restore", "database", "latest", "--to", str(tmp_path / "back.sqlite"))
    assert check_database(tmp_path / "back.sqlite").rows == {"works": 500}
