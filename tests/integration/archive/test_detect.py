"""Galleries that a site adds, seen by the archive beside it: each in one backup, whatever is killed when."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops import config
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Artifact, Kind
from tests.integration.archive.oracle import TOOL, Yard


class Galleries(Yard):
    """A site that adds galleries."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with self.file.open("a") as file:
            file.write('[gallery]\ntable = "galleries"\nname = "slug"\n')
        self.site = config.load(self.file)
        self.connection = sqlite3.connect(self.database, timeout=30, isolation_level=None)
        self.connection.execute("CREATE TABLE galleries(id INTEGER PRIMARY KEY, slug)")

    def add(self, *names: Any) -> None:
        self.connection.executemany("INSERT INTO galleries(slug) VALUES (?)", [(name,) for name in names])

    def follow(self) -> None:
        """Start the archive, until it knows what there is."""
        self.start_archive()
        self.until((self.site.state / "galleries.json").exists, "what there is is known")

    def known(self) -> Any:
        return json.loads((self.site.state / "galleries.json").read_bytes())

    def events(self) -> list[Artifact]:
        return list(catalogue.scan(self.site.backups, "shop", [Kind.EVENT]).artifacts)

    def wait_for(self, count: int) -> list[Artifact]:
        """That many events, and nothing that waits."""
        self.until(lambda: len(self.events()) >= count, f"{count} events", 60)
        self.until(lambda: self.known()["begun"] is None and self.known()["waiting"] is None, "nothing waits", 60)
        assert len(self.events()) == count
        return self.events()

    def children(self) -> list[int]:
        """Processes in which the archive makes backups."""
        assert self.archive is not None
        number = self.archive.pid
        return [int(word) for word in Path(f"/proc/{number}/task/{number}/children").read_text().split()]

    def end(self) -> None:
        super().end()
        self.connection.close()


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Galleries]:
    made = Galleries(tmp_path)
    yield made
    made.end()


def said(event: Artifact) -> dict[str, Any]:
    return event.metadata.details


def test_one_row_is_one_backup_and_before_it_is_before(yard: Galleries) -> None:
    yard.add("old")
    yard.follow()
    yard.wait_for_base()
    time.sleep(1.5)
    yard.add("winter")
    [event] = yard.wait_for(1)
    assert event.path.name.startswith("gallery-added-winter-2")
    assert {key: said(event)[key] for key in ("event", "name", "names", "more", "rowids")} == {
        "event": "gallery-added",
        "name": "winter",
        "names": ["winter"],
        "more": False,
        "rowids": [2, 2],
    }
    yard.end_archive()
    target = yard.folder / "before.sqlite"
    command: list[str | Path] = [
        TOOL,
        "--config",
        yard.file,
        "restore",
        "database",
        "--before",
        "winter",
        "--to",
        target,
    ]
    subprocess.run(command, check=True, capture_output=True)
    restored = sqlite3.connect(target)
    assert restored.execute("SELECT slug FROM galleries").fetchall() == [("old",)]
    restored.close()


def test_a_burst_is_one_backup_that_lists_all(yard: Galleries) -> None:
    yard.follow()
    for number in range(0, 100, 10):
        yard.add(*(f"g{each}" for each in range(number, number + 10)))
        time.sleep(0.3)
    [event] = yard.wait_for(1)
    assert said(event)["names"] == [f"g{number}" for number in range(100)]
    assert (said(event)["rowids"], said(event)["name"], said(event)["more"]) == ([1, 100], "g99", False)


def test_a_rowid_that_is_given_again_and_hostile_names(yard: Galleries) -> None:
    yard.add("a", "b", "c")
    yard.follow()
    yard.connection.execute("DELETE FROM galleries WHERE id = 3")
    names = [None, b"\x00\xff", 7, "x" * 10_000, "\x1b[2J\n", "../../x"]
    yard.add(*names)
    [event] = yard.wait_for(1)
    assert said(event)["rowids"] == [3, 8]
    assert said(event)["names"] == ["row 3", "X'00ff'", "7", "x" * 200, "\x1b[2J\n", "../../x"]
    assert event.path.parent == yard.site.backups / "event-triggered"
    assert event.path.name.startswith("gallery-added-x-")


def test_what_came_while_nobody_looked_is_caught_up(yard: Galleries) -> None:
    yard.follow()
    yard.end_archive()
    yard.add("meanwhile")
    # All that a site's last close does: the archive cannot go on with its timeline.
    yard.connection.close()
    yard.connection = sqlite3.connect(yard.database, isolation_level=None)
    yard.start_archive()
    [event] = yard.wait_for(1)
    assert (said(event)["names"], said(event)["before"]) == (["meanwhile"], "")
    command: list[str | Path] = [
        TOOL,
        "--config",
        yard.file,
        "restore",
        "database",
        "--before",
        "meanwhile",
        "--to",
        "x",
    ]
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "is not known" in refused.stderr


def test_killed_at_any_moment_each_row_is_in_one_backup(yard: Galleries) -> None:
    chance, added = random.Random(7), 0
    yard.follow()
    for _ in range(9):
        deadline = time.monotonic() + chance.uniform(0.2, 8)
        while time.monotonic() < deadline:
            if chance.random() < 0.15:
                added += 1
                yard.add(f"g{added}")
            time.sleep(0.2)
        children = yard.children()
        yard.end_archive(signal.SIGKILL)
        for child in children if chance.random() < 0.5 else []:  # as systemd does; else it goes on beside the next
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        yard.start_archive()
    added += 1
    yard.add(f"g{added}")
    yard.until(lambda: any(f"g{added}" in said(event)["names"] for event in yard.events()), "the last is there", 90)
    yard.wait_for(len(yard.events()))
    names = [name for event in yard.events() for name in said(event)["names"]]
    assert sorted(names) == sorted(f"g{number}" for number in range(1, added + 1))
    assert len({said(event)["request"] for event in yard.events()}) == len(yard.events())


def test_what_was_made_before_a_kill_is_not_made_again(yard: Galleries) -> None:
    yard.follow()
    yard.add("a")
    yard.until(lambda: yard.known()["begun"] is not None, "it begins")
    begun = (yard.site.state / "galleries.json").read_bytes()
    yard.wait_for(1)
    yard.end_archive(signal.SIGKILL)
    (yard.site.state / "galleries.json").write_bytes(begun)
    yard.start_archive()
    yard.wait_for(1)


def test_a_table_that_is_made_later(yard: Galleries) -> None:
    yard.connection.execute("DROP TABLE galleries")
    yard.follow()
    yard.until(lambda: "there is no table galleries yet" in yard.said(), "it is told")
    yard.connection.execute("CREATE TABLE galleries(slug TEXT)")
    yard.add("first")
    [event] = yard.wait_for(1)
    assert said(event)["names"] == ["first"]


def test_a_view_is_told_once_and_the_archive_goes_on(yard: Galleries) -> None:
    yard.connection.execute("DROP TABLE galleries")
    yard.connection.execute("CREATE VIEW galleries AS SELECT 1 AS slug")
    yard.start_archive()
    for number in range(4):
        yard.connection.execute("UPDATE counters SET n = n")
        time.sleep(1.1)
        assert yard.archive is not None
        assert yard.archive.poll() is None, number
    assert yard.said().count("is a view, not a table") == 1
    assert not (yard.site.state / "galleries.json").exists()


def test_rows_of_a_database_that_was_put_in_its_place_are_known(yard: Galleries) -> None:
    yard.add("a", "b")
    yard.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = yard.database.with_name("copy.sqlite")
    copy.write_bytes(yard.database.read_bytes())
    yard.connection.execute("DELETE FROM galleries WHERE id = 2")
    yard.follow()
    yard.end_archive()
    yard.connection.close()
    yard.database.with_name("portfolio.sqlite-wal").unlink(missing_ok=True)
    yard.database.with_name("portfolio.sqlite-shm").unlink(missing_ok=True)
    copy.replace(yard.database)
    yard.connection = sqlite3.connect(yard.database, isolation_level=None)
    yard.start_archive()
    yard.until(lambda: [rowid for rowid, _ in yard.known()["marks"]] == [2, 1], "they are known")
    assert "the database was replaced" in yard.said()
    yard.add("c")
    [event] = yard.wait_for(1)
    assert said(event)["names"] == ["c"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"version": 2}', b"\xff", b'{"version": 1, "marks": 3}'])
def test_a_damaged_memory_is_told_and_what_is_there_is_known(yard: Galleries, damage: bytes) -> None:
    yard.add("a")
    yard.site.state.mkdir(parents=True)
    (yard.site.state / "galleries.json").write_bytes(damage)
    yard.start_archive()
    yard.until(lambda: b"inode" in (yard.site.state / "galleries.json").read_bytes(), "what there is is known")
    assert "galleries.json is damaged" in yard.said()
    assert [rowid for rowid, _ in yard.known()["marks"]] == [1]
    assert yard.events() == []


def test_a_backup_that_fails_is_tried_again(yard: Galleries) -> None:
    yard.follow()
    blocker = yard.site.backups / "event-triggered"
    blocker.write_text("a file where the folder should be")
    yard.add("a")
    yard.until(lambda: "again in 10 s" in yard.said(), "it is told")
    blocker.unlink()
    [event] = yard.wait_for(1)
    assert said(event)["names"] == ["a"]


def test_what_cannot_be_remembered_is_no_event_yet(yard: Galleries) -> None:
    yard.follow()
    memory = yard.site.state / "galleries.json"
    former = memory.read_bytes()
    memory.unlink()
    memory.mkdir()
    yard.add("a")
    yard.until(lambda: "No gallery is seen to be added" in yard.said(), "it is told")
    time.sleep(3)  # the archive seals the WAL, which is the last that happens to the database
    memory.rmdir()
    memory.write_bytes(former)  # nothing else is committed: it looks again by itself
    [event] = yard.wait_for(1)
    assert said(event)["names"] == ["a"]


def test_without_the_section_nothing_is_looked_at(yard: Galleries) -> None:
    yard.file.write_text(f'[site]\nroot = "{yard.site.root}"\n')
    yard.start_archive()
    yard.wait_for_base()
    yard.add("a")
    time.sleep(8)
    assert yard.events() == []
    assert not (yard.site.state / "galleries.json").exists()
