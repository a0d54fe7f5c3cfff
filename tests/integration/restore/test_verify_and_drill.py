"""Reading artifacts back, and the rehearsal: bad ones are found, put away, and told of."""

import contextlib
import errno
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.host.files import open_regular
from portfolio_ops.jobs.verify import Found, verify
from portfolio_ops.sqlite.assertions import failed_assertions
from portfolio_ops.store import catalogue, verified
from portfolio_ops.store.artifact import Kind, Metadata
from portfolio_ops.store.publish import Draft
from tests.integration.restore.conftest import Stage


def only(stage: Stage, kind: Kind = Kind.DAILY) -> Path:
    [path] = (stage.site.backups / kind.folder).iterdir()
    return path


def damage(path: Path, offset: int) -> None:
    """Flip one bit, as a disk does."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def all_jobs(stage: Stage) -> None:
    jobs = (
        ("backup", "daily"),
        ("backup", "social"),
        ("backup", "gallery", "x"),
        ("logs", "rotate"),
        ("archive", "base"),
    )
    for words in jobs:
        stage.call(*words)


def test_sound_artifacts_are_remembered_and_untouched(stage: Stage) -> None:
    all_jobs(stage)
    files = {path: path.read_bytes() for kind in Kind for path in (stage.site.backups / kind.folder).iterdir()}
    done = stage.asked("verify", "--all")["data"]
    assert [verdict["found"] == "sound" for verdict in done["verdicts"]] == [True] * 5
    assert {path: path.read_bytes() for path in files} == files
    rows = stage.asked("list")["data"]["artifacts"]
    assert all(row["last_verified"] >= row["taken"] for row in rows)
    assert {path.name for path in stage.site.state.iterdir() if "verify" in path.name} == {"verify.lock"}


def test_which_ones_are_verified(stage: Stage) -> None:
    all_jobs(stage)
    stage.call("backup", "daily")
    assert len(stage.asked("verify")["data"]["verdicts"]) == 5  # the newest of each kind
    assert len(stage.asked("verify", "--all")["data"]["verdicts"]) == 6
    assert len(stage.asked("verify", "--sample", "30%")["data"]["verdicts"]) == 2
    name = only(stage, Kind.SOCIAL).name
    assert len(stage.asked("verify", name, name, "latest")["data"]["verdicts"]) == 2
    for words in (["--sample", "0%"], ["--sample", "ten"], ["--all", name], ["--sample", "101%"]):
        stage.call("verify", *words, code=2)
    stage.call("verify", "nothing", code=6)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_a_flipped_bit_puts_an_artifact_into_quarantine(stage: Stage, kind: Kind) -> None:
    all_jobs(stage)
    path = only(stage, kind)
    damage(path, 10)
    done = stage.asked("verify", "--all", code=9)["data"]
    [bad] = [verdict for verdict in done["verdicts"] if verdict["found"] != "sound"]
    assert bad["kind"] == kind.value
    assert not path.exists()
    assert Path(bad["moved_to"]) == stage.site.backups / "quarantine" / path.name
    assert Path(bad["moved_to"]).exists()
    assert bad["id"] not in {row["id"] for row in stage.asked("list")["data"]["artifacts"]}
    assert "bad artifacts lie in" in stage.call("status", code=10).stdout


def test_one_that_retention_lets_go_meanwhile_is_no_failure(stage: Stage) -> None:
    all_jobs(stage)
    found = catalogue.scan(stage.site.backups, stage.site.name).artifacts
    found[0].path.unlink()
    verdicts = verify(stage.site, found, wait=timedelta())
    assert [verdict.artifact for verdict in verdicts] == list(found[1:])


def test_a_second_bad_one_of_the_same_name_is_kept_too(stage: Stage) -> None:
    for _ in range(2):
        stage.call("backup", "daily")
        damage(only(stage), 60)
        stage.call("verify", "--all", code=9)
    assert len(list((stage.site.backups / "quarantine").iterdir())) == 2


def forged(stage: Stage, details: dict[str, Any], database: Path, age: timedelta = timedelta()) -> Path:
    """An artifact whose hashes are right and whose content is not what it states."""
    folder = stage.site.backups / "daily"
    folder.mkdir(parents=True, exist_ok=True)
    with Draft(folder) as draft:
        draft.write([database.read_bytes()])
        content = draft.read_back()
        metadata = Metadata(Kind.DAILY, stage.site.name, datetime.now(UTC) - age, content, details)
        return draft.publish("forged", ".sqlite.zst", metadata).path


@pytest.mark.parametrize(
    "details",
    [{"rows": {"comments": 51}}, {"schema_sha256": "0" * 64}, {"foreign_key_violations": 7}, {"user_version": 3}],
)
def test_what_does_not_hold_what_it_states_is_bad(stage: Stage, details: dict[str, Any]) -> None:
    path = forged(stage, details, stage.site.database)
    stage.call("verify", "--all", code=9)
    assert not path.exists()


def test_a_hash_that_differs_is_bad_though_all_decodes(stage: Stage) -> None:
    folder = stage.site.backups / "daily"
    folder.mkdir(parents=True)
    with Draft(folder) as draft:
        draft.write([stage.site.database.read_bytes()])
        content = replace(draft.read_back(), sha256="0" * 64)
        draft.publish("forged", ".sqlite.zst", Metadata(Kind.DAILY, stage.site.name, datetime.now(UTC), content))
    assert "its hash differs" in stage.call("verify", "--all", code=9).stdout


def test_a_damaged_index_is_found_though_the_hashes_are_right(stage: Stage, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    with contextlib.closing(sqlite3.connect(stage.site.database)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, '(image)', '(body)') WHERE name='comments_image'"
        )
        connection.commit()
    forged(stage, {}, copy)
    assert "comments_image" in stage.call("verify", "--all", code=9).stdout


def test_every_truncation_is_found(stage: Stage) -> None:
    """200 points: what is cut short is no artifact, and counts for nothing."""
    stage.call("backup", "daily")
    path = only(stage)
    data = path.read_bytes()
    for point in range(200):
        path.write_bytes(data[: len(data) * point // 200])
        found = catalogue.scan(stage.site.backups, stage.site.name)
        assert (len(found.artifacts), len(found.problems)) == (0, 1), point
    done = stage.asked("verify", "--all", code=9)["data"]
    assert len(done["problems"]) == 1
    stage.call("restore", "database", str(path), "--to", str(stage.folder / "x"), code=9)
    assert path.exists()


# --- the rehearsal ---


def inodes(live: Stage) -> dict[str, int]:
    """Which files lie beside the database, but for its side files."""
    return {path.name: path.stat().st_ino for path in live.data.iterdir() if not path.name.endswith(("-wal", "-shm"))}


def test_a_drill_passes_and_leaves_nothing_behind(live: Stage) -> None:
    live.call("backup", "social")
    live.call("backup", "gallery", "x")
    before = inodes(live)  # not times: the site commits, and checkpoints, meanwhile
    report = live.asked("drill")["data"]
    assert report["verdict"] == "passed"
    assert len(report["restored"]) == 3
    assert report["recovery_seconds"] > 0
    assert inodes(live) == before
    assert not [path for path in live.site.state.iterdir() if path.is_dir()]
    status = live.asked("status", code=10)["data"]  # rotation has never run
    assert status["drill"]["verdict"] == "passed"
    assert status["jobs"]["drill"]["state"] == "ok"
    assert live.runs


def test_a_corrupted_artifact_makes_it_fail(live: Stage) -> None:
    damage(only(live), 2000)
    report = live.asked("drill", code=9)["data"]
    assert report["verdict"] == "failed"
    assert live.asked("status", code=10)["data"]["jobs"]["drill"]["state"] == "failed"
    assert list((live.site.backups / "quarantine").iterdir())


def test_a_corrupted_older_artifact_is_found_as_well(live: Stage) -> None:
    older = only(live)
    live.call("backup", "daily")
    damage(older, 2000)
    assert live.asked("drill", code=9)["data"]["verdict"] == "failed"
    assert not older.exists()


def test_no_backup_and_an_old_one_fail(stage: Stage) -> None:
    stage.site.backups.mkdir()
    assert "no database backup" in stage.call("drill", code=9).stdout
    forged(stage, {}, stage.site.database, age=timedelta(hours=27))
    assert "27 h old, the limit is 26 h" in stage.call("drill", code=9).stdout


@pytest.mark.parametrize(
    ("check", "code", "words"),
    [
        ("SELECT count(*) > 0 FROM galleries", 0, "passed"),
        ("SELECT count(*) > 1 FROM galleries", 9, "gave 0"),
        ("SELECT 1 FROM nowhere", 9, "no such table"),
        ("SELECT id FROM comments WHERE id > 5000", 9, "gave no row"),
        ("DELETE FROM comments", 9, "not authorized"),
        ("ATTACH '/tmp/x' AS x", 9, "not authorized"),
        ("PRAGMA journal_mode=delete", 9, "not authorized"),
        ("SELECT load_extension('/tmp/x')", 9, "not authorized"),
        ("SELECT 1; SELECT 0", 9, "more than one statement"),
        ("SELECT id FROM comments", 9, "more than one row"),
        ("SELECT 'no'", 9, "gave 'no'"),
        ("SELECT '0'", 9, "gave '0'"),
        ("SELECT x'00'", 9, "gave b"),
        ("SELECT '1 is true'", 0, "passed"),
        ("SELECT NULL", 9, "gave None"),
    ],
)
def test_the_sites_own_checks(stage: Stage, check: str, code: int, words: str) -> None:
    stage.file.write_text(f'[site]\nroot = "{stage.site.root}"\n[drill]\nchecks = ["{check}"]\n')
    stage.call("backup", "daily")
    assert words in stage.call("drill", code=code).stdout
    assert not Path("/tmp/x").exists()  # noqa: S108


def test_a_check_that_never_ends_fails(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portfolio_ops.sqlite.assertions._SECONDS", 0.3)
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT count(*) FROM c"
    [why] = failed_assertions(stage.site.database, (endless,))
    assert "was ended after 0 s" in why


def test_a_backup_of_the_future_is_not_the_newest_while_there_is_another(stage: Stage) -> None:
    stage.site.backups.mkdir()
    forged(stage, {}, stage.site.database, age=-timedelta(days=3000))
    assert "dated in the future" in stage.call("drill", code=9).stdout
    forged(stage, {}, stage.site.database, age=timedelta(hours=27))
    assert "27 h old, the limit is 26 h" in stage.call("drill", code=9).stdout


def test_what_a_restore_put_away_is_no_weekly_export(stage: Stage) -> None:
    stage.change("UPDATE comments SET image = 1")
    stage.call("backup", "social")
    [export] = (stage.site.backups / "social").iterdir()
    stage.call("restore", "social", "--yes")
    export.unlink()
    assert stage.asked("status", code=10)["data"]["jobs"]["backup-social"]["last_success"] is None
    stage.call("backup", "daily")
    assert "social-tables" not in stage.call("drill").stdout


def test_one_that_cannot_be_read_keeps_no_other_from_being_verified(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing disk, simulated where the file is opened; the dates that were earned are remembered."""
    all_jobs(stage)
    found = catalogue.scan(stage.site.backups, "shop").artifacts
    bad = found[1].path

    def failing(path: Path, *rest: Any) -> int:
        if path == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return open_regular(path, *rest)

    monkeypatch.setattr("portfolio_ops.restore.stage.open_regular", failing)
    verdicts = verify(stage.site, found, wait=timedelta())
    assert [verdict.found for verdict in verdicts] == [
        Found.SOUND,
        Found.UNKNOWN,
        Found.SOUND,
        Found.SOUND,
        Found.SOUND,
    ]
    assert bad.exists()
    assert set(verified.read(stage.site.state)) == {each.id for each in found if each.path != bad}


def test_rows_that_a_vacuum_renumbered_are_not_missing(stage: Stage) -> None:
    stage.change("CREATE TABLE loose(x)", *(f"INSERT INTO loose VALUES({number})" for number in range(60)))
    stage.change("DELETE FROM loose WHERE x < 30")
    stage.call("backup", "daily")
    stage.change("INSERT INTO loose SELECT x FROM loose", "DELETE FROM loose WHERE rowid < 61")
    stage.change("VACUUM")
    assert "passed" in stage.call("drill").stdout


def test_what_the_backup_lacks_is_a_doubt(stage: Stage) -> None:
    stage.call("backup", "daily")
    stage.change("INSERT INTO likes(image, visitor) VALUES(999, 'new')", "INSERT INTO comments(body) VALUES('new')")
    assert "passed" in stage.call("drill").stdout
    stage.change("UPDATE galleries SET id = -5", "INSERT INTO galleries(id, slug) VALUES(-6, 'b'), (-7, 'c')")
    assert "lacks, of galleries: 2 rows" in stage.call("drill", code=10).stdout
    stage.change("DELETE FROM galleries WHERE id < -5", "CREATE TABLE newer(x)")
    assert "the live table newer is not in the newest backup" in stage.call("drill", code=10).stdout
    stage.change("DROP TABLE newer")
    assert "passed" in stage.call("drill").stdout


def test_without_a_live_database_it_is_inconclusive(stage: Stage) -> None:
    stage.call("backup", "daily")
    stage.site.database.write_bytes(b"no database" * 500)
    done = stage.call("drill", code=10)
    assert "inconclusive" in done.stdout
    assert "is not a SQLite database" in done.stdout


def scratch_at(stage: Stage, path: Path) -> None:
    stage.file.write_text(f'[site]\nroot = "{stage.site.root}"\n[drill]\nscratch = "{path}"\n')


@pytest.mark.parametrize(
    ("options", "words"), [("size=64k", "bytes free"), ("ro", "Read-only"), ("size=10m", "passed")]
)
def test_a_scratch_place_on_another_filesystem(stage: Stage, tmp_path: Path, options: str, words: str) -> None:
    stage.call("backup", "daily")
    place = tmp_path / "scratch"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
    try:
        scratch_at(stage, place)
        done = stage.call("drill", code=0 if words == "passed" else 10)
        assert words in done.stdout
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_scratch_place_that_is_not_there(stage: Stage, tmp_path: Path) -> None:
    stage.call("backup", "daily")
    scratch_at(stage, tmp_path / "nowhere")
    assert "there is no folder" in stage.call("drill", code=10).stdout


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGTERM, "ended by SIGTERM"), (signal.SIGINT, "interrupted by Ctrl-C")]
)
def test_a_drill_that_is_ended_says_so(stage: Stage, number: signal.Signals, words: str) -> None:
    stage.call("backup", "daily")
    code = (
        "import time; from portfolio_ops.jobs import drill; from portfolio_ops.cli import main\n"
        "drill._rehearse = lambda *words: (print('rehearsing', flush=True), time.sleep(60))\n"
        "main.main()"
    )
    command: list[str | Path] = [sys.executable, "-c", code, "--config", stage.file, "drill"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "rehearsing\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert f"{words}; should anything be left to finish" in said
    assert stage.asked("status", code=10)["data"]["jobs"]["drill"]["why"] == f"the last run failed: {words}"
    assert not list(stage.site.state.glob(".portfolio-ops-*"))


def test_a_folder_that_a_killed_drill_left_is_removed_and_a_link_is_not_followed(stage: Stage, tmp_path: Path) -> None:
    stage.call("backup", "daily")
    left = stage.site.state / ".portfolio-ops-shop-drill"
    left.mkdir()
    (left / "newest").write_text("half")
    stage.call("drill")
    assert not left.exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    left.symlink_to(tmp_path / "precious")
    stage.call("drill", code=10)
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["file"]
