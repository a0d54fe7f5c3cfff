"""The social tables back into the live database: from our exports, and from plain SQL of other tools."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.restore.conftest import TOOL, Stage


def query(database: Path, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        return connection.execute(sql).fetchall()


def comments(stage: Stage) -> dict[int, str]:
    return dict(query(stage.site.database, "SELECT id, body FROM comments WHERE body <> 'live'"))


@pytest.fixture
def exported(stage: Stage) -> Stage:
    """An export of 50 comments; since then ten were deleted, one was changed, two are new."""
    stage.change("UPDATE comments SET image = 1")  # so that each refers to something
    stage.call("backup", "social")
    stage.change(
        "DELETE FROM comments WHERE id <= 10",
        "UPDATE comments SET body = 'edited' WHERE id = 20",
        "INSERT INTO comments(id, image, body) VALUES(1000, 1, 'new'), (1001, 2, 'newer')",
        "INSERT INTO likes(image, visitor) VALUES(5000, 'late')",
    )
    return stage


def table(stage: Stage, *words: str) -> dict[str, Any]:
    data = stage.asked("restore", "social", "--dry-run", *words)["data"]
    assert not data["done"]
    return {row["table"]: row for row in data["tables"]}


def test_what_would_become_of_each_table_is_shown_first(exported: Stage) -> None:
    found = table(exported)["comments"]
    assert (found["source"], found["live"]) == (50, 42)
    assert (found["back"], found["changed"], found["lost"]) == (10, 1, 2)
    assert table(exported)["likes"]["lost"] == 1
    text = exported.call("restore", "social", "--dry-run").stdout
    assert "WOULD BE LOST" in text
    assert "nothing was changed" in text
    assert len(comments(exported)) == 42
    exported.call("restore", "social", code=4, stdin=subprocess.DEVNULL)


def test_replaced_while_the_site_writes_and_returned(exported: Stage) -> None:
    exported.start()
    done = exported.asked("restore", "social", "--yes")["data"]
    assert comments(exported)[20] == "'19'\n"
    assert set(comments(exported)) == set(range(1, 51))
    assert exported.runs
    live = exported.rows() - 50
    assert live > 0  # the site's writer goes on
    exported.call("restore", "social", done["undo"], "--yes")
    assert comments(exported)[20] == "edited"
    assert {1000, 1001} < set(comments(exported))
    assert not set(range(1, 11)) & set(comments(exported))
    assert exported.runs


def test_what_killed_restores_left_of_their_exports_goes_first(exported: Stage) -> None:
    """Each is as large as the tables are."""
    code = (
        "import os, signal; from portfolio_ops.store.publish import Draft; from portfolio_ops.cli import main\n"
        "Draft.publish = lambda *words: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main.main()"
    )
    folder = exported.site.backups / "social"

    def left() -> list[str]:
        return [path.name for path in folder.iterdir() if path.name.startswith(".tmp-")]

    command: list[str | Path] = [sys.executable, "-c", code, "--config", exported.file, "restore", "social", "--yes"]
    for _ in range(3):
        assert subprocess.run(command, check=False, capture_output=True).returncode == -signal.SIGKILL
        assert len(left()) == 1
    exported.call("restore", "social", "--yes")
    assert left() == []


def test_latest_is_not_what_a_restore_put_away(exported: Stage) -> None:
    exported.call("restore", "social", "--yes")
    exported.call("restore", "social", "--yes")
    assert len(comments(exported)) == 50


def test_a_merge_keeps_what_is_there(exported: Stage) -> None:
    exported.call("restore", "social", "--merge", "--yes")
    found = comments(exported)
    assert len(found) == 52
    assert found[20] == "edited"
    assert query(exported.site.database, "SELECT count(*) FROM likes") == [(51,)]


def test_ids_that_were_given_out_once_do_not_come_again(exported: Stage) -> None:
    exported.call("restore", "social", "--yes")
    exported.change("INSERT INTO comments(image, body) VALUES(1, 'next')")
    assert query(exported.site.database, "SELECT max(id) FROM comments") == [(1002,)]


def test_other_tables_are_untouched_and_triggers_do_not_fire(exported: Stage) -> None:
    exported.change("CREATE TRIGGER tr AFTER DELETE ON comments BEGIN DELETE FROM images; END")
    before = query(exported.site.database, "SELECT count(*) FROM images")
    exported.call("restore", "social", "--yes")
    assert query(exported.site.database, "SELECT count(*) FROM images") == before
    assert query(exported.site.database, "SELECT count(*) FROM sqlite_schema WHERE name = 'tr'") == [(1,)]


def test_a_row_that_would_refer_to_nothing_takes_all_back(exported: Stage) -> None:
    exported.change("DELETE FROM comments WHERE image = 1", "DELETE FROM images WHERE id = 1")
    before = comments(exported)
    done = exported.call("restore", "social", "--yes", code=4)
    assert "comments row 1 refers to images" in done.stderr
    assert "nothing was changed" in done.stderr
    assert comments(exported) == before


def test_a_missing_table_is_made_with_its_indices(exported: Stage) -> None:
    exported.change("DROP TABLE comments")
    assert table(exported)["comments"]["made"]
    exported.call("restore", "social", "--yes")
    assert len(comments(exported)) == 50
    assert query(exported.site.database, "SELECT count(*) FROM sqlite_schema WHERE name='comments_image'") == [(1,)]


def test_columns_that_came_and_went(exported: Stage) -> None:
    exported.change("ALTER TABLE comments ADD COLUMN state TEXT DEFAULT 'open'")
    assert table(exported)["comments"]["unfilled"] == ["state"]
    exported.call("restore", "social", "--yes")
    assert query(exported.site.database, "SELECT DISTINCT state FROM comments") == [("open",)]
    exported.change("ALTER TABLE comments DROP COLUMN body")
    assert "has no column body" in exported.call("restore", "social", "--yes", code=4).stderr


def test_tables_without_a_key_are_matched_by_their_whole_rows(stage: Stage) -> None:
    stage.change(
        "DROP TABLE user_sessions",
        "CREATE TABLE user_sessions(token, seen)",
        "INSERT INTO user_sessions VALUES('a', 1)",
    )
    stage.change("UPDATE comments SET image = 1")
    stage.call("backup", "social")
    stage.change("INSERT INTO user_sessions VALUES('b', 2)", "DELETE FROM user_sessions WHERE token = 'a'")
    stage.call("restore", "social", "--merge", "--yes")
    assert query(stage.site.database, "SELECT token FROM user_sessions ORDER BY 1") == [("a",), ("b",)]
    stage.call("restore", "social", "--yes")
    assert query(stage.site.database, "SELECT token FROM user_sessions") == [("a",)]


def test_into_a_new_file_and_into_an_existing_one(exported: Stage, tmp_path: Path) -> None:
    target = tmp_path / "look.sqlite"
    exported.call("restore", "social", "--into", str(target), "--dry-run")
    assert not target.exists()
    exported.call("restore", "social", "--into", str(target))
    assert query(target, "SELECT count(*) FROM comments") == [(50,)]
    with contextlib.closing(sqlite3.connect(target)) as connection:
        connection.execute("DELETE FROM comments WHERE id > 5")
        connection.commit()
    exported.call("restore", "social", "--into", str(target), "--yes")
    assert query(target, "SELECT count(*) FROM comments") == [(50,)]
    assert len(comments(exported)) == 42


def test_a_plain_dump_of_sqlite3_is_taken(exported: Stage, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    exported.call("restore", "social", "--into", str(copy))
    dump = subprocess.run(["sqlite3", copy, ".dump comments likes"], capture_output=True, text=True, check=True).stdout
    file = tmp_path / "old-dump.sql"
    file.write_text(dump.replace("\n", "\r\n", 3))
    exported.call("restore", "social", str(file), "--yes")
    assert set(comments(exported)) == set(range(1, 51))


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("ATTACH '/tmp/evil' AS e;", "ATTACH"),
        ("PRAGMA writable_schema=ON;", "PRAGMA writable_schema"),
        ("PRAGMA journal_mode=delete;", "PRAGMA journal_mode"),
        ("CREATE TABLE galleries(x);", "galleries"),
        ("CREATE TABLE comments(x); INSERT INTO comments SELECT * FROM galleries;", "no such table"),
        ("CREATE VIEW comments AS SELECT 1;", "CREATE_VIEW"),
        ("CREATE VIRTUAL TABLE comments USING fts5(x);", "CREATE_VTABLE"),
        ("CREATE TABLE comments(x); INSERT INTO comments VALUES(load_extension('x'));", "load_extension"),
        ("CREATE TABLE comments(x); INSERT INTO comments VALUES(randomblob(1000000000));", "too big"),
        ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT * FROM c;", "RECURSIVE"),
        ("VACUUM INTO '/tmp/evil';", "ATTACH"),
        ("CREATE TEMP TABLE t(x);", "CREATE_TEMP_TABLE t"),
        ("INSERT INTO \"table\" VALUES('BEGIN TRANSACTION;');", "no such table: table"),
        ("BEGIN; CREATE TABLE comments(id INTEGER PRIMARY KEY, image, body);", "inside a transaction"),
        ("-- nothing at all", "makes none of the tables"),
        (".open /tmp/evil", "syntax error"),
        ("CREATE TABLE comments(id", "incomplete input"),
    ],
)
def test_what_is_no_dump_is_refused(exported: Stage, tmp_path: Path, sql: str, words: str) -> None:
    file = tmp_path / "evil.sql"
    file.write_text(sql)
    before = comments(exported)
    done = exported.call("restore", "social", str(file), "--yes", code=4)
    assert words in done.stderr
    assert "evil.sql" in done.stderr
    assert comments(exported) == before
    assert not Path("/tmp/evil").exists()  # noqa: S108


def test_files_that_are_none(exported: Stage, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"CREATE TABLE comments(x); INSERT INTO comments VALUES('\xe9');\n")
    (tmp_path / "packed").write_bytes(b"\x1f\x8b\x08\x00")
    (tmp_path / "folder").mkdir()
    for name in ("latin", "packed", "folder"):
        exported.call("restore", "social", str(tmp_path / name), "--yes", code=4)
    exported.call("restore", "social", str(tmp_path / "none"), "--yes", code=6)
    [export] = (exported.site.backups / "social").iterdir()
    (tmp_path / "cut.zst").write_bytes(export.read_bytes()[:-50])
    exported.call("restore", "social", str(tmp_path / "cut.zst"), "--yes", code=9)
    exported.call("backup", "daily")
    [daily] = (exported.site.backups / "daily").iterdir()
    exported.call("restore", "social", str(daily), "--yes", code=2)


def test_a_database_that_is_locked_is_left_alone(exported: Stage, elsewhere: Callable[..., Any]) -> None:
    other = elsewhere(exported.site.database)
    other.execute("BEGIN IMMEDIATE")
    done = exported.call("restore", "social", "--yes", code=7)
    assert "stayed locked" in done.stderr
    other.execute("ROLLBACK")
    assert len(comments(exported)) == 42


def test_who_answers_no_has_changed_nothing_and_the_exit_code_says_so(stage: Stage) -> None:
    stage.call("backup", "social")
    stage.call("backup", "daily")
    for words in ("restore social", "restore database latest --in-place"):
        ours, theirs = os.openpty()
        command = [str(TOOL), "--config", str(stage.file), *words.split()]
        with subprocess.Popen(
            command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as asked:
            os.write(ours, b"n\n")
            _, told = asked.communicate(timeout=60)
        os.close(theirs)
        os.close(ours)
        assert asked.returncode == 4
        assert "error: nothing was changed: the answer was no" in told
