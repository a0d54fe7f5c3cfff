"""Restores while the archive follows the database: it lets go when the file is exchanged, and follows the new one."""

import contextlib
import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.host import holders
from portfolio_ops.store import catalogue, lock, timeline
from portfolio_ops.store.artifact import Kind
from tests.integration.restore.conftest import TOOL, Stage


@pytest.fixture
def stage(site: Site, tmp_path: Path) -> Iterator[Stage]:
    """A site with a running backend, a backup, and the archive."""
    made = Stage(tmp_path, site.root)
    with made.file.open("a") as file:
        file.write('\n[gallery]\ntable = "galleries"\nname = "slug"\n')
    made.call("backup", "daily")
    made.change("DELETE FROM comments WHERE id <= 10")
    made.start()
    command: list[str | Path] = [TOOL, "--config", made.file, "archive", "run"]
    with (tmp_path / "said").open("wb") as said:
        daemon = subprocess.Popen(command, stderr=said)
    try:
        until(lambda: bool(timeline.ids(made.site.backups)))
        yield made
    finally:
        daemon.terminate()
        daemon.wait(30)
        made.end()


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_lets_go_of_the_file_that_is_exchanged(stage: Stage) -> None:
    plan = stage.asked("restore", "database", "--in-place", "--dry-run")["data"]["plan"]
    assert not any("portfolio-ops" in holder["name"] for holder in plan["holders"])
    for words in (("restore", "database", "--in-place", "--yes"), ("restore", "undo", "--yes")):
        count = len(timeline.ids(stage.site.backups))
        began = time.monotonic()
        stage.call(*words)
        assert time.monotonic() - began < 15
        assert stage.runs
        deadline = time.monotonic() + 20
        while len(timeline.ids(stage.site.backups)) == count:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert stage.kept() == ["portfolio.sqlite"]
    assert ended(stage) == [], "our own restores are nobody else's doing"


def ended(stage: Stage) -> list[str]:
    """What `status` says of timelines that ended by another's doing."""
    return [each for each in stage.asked("status", code=10)["data"]["findings"] if "archive accept" in each]


def emptied(stage: Stage) -> None:
    """Somebody stops the site, and puts a database in its place that has nothing in it."""
    stage.control("stop")
    time.sleep(2)
    empty = stage.folder / "empty.sqlite"
    schema = "CREATE TABLE comments(id INTEGER PRIMARY KEY, image INTEGER, body TEXT)"
    with contextlib.closing(sqlite3.connect(empty)) as connection:
        connection.executescript(f"PRAGMA journal_mode=wal; {schema}")
    shutil.copyfile(empty, stage.site.database)
    empty.unlink()
    until(lambda: bool(ended(stage)))


def test_what_another_did_is_told_until_a_person_has_seen_to_it(stage: Stage) -> None:
    until(lambda: stage.asked("status", code=10)["data"]["archive"]["last_point"] is not None)
    emptied(stage)
    [finding] = ended(stage)
    assert "another program wrote the database's file" in finding
    at = finding.partition("--at ")[2].split()[0]
    stage.call("restore", "database", "--at", at, "--to", str(stage.folder / "before.sqlite"))
    with contextlib.closing(sqlite3.connect(stage.folder / "before.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM comments").fetchone()[0] > 40
    assert finding in stage.call("archive", "accept").stdout
    assert ended(stage) == []
    assert stage.call("archive", "accept").stdout == "nothing waits to be accepted\n"


def test_a_restore_has_seen_to_it_as_well(stage: Stage) -> None:
    until(lambda: len(catalogue.databases(stage.site.backups, "shop")) > 1)
    emptied(stage)
    until(lambda: len(catalogue.databases(stage.site.backups, "shop")) > 2)
    plan = stage.call("restore", "database", "--to", str(stage.folder / "x.sqlite"), "--dry-run").stdout
    assert "0 rows of 1 table" in plan
    assert "before   the database held much more" in plan
    fuller = stage.asked("restore", "database", "--to", str(stage.folder / "x.sqlite"), "--dry-run")["data"]["plan"][
        "fuller"
    ]
    plan = stage.call("restore", "database", fuller["id"], "--to", str(stage.folder / "x.sqlite"), "--dry-run").stdout
    assert "held much more" not in plan
    stage.call("backup", "daily")
    again = stage.asked("restore", "database", "--to", str(stage.folder / "x.sqlite"), "--dry-run")["data"]["plan"]
    assert again["artifact"]["kind"] == "daily"
    assert again["fuller"]["id"] == fuller["id"], "the backup before it is not the only one that counts"
    stage.call("restore", "database", fuller["id"], "--in-place", "--yes", "--force", "it was emptied")
    assert ended(stage) == []


def test_an_archive_that_was_removed_is_told_as_well(stage: Stage) -> None:
    until(lambda: stage.asked("status", code=10)["data"]["archive"]["last_point"] is not None)
    shutil.rmtree(stage.site.backups / "wal")
    until(lambda: bool(ended(stage)))
    [finding] = ended(stage)
    assert "moments that are in no copy" in finding
    assert "--at" not in finding


def test_galleries_that_come_back_with_a_restore_were_not_added(stage: Stage) -> None:
    def names() -> list[list[str]]:
        events = catalogue.scan(stage.site.backups, stage.site.name, [Kind.EVENT]).artifacts
        return [event.metadata.details["names"] for event in events if not event.put_away]

    def known() -> list[int]:
        memory = stage.site.state / "galleries.json"
        return [rowid for rowid, _ in json.loads(memory.read_bytes())["marks"]] if memory.exists() else []

    until(lambda: known() == [1])
    stage.change("INSERT INTO galleries(slug) VALUES ('second')")
    until(lambda: names() == [["second"]])
    [event] = catalogue.scan(stage.site.backups, stage.site.name, [Kind.EVENT]).artifacts
    stage.change("DELETE FROM galleries WHERE slug = 'second'")
    until(lambda: known() == [1])
    stage.call("restore", "database", event.id, "--in-place", "--yes")
    until(lambda: known() == [2, 1])
    stage.change("INSERT INTO galleries(slug) VALUES ('third')")
    until(lambda: len(names()) > 1)
    assert names() == [["second"], ["third"]]


def test_it_goes_on_beside_a_restore_of_social_tables(stage: Stage) -> None:
    stage.change("UPDATE comments SET image = 1")
    stage.call("backup", "social")
    stage.call("restore", "social", "--yes")
    time.sleep(2)
    assert len(timeline.ids(stage.site.backups)) == 1


def test_only_one_follows_a_site(stage: Stage) -> None:
    done = stage.call("archive", "run", "--wait", "0", code=7)
    assert "archive lock" in done.stderr


def test_a_single_pass_beside_the_service_is_refused_at_once_or_says_for_whom_it_waits(stage: Stage) -> None:
    began = time.monotonic()
    done = stage.call("archive", "once", code=7)
    assert time.monotonic() - began < 10, "nobody waits for a service that never ends"
    holder = lock.holder_of(stage.site.state, lock.ARCHIVING)
    assert holder is not None
    assert f"error: the site is archived already, by process {holder}\n" in done.stderr
    waited = stage.call("archive", "once", "--wait", "1s", code=7)
    assert f"Waiting for another run of the archive: process {holder}, since " in waited.stderr


def test_status_tells_how_far_it_is(stage: Stage) -> None:
    until(lambda: stage.asked("status", code=10)["data"]["archive"]["last_point"] is not None)
    found = stage.asked("status", code=10)["data"]["archive"]
    assert found["running"]
    assert found["lag_seconds"] < 5
    text = stage.call("status", code=10).stdout
    assert "archive: running, last restore point" in text


def test_nobody_is_left_holding_the_database(stage: Stage) -> None:
    stage.control("stop")
    identity = holders.identity_of(stage.site.database)
    assert identity is not None
    assert [holder for holder in holders.holders([identity]) if "portfolio" not in holder.name] == []
    assert json.loads(stage.call("--json", "status", code=10).stdout)["data"]["archive"]["running"]
