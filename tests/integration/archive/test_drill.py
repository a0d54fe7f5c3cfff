"""What a drill says of the archive: it restores a second, and holds what the archive leads to against a backup."""

import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from portfolio_ops.host.journal import Log
from portfolio_ops.restore import points
from portfolio_ops.restore.stage import decode_to
from portfolio_ops.restore.witnesses import Witness, newest_witness
from portfolio_ops.sqlite.content import content_sha256
from portfolio_ops.store import timeline, witness
from portfolio_ops.store.artifact import Artifact, Metadata
from portfolio_ops.store.publish import Draft
from tests.integration.archive.oracle import TOOL, Yard, require_in_order, state_of


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.end()


def asked(yard: Yard, *words: str, code: int | None = 0) -> Any:
    command: list[str | Path] = [TOOL, "--config", yard.file, "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert code is None or done.returncode == code, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert bool(answer["errors"]) == (answer["status"] == "error")
    return answer["data"]


def archived(yard: Yard, *, pause: float = 0.0) -> Witness:
    """A site that never rests, archived, with a backup taken meanwhile; both have ended."""
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0, pause=pause)
    for _ in range(3):  # the archive may flush in the very moment in which the backup begins
        time.sleep(1.2)
        asked(yard, "backup", "daily")
        time.sleep(2.5)
        if newest_witness(points.read(yard.site)) is not None:
            break
    yard.stop_writing(0)
    time.sleep(1.5)
    yard.end_archive()
    found = newest_witness(points.read(yard.site))
    assert found is not None
    return found


def test_a_backup_of_a_site_that_never_rests_stands_at_a_restore_point(yard: Yard) -> None:
    found = archived(yard)
    assert found.artifact.path.parent.name == "daily"
    assert found.plan.base.path.parent.name == "wal"
    states = [(cuts[-1][1], state_of(yard.replayed(base, cuts))) for _, base, cuts in yard.points()]
    require_in_order(states, yard.acknowledged)
    asked(yard, "backup", "daily")  # else the live database has more than the newest backup
    report = asked(yard, "drill")
    assert any("increments lead to what portfolio-" in line for line in report["evidence"])
    moment = report["restored"][-1]
    target = yard.folder / "again.sqlite"
    asked(yard, "restore", "database", "--at", moment, "--to", str(target))
    assert target.exists()
    assert [path.name for path in yard.site.state.iterdir() if "drill" in path.name and path.is_dir()] == []


def test_another_content_fails_the_drill(yard: Yard) -> None:
    """A base with rows that were never there, and sound in itself."""
    yard.write(1)
    time.sleep(0.3)
    yard.stop_writing(1)
    found = archived(yard)
    base = found.plan.base
    copy = yard.folder / "copy.sqlite"
    decode_to(base, copy, Log(site="shop", job="test"))
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        assert connection.execute("UPDATE w1 SET text = 'never'").rowcount > 0
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    base.path.unlink()
    republish(base, copy)
    reasons = asked(yard, "drill", code=9)["reasons"]
    assert any(f"lead to another content than {found.artifact.path.name} holds" in reason for reason in reasons)


def republish(base: Artifact, copy: Path) -> None:
    with Draft(base.path.parent) as draft, copy.open("rb") as file, (copy.parent / "back").open("w+b") as back:
        draft.write(iter([file.read()]), size=copy.stat().st_size)
        content = draft.read_back(cast("BinaryIO", back))
        meta = base.metadata
        stem = base.path.name.removesuffix(".sqlite.zst")
        draft.publish(stem, ".sqlite.zst", Metadata(meta.kind, meta.site, meta.taken, content, meta.details))


def test_damage_fails_the_drill(yard: Yard) -> None:
    archived(yard)
    # At the full hour there are two.
    path = max(yard.site.backups.glob("wal/*/*.wal.zst"), key=lambda each: each.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    reasons = asked(yard, "drill", code=9)["reasons"]
    assert any(path.name in reason and "archive verify" in reason for reason in reasons)


def test_a_young_archive_is_restored_and_says_that_there_is_nothing_to_compare_with(yard: Yard) -> None:
    asked(yard, "backup", "daily")
    assert any("nothing is archived" in line for line in asked(yard, "drill")["evidence"])
    yard.start_archive()
    yard.wait_for_base(2)
    yard.write(0, pause=0.01)
    time.sleep(2.5)
    yard.stop_writing(0)
    yard.end_archive()
    # Whether it is inconclusive for another reason depends on how many rows the site has written and deleted since.
    assert any("nothing to compare with yet" in line for line in asked(yard, "drill", code=None)["evidence"])


def test_what_is_asked_for_in_vain_harms_nothing(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0, pause=0.005)
    place = yard.site.state / "archive-witness"
    yard.until(lambda: next(yard.points(), None) is not None, "something is archived")
    salts = next(iter(yard.points()))[2][-1][1].position.salts
    junk = [b"", b"junk", b"x" * 5000, b"0123456789abcdef 0000000007 1\n", f"{salts} 0000000007 {9:017}\n".encode()]
    for words in (*junk, *(f"{salts} {n:010} {time.time_ns() // 1000:017}\n".encode() for n in range(1, 60))):
        place.write_bytes(words)
        time.sleep(0.1)
    for make in ("mkfifo", "ln -s /", "mkdir"):
        place.unlink(missing_ok=True)
        subprocess.run([*make.split(), place], check=True)
        time.sleep(1.2)
    yard.stop_writing(0)
    time.sleep(1.5)
    yard.end_archive()
    assert len(timeline.ids(yard.site.backups)) == 1
    assert "checksum" not in yard.said()
    assert place.is_dir()
    assert witness.asked(yard.site.state) is None
    asked(yard, "backup", "daily")
    assert asked(yard, "archive", "verify")["damaged"] == []


def test_the_same_rows_are_the_same_whatever_the_file(tmp_path: Path) -> None:
    hashes = []
    for name, filler in (("a", ""), ("b", "x" * 50_000)):
        with closing(sqlite3.connect(tmp_path / name, isolation_level=None)) as connection:
            connection.execute('CREATE TABLE "a ""b"(id INTEGER PRIMARY KEY, t TEXT, b BLOB, r REAL)')
            connection.execute("CREATE TABLE w(k TEXT PRIMARY KEY) WITHOUT ROWID")
            connection.execute('INSERT INTO "a ""b" VALUES(1, ?, ?, 0.1)', (filler, filler.encode()))
            connection.execute('UPDATE "a ""b" SET t = NULL, b = x\'00ff\'')
        hashes.append(content_sha256(tmp_path / name))
    assert hashes[0] == hashes[1]
    assert (tmp_path / "a").stat().st_size != (tmp_path / "b").stat().st_size
    with closing(sqlite3.connect(tmp_path / "b", isolation_level=None)) as connection:
        connection.execute("INSERT INTO w VALUES('k')")
    assert content_sha256(tmp_path / "b") != hashes[0]
