"""Social tables of every kind of schema, busy and hostile: rows are neither lost, nor doubled, nor anybody else's."""

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import pytest
import zstandard

from portfolio_ops.errors import VerificationError
from portfolio_ops.sqlite.dump import NotADumpError, load_dump, restored_rows
from portfolio_ops.store.artifact import Content, Kind, Metadata, decode_content, encode_trailer
from tests.integration.restore.conftest import TOOL, Stage


def query(database: Path, sql: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        return connection.execute(sql).fetchall()


def one_table(stage: Stage, *statements: str) -> None:
    """The site has only `comments`, made by these statements; they are exported."""
    stage.file.write_text(f'[site]\nroot = "{stage.site.root}"\n[social]\ntables = ["comments"]\n')
    stage.change("DROP TABLE comments", *statements)
    stage.call("backup", "social")


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE comments(id INTEGER PRIMARY KEY, body TEXT, at TEXT DEFAULT CURRENT_TIMESTAMP)",
        "CREATE TABLE comments(id INTEGER PRIMARY KEY, body TEXT, at TEXT DEFAULT (datetime('now')))",
        "CREATE TABLE comments(id INTEGER PRIMARY KEY, body TEXT, token TEXT DEFAULT (lower(hex(randomblob(8)))))",
        "CREATE TABLE comments(id INTEGER PRIMARY KEY, body TEXT CHECK(length(body) < 9 AND body NOT LIKE 'x%'))",
        "CREATE TABLE comments(id INTEGER PRIMARY KEY, body TEXT CHECK(json_valid(coalesce(NULL, '1'))))",
        "CREATE TABLE comments(id INTEGER PRIMARY KEY, body TEXT, loud TEXT AS (upper(body)) STORED)",
        "CREATE TABLE comments(id INTEGER PRIMARY KEY, body TEXT); CREATE INDEX lower_body ON comments(lower(body))",
    ],
)
def test_a_schema_that_computes(stage: Stage, tmp_path: Path, schema: str) -> None:
    """What is exported can be restored, by an operator as in a drill; and so can what sqlite3 dumps."""
    one_table(stage, *schema.split("; "), "INSERT INTO comments(id, body) VALUES(1, 'one'), (2, 'two')")
    dump = tmp_path / "dump.sql"
    dump.write_text(
        subprocess.run(
            ["sqlite3", stage.site.database, ".dump comments"], capture_output=True, text=True, check=True
        ).stdout
    )
    stage.call("verify")
    stage.call("backup", "daily")
    assert "social-tables" in stage.call("drill").stdout
    for source in ("latest", str(dump)):
        stage.change("DELETE FROM comments")
        stage.call("restore", "social", source, "--yes")
        assert query(stage.site.database, "SELECT id, body FROM comments") == [(1, "one"), (2, "two")]


def planted(stage: Stage, sql: str, rows: dict[str, int], site: str = "shop", name: str = "evil.sql.zst") -> Path:
    """An artifact whose hashes are right, whatever it holds."""
    payload = zstandard.ZstdCompressor(write_checksum=True).compress(sql.encode())
    content, packed = decode_content(io.BytesIO(payload), len(payload), None)
    taken = datetime(2026, 11, 1, tzinfo=UTC)
    metadata = Metadata(Kind.SOCIAL, site, taken, Content(content.sha256, content.bytes), {"rows": rows})
    path = stage.site.backups / "social" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(payload + encode_trailer(metadata, packed))
    return path


def test_an_artifact_cannot_reach_the_live_database(stage: Stage) -> None:
    """Neither a drill nor a verification runs what no export does."""
    stage.call("backup", "daily")
    before = stage.rows()
    sql = f"ATTACH '{stage.site.database}' AS v; DELETE FROM v.comments; CREATE TABLE comments(id);"
    planted(stage, sql, {"comments": 0})
    assert "ATTACH" in stage.call("drill", code=9).stdout
    assert stage.rows() == before
    planted(stage, sql, {"comments": 0})
    stage.call("verify", "--all", code=9)
    assert stage.rows() == before
    assert len(list((stage.site.backups / "quarantine").iterdir())) == 2


def test_what_is_not_this_sites_takes_words(stage: Stage) -> None:
    sql = "CREATE TABLE comments(id INTEGER PRIMARY KEY, image, body); INSERT INTO comments VALUES(7, 1, 'foreign');"
    other = planted(stage, sql, {"comments": 1}, site="other")
    before = stage.rows()
    assert "of the site other" in stage.call("restore", "social", str(other), "--yes", code=4).stderr
    images = planted(stage, "CREATE TABLE images(id INTEGER PRIMARY KEY);", {"images": 0}, name="images.sql.zst")
    assert "it holds images" in stage.call("restore", "social", str(images), "--yes", code=4).stderr
    assert stage.rows() == before
    assert query(stage.site.database, "SELECT count(*) FROM images") == [(50,)]
    stage.call("restore", "social", str(other), "--yes", "--force", "it was moved here")
    assert stage.rows() == 1


def test_two_at_once_do_not_get_each_others_rows(stage: Stage) -> None:
    one_table(stage, "CREATE TABLE comments(id INTEGER PRIMARY KEY, body)", "INSERT INTO comments VALUES(1, 'old')")
    old = stage.asked("list", "social")["data"]["artifacts"][-1]["id"]
    stage.change("UPDATE comments SET body = 'new'")
    stage.call("backup", "social")
    command = [sys.executable, "-c", PRETEND, str(TOOL), "--config", str(stage.file), "restore", "social", old]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    said = ""
    while "Go on?" not in said:
        said += first.stderr.read(1)
    assert "restore-social lock" in stage.call("restore", "social", "--yes", "--wait", "0", code=7).stderr
    first.communicate("y\n", timeout=20)
    assert first.returncode == 0
    assert query(stage.site.database, "SELECT body FROM comments") == [("old",)]


# Somebody at a terminal, for a test that has none.
PRETEND = """
import sys
sys.stdin.isatty = lambda: True
sys.argv = sys.argv[1:]
from portfolio_ops.cli.main import main
main()
"""

WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
number = 100000
while True:
    number += 1
    connection.execute("INSERT INTO comments(id, body) VALUES(?, 'late')", (number,))
    print(number, flush=True)
"""


def until_late(stage: Stage) -> None:
    """The writer has got through."""
    deadline = time.monotonic() + 20
    while not query(stage.site.database, "SELECT 1 FROM comments WHERE body = 'late' LIMIT 1"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_the_site_writes_meanwhile_is_live_or_in_the_undo(stage: Stage) -> None:
    numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000) SELECT x, 'text' FROM n"
    one_table(stage, "CREATE TABLE comments(id INTEGER PRIMARY KEY, body)", f"INSERT INTO comments {numbers}")
    command = [sys.executable, "-c", WRITER, str(stage.site.database)]
    told = stage.folder / "told"  # a pipe that nobody empties would stop it
    with told.open("w") as file, subprocess.Popen(command, stdout=file) as writer:
        until_late(stage)
        undo = stage.asked("restore", "social", "--yes")["data"]["undo"]
        until_late(stage)
        writer.kill()
    acknowledged = {int(line) for line in told.read_text().splitlines() if line}
    live = {row[0] for row in query(stage.site.database, "SELECT id FROM comments WHERE body = 'late'")}
    copy = stage.site.root / "copy.sqlite"
    stage.call("restore", "social", undo, "--into", str(copy))
    before = {row[0] for row in query(copy, "SELECT id FROM comments WHERE body = 'late'")}
    assert before
    assert live
    assert acknowledged <= live | before
    assert not live & before


def merged(stage: Stage) -> dict[str, Any]:
    data: dict[str, Any] = stage.asked("restore", "social", "--merge", "--yes")["data"]["tables"][0]
    return data


def test_a_merge_tells_what_it_left_out(stage: Stage) -> None:
    table = "CREATE TABLE comments(id INTEGER PRIMARY KEY, who TEXT UNIQUE)"
    one_table(stage, table, "INSERT INTO comments VALUES(1, 'ann'), (2, 'bob')")
    stage.change("DELETE FROM comments", "INSERT INTO comments VALUES(9, 'ann')")
    found = merged(stage)
    assert (found["back"], found["put"], found["clashes"]) == (2, 1, 1)
    assert query(stage.site.database, "SELECT * FROM comments ORDER BY id") == [(2, "bob"), (9, "ann")]


def test_a_merge_does_not_leave_out_in_silence(stage: Stage) -> None:
    one_table(stage, "CREATE TABLE comments(id INTEGER PRIMARY KEY)", "INSERT INTO comments VALUES(1), (2)")
    stage.change("DROP TABLE comments", "CREATE TABLE comments(id INTEGER PRIMARY KEY, who TEXT NOT NULL)")
    assert "NOT NULL" in stage.call("restore", "social", "--merge", "--yes", code=4).stderr
    assert stage.rows() == 0


def test_rows_without_a_key_come_back_as_often_as_they_stood_there(stage: Stage) -> None:
    rows = "INSERT INTO comments VALUES('a'), ('a'), ('a'), (NULL), ('b')"
    one_table(stage, "CREATE TABLE comments(body)", rows)
    stage.change("DELETE FROM comments WHERE rowid IN (1, 2, 4)", "INSERT INTO comments VALUES('c')")
    found = merged(stage)
    assert (found["back"], found["lost"], found["put"]) == (3, 1, 3)
    assert [row[0] for row in query(stage.site.database, "SELECT body FROM comments ORDER BY 1")] == [
        *(None, "a", "a", "a", "b", "c"),
    ]


def test_a_table_that_drops_rows_by_its_own_rules_is_refused(stage: Stage) -> None:
    one_table(stage, "CREATE TABLE comments(id INTEGER PRIMARY KEY, who)", "INSERT INTO comments VALUES(1, 1), (2, 1)")
    ours = "CREATE TABLE comments(id INTEGER PRIMARY KEY, who UNIQUE ON CONFLICT IGNORE)"
    stage.change("DROP TABLE comments", ours, "INSERT INTO comments VALUES(5, 5)")
    assert "would keep 1" in stage.call("restore", "social", "--yes", code=4).stderr
    assert query(stage.site.database, "SELECT id FROM comments") == [(5,)]


@pytest.mark.parametrize("without", ["", " WITHOUT ROWID"])
def test_a_dangling_row_that_was_there_hides_no_new_one(stage: Stage, without: str) -> None:
    stage.change("CREATE TABLE users(id INTEGER PRIMARY KEY)", "INSERT INTO users VALUES(1), (2), (3)")
    table = f"CREATE TABLE comments(id INTEGER PRIMARY KEY, who REFERENCES users(id)){without}"
    one_table(stage, table, "INSERT INTO comments VALUES(1, 1), (2, 2), (3, 77)")
    stage.change("DELETE FROM users WHERE id IN (1, 2)", "DELETE FROM comments WHERE id < 3")
    assert "would refer to nothing" in stage.call("restore", "social", "--yes", code=4).stderr
    assert query(stage.site.database, "SELECT id FROM comments") == [(3,)]


def test_a_foreign_key_that_names_no_key_switches_no_other_check_off(stage: Stage) -> None:
    stage.change("CREATE TABLE users(id INTEGER PRIMARY KEY, name)", "INSERT INTO users VALUES(1, 'ann')")
    stage.change("CREATE TABLE odd(comment REFERENCES comments(body))")
    table = "CREATE TABLE comments(id INTEGER PRIMARY KEY, body, who REFERENCES users(id))"
    one_table(stage, table, "INSERT INTO comments VALUES(1, 'x', 1)")
    assert "foreign keys of odd" in stage.call("restore", "social", "--yes").stdout
    stage.change("DELETE FROM comments", "DELETE FROM users")
    assert "comments row 1 refers to users" in stage.call("restore", "social", "--yes", code=4).stderr


def test_a_full_text_index_finds_what_came_back(stage: Stage) -> None:
    one_table(
        stage,
        "CREATE TABLE comments(id INTEGER PRIMARY KEY, body)",
        "CREATE VIRTUAL TABLE found USING fts5(body, content='comments', content_rowid='id')",
        "CREATE TRIGGER comments_ai AFTER INSERT ON comments BEGIN "
        "INSERT INTO found(rowid, body) VALUES(new.id, new.body); END",
        "INSERT INTO comments VALUES(1, 'winter light'), (2, 'summer')",
    )
    stage.change("DELETE FROM comments", "INSERT INTO comments VALUES(3, 'autumn')")
    done = stage.call("restore", "social", "--yes").stdout
    assert "triggers of comments do not fire" in done
    assert "full-text index found was made anew" in done
    with contextlib.closing(apsw.Connection(str(stage.site.database))) as connection:
        assert connection.execute("SELECT rowid FROM found WHERE found MATCH 'winter'").fetchall() == [(1,)]
        assert connection.execute("SELECT rowid FROM found WHERE found MATCH 'autumn'").fetchall() == []
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_the_live_database_is_not_restored_into_past_its_export(stage: Stage) -> None:
    stage.call("backup", "social")
    link = stage.site.root / "link.sqlite"
    link.hardlink_to(stage.site.database)
    for target in (stage.site.database, link):
        done = stage.call("restore", "social", "--into", str(target), "--yes", code=2)
        assert "is the live database" in done.stderr


@pytest.mark.parametrize(("name", "code"), [("nofolder/x", 6), ("folder", 4), ("fifo", 4)])
def test_places_that_are_none(stage: Stage, tmp_path: Path, name: str, code: int) -> None:
    stage.call("backup", "social")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    stage.call("restore", "social", "--into", str(tmp_path / name), "--yes", code=code)


def test_triggers_of_a_foreign_dump_are_left_out(stage: Stage, tmp_path: Path) -> None:
    dump = tmp_path / "dump.sql"
    dump.write_text("")
    assert "The first backup makes it" in stage.call("restore", "social", str(dump), "--yes", code=6).stderr
    stage.call("backup", "daily")
    stage.change("DROP TABLE comments")
    dump.write_text(
        "CREATE TABLE comments(id INTEGER PRIMARY KEY);\n"
        "CREATE TRIGGER evil AFTER INSERT ON comments BEGIN DELETE FROM images; END;\n"
    )
    done = stage.call("restore", "social", str(dump), "--yes")
    assert "the trigger evil of the dump was left out" in done.stdout
    assert query(stage.site.database, "SELECT 1 FROM sqlite_schema WHERE type='trigger'") == []


def test_a_table_without_its_key_column_and_a_foreign_encoding(stage: Stage, tmp_path: Path) -> None:
    one_table(stage, "CREATE TABLE comments(id INTEGER PRIMARY KEY, body)", "INSERT INTO comments VALUES(5, 'x')")
    dump = tmp_path / "dump.sql"
    dump.write_text("CREATE TABLE comments(body); INSERT INTO comments VALUES('x'), ('y');")
    stage.call("restore", "social", str(dump), "--yes")
    assert query(stage.site.database, "SELECT body FROM comments ORDER BY 1") == [("x",), ("y",)]
    dump.write_text("PRAGMA encoding='UTF-16le'; CREATE TABLE comments(body);")
    assert "asks for text in UTF-16le" in stage.call("restore", "social", str(dump), "--yes", code=4).stderr


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_scratch_place_says_nothing_of_an_artifact(stage: Stage, tmp_path: Path) -> None:
    one_table(
        stage,
        "CREATE TABLE comments(id INTEGER PRIMARY KEY, body)",
        "CREATE INDEX bodies ON comments(body)",
        "INSERT INTO comments(body) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000) "
        "SELECT printf('%0100d', x) FROM n",
    )
    with small_disk(tmp_path / "small", "5m") as small:
        stage.file.write_text(stage.file.read_text() + f'[drill]\nscratch = "{small}"\n')
        [found] = stage.asked("verify", code=1)["data"]["verdicts"]
        assert found["found"] == "unknown"
        assert "too little room" in found["why"]
        stage.call("backup", "daily")
        assert json.loads(stage.call("--json", "drill", code=10).stdout)["data"]["verdict"] == "inconclusive"
    assert not (stage.site.backups / "quarantine").exists()


def loaded(folder: Path, text: str) -> dict[str, int]:
    (folder / "dump.sql").write_text(text)
    return load_dump(folder / "dump.sql", folder / "tables.sqlite", ["comments"])


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE pragma_encoding(x);",
        "CREATE TABLE portfolio_ops_guard(x);",
        "CREATE TEMP TABLE comments(x);",
        "CREATE TABLE comments(x); INSERT INTO pragma_encoding VALUES(1);",
        "CREATE TABLE comments(x); SELECT fts3_tokenizer('simple', x'00');",
        "CREATE TABLE comments(x); INSERT INTO comments VALUES('a\0b');",
    ],
)
def test_names_that_are_ours_are_not_theirs(tmp_path: Path, sql: str) -> None:
    with pytest.raises(NotADumpError):
        loaded(tmp_path, sql)


def test_a_dump_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portfolio_ops.sqlite.dump._SECONDS", 0.5)
    tables = ", ".join(f"comments c{number}" for number in range(9))
    rows = ", ".join(["(1)"] * 50)
    sql = f"CREATE TABLE comments(x); INSERT INTO comments VALUES{rows}; SELECT count(*) FROM {tables};"
    with pytest.raises(Exception, match="was ended after 0 s"):
        loaded(tmp_path, sql)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_dump_that_takes_long_can_be_interrupted(stage: Stage, tmp_path: Path, number: signal.Signals) -> None:
    tables = ", ".join(f"comments c{each}" for each in range(9))
    rows = ", ".join(["(1)"] * 50)
    (tmp_path / "long.sql").write_text(
        f"CREATE TABLE comments(x); INSERT INTO comments VALUES{rows}; SELECT count(*) FROM {tables};"
    )
    stage.call("backup", "daily")
    command: list[str | Path] = [TOOL, "--config", stage.file, "restore", "social", str(tmp_path / "long.sql"), "--yes"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while not list(stage.site.state.glob(".portfolio-ops-*/tables.sqlite")):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(0.3)
            process.send_signal(number)
            assert process.wait(timeout=20) == 128 + number
        finally:
            process.kill()  # it would compute for ever
    assert not list(stage.site.state.glob(".portfolio-ops-*"))


def test_an_export_that_does_not_restore_is_bad(tmp_path: Path) -> None:
    (tmp_path / "export.sql").write_text("CREATE TABLE comments(x); INSERT INTO nowhere VALUES(1);")
    with pytest.raises(VerificationError):
        restored_rows(tmp_path / "export.sql", ["comments"])
