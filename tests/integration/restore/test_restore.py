"""Restoring a whole database, as an operator does: beside the live one, over it, and back again."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.errors import BusyError
from portfolio_ops.host.journal import Log
from portfolio_ops.restore import swap
from portfolio_ops.restore.stage import decode_to
from portfolio_ops.store.artifact import Content, Kind, read_artifact
from tests.integration.restore.conftest import TOOL, Stage


def daily(stage: Stage) -> Path:
    [path] = (stage.site.backups / "daily").iterdir()
    return path


def ids(path: Path) -> set[int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM comments")}


def test_beside_the_live_one(live: Stage, tmp_path: Path) -> None:
    target = tmp_path / "copy.sqlite"
    done = live.call("restore", "database", "--to", str(target))
    assert "checked in full" in done.stdout
    assert ids(target) == set(range(1, 51))
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(tmp_path.glob(".tmp-*")) == []
    assert live.runs


@pytest.mark.parametrize("reference", ["latest", "id", "name", "file", "elsewhere"])
def test_every_way_to_name_an_artifact(live: Stage, tmp_path: Path, reference: str) -> None:
    path = daily(live)
    shutil.copy(path, tmp_path / "carried.zst")
    word = {
        "latest": "latest",
        "id": live.asked("list")["data"]["artifacts"][0]["id"][:5],
        "name": path.name.split(".")[0],
        "file": str(path),
        "elsewhere": str(tmp_path / "carried.zst"),
    }[reference]
    live.call("restore", "database", word, "--to", str(tmp_path / "copy.sqlite"))
    assert ids(tmp_path / "copy.sqlite") == set(range(1, 51))


def test_over_the_live_one_and_undone_and_redone(live: Stage) -> None:
    os.setxattr(live.site.database, "user.tag", b"kept")
    live.site.database.chmod(0o664)
    answer = live.asked("restore", "database", "latest", "--in-place", "--yes")["data"]
    assert answer["done"]
    assert 0 < answer["down_seconds"] < 10
    assert live.runs
    assert set(range(1, 51)) <= ids(live.site.database)
    assert os.getxattr(live.site.database, "user.tag") == b"kept"
    assert live.site.database.stat().st_mode & 0o777 == 0o664
    assert live.kept() == ["portfolio.sqlite"]
    [kept] = live.asked("list", "event")["data"]["artifacts"]
    assert kept["id"] == answer["undo"]
    assert kept["name"] == "before a restore"

    live.call("restore", "undo", "--yes")
    assert not set(range(1, 11)) & ids(live.site.database)
    assert live.runs
    live.call("restore", "undo", "--yes")
    assert set(range(1, 11)) <= ids(live.site.database)
    assert live.kept() == ["portfolio.sqlite"]


def test_the_state_before_is_kept_to_its_last_commit(live: Stage) -> None:
    time.sleep(0.3)
    live.behaves("deaf")  # killed with a WAL that holds commits
    live.control("stop")
    (live.folder / "deaf").unlink()
    live.start()
    live.call("restore", "database", "--in-place", "--yes")
    before = ids(live.site.database)
    live.call("restore", "undo", "--yes")
    assert ids(live.site.database) - before
    assert not set(range(1, 11)) & ids(live.site.database)


def test_latest_is_never_what_a_restore_put_away(live: Stage) -> None:
    live.call("restore", "database", "--in-place", "--yes")
    live.call("restore", "database", "--in-place", "--yes")
    assert set(range(1, 11)) <= ids(live.site.database)
    assert live.asked("show", "latest")["data"]["kind"] == "daily"


def test_a_plan_changes_nothing(live: Stage) -> None:
    before = live.site.database.stat().st_ino
    done = live.call("restore", "database", "--in-place", "--dry-run")
    for words in (daily(live).name, "taken", "stops", "keeps", "nothing was changed (--dry-run)", "python"):
        assert words in done.stdout
    assert live.site.database.stat().st_ino == before
    assert not (live.folder / "stops").exists()
    assert not (live.site.state / "restore.json").exists()


def test_nobody_to_ask_is_no_yes(live: Stage) -> None:
    for words in (["--json"], []):
        done = subprocess.run(
            [TOOL, "--config", live.file, *words, "restore", "database", "--in-place"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 4
    assert not (live.folder / "stops").exists()


def test_commands_of_a_file_that_others_can_write_are_not_run_as_root(live: Stage) -> None:
    live.file.chmod(0o666)
    done = live.call("restore", "database", "--in-place", "--yes", code=3)
    assert "can be changed by others than root" in done.stderr
    assert not (live.folder / "stops").exists()


def test_where_to_must_be_said_once(live: Stage, tmp_path: Path) -> None:
    live.call("restore", "database", code=2)
    live.call("restore", "database", "--in-place", "--to", str(tmp_path / "x"), code=2)


# --- what fails after the backend was stopped: everything is as before ---


def unchanged(stage: Stage, *, runs: bool = True) -> None:
    assert not set(range(1, 11)) & ids(stage.site.database)
    assert stage.runs is runs
    assert stage.kept() == ["portfolio.sqlite"]
    connection = sqlite3.connect(stage.site.database)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_backend_that_is_not_well_gets_its_former_database_back(live: Stage) -> None:
    live.behaves("sick")
    done = live.call("restore", "database", "--in-place", "--yes", code=1)
    assert "the former state is in place" in done.stderr
    assert "answered 503" in done.stderr
    unchanged(live)
    live.behaves("sick", yes=False)
    live.call("restore", "database", "--in-place", "--yes")


def test_a_backend_that_does_not_start_gets_its_former_database_back(live: Stage) -> None:
    command = (live.folder / "command").read_text()
    (live.folder / "command").write_text("/bin/false")
    done = live.call("restore", "database", "--in-place", "--yes", code=1)
    assert "not well within" in done.stderr
    (live.folder / "command").write_text(command)
    unchanged(live, runs=False)


def test_a_backend_that_ignores_sigterm_is_stopped_all_the_same(live: Stage) -> None:
    live.control("stop")
    live.behaves("deaf")
    live.start()
    live.call("restore", "database", "--in-place", "--yes")
    assert set(range(1, 51)) <= ids(live.site.database)
    assert live.runs


def test_a_backend_that_says_it_stopped_and_did_not(live: Stage) -> None:
    live.behaves("clings")
    began = time.monotonic()
    done = live.call("restore", "database", "--in-place", "--yes", code=7)
    assert "is still open in python" in done.stderr
    assert time.monotonic() - began < 30
    unchanged(live)


def test_a_restart_policy_that_fights_leaves_one_of_both_whole(live: Stage) -> None:
    """Something starts the backend as soon as it is down: it gets the restored one, or all is taken back."""
    code = (
        "import os, subprocess, sys, time\n"
        f"while not os.path.exists({str(live.folder / 'over')!r}):\n"
        f"    subprocess.run([sys.executable, {str(live.folder / 'control.py')!r}, {str(live.folder)!r}, 'start'])\n"
        "    time.sleep(0.01)\n"
    )
    policy = subprocess.Popen([sys.executable, "-c", code])
    try:
        for _ in range(3):
            time.sleep(0.3)
            before = set(range(1, 11)) <= ids(live.site.database)
            done = subprocess.run(
                [TOOL, "--config", live.file, "restore", "database", "--in-place", "--yes"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode in {0, 7}, done.stderr
            assert (set(range(1, 11)) <= ids(live.site.database)) is (done.returncode == 0 or before)
            assert done.returncode == 0 or "restart policy" in done.stderr or "is in use" in done.stderr
            assert live.runs
            assert live.kept() == ["portfolio.sqlite"]
    finally:
        live.behaves("over")
        policy.wait()


def test_a_process_that_opens_the_database_at_the_last_moment_is_found(
    live: Stage, elsewhere: Callable[..., Any]
) -> None:
    """It cannot read, and it keeps the file that it opened: the former one, put back."""
    live.control("stop")
    incoming = live.data / "incoming.sqlite"
    live.call("restore", "database", "--to", str(incoming))
    opened = []
    keep = swap._keep

    def keep_and_open(*words: Any, **options: Any) -> None:
        keep(*words, **options)
        other = elsewhere(live.site.database, timeout=0.2)
        with pytest.raises(AssertionError, match="locked"):
            other.execute("SELECT count(*) FROM comments")
        opened.append(other)

    before = live.site.database.stat().st_ino
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swap, "_keep", keep_and_open)
        with pytest.raises(BusyError, match="just as it was exchanged"):
            swap.exchange(live.site.database, incoming, live.data / "former")
    assert live.site.database.stat().st_ino == before
    assert incoming.exists()
    opened[0].execute("INSERT INTO comments(id, body) VALUES(777777, 'by the other')")
    assert 777777 in ids(live.site.database)


def test_ctrl_c_while_the_backend_is_down(live: Stage) -> None:
    live.behaves("sick")  # so that it waits for health, with the new database in place
    before = live.site.database.stat().st_ino
    process = subprocess.Popen(
        [TOOL, "--config", live.file, "restore", "database", "--in-place", "--yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    # Only looked at from outside: whoever opens it is found, and takes the restore back.
    while live.site.database.stat().st_ino == before and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    unchanged(live)


# --- what is refused before anything is changed ---


def test_a_database_in_use_with_no_way_to_stop_it(stage: Stage, elsewhere: Callable[..., Any]) -> None:
    stage.call("backup", "daily")
    stage.file.write_text(f'[site]\nroot = "{stage.site.root}"\n')
    other = elsewhere(stage.site.database)
    other.execute("SELECT count(*) FROM comments")
    done = stage.call("restore", "database", "--in-place", "--yes", code=4)
    assert f"process {other.process.pid}" in done.stderr
    assert "[backend]" in done.stderr
    other.close()
    stage.call("restore", "database", "--in-place", "--yes")


def test_an_idle_connection_of_a_rollback_journal_is_seen(stage: Stage, elsewhere: Callable[..., Any]) -> None:
    """It holds no lock at all: only its descriptor tells."""
    stage.change("PRAGMA journal_mode=delete")
    stage.call("backup", "daily")
    stage.file.write_text(f'[site]\nroot = "{stage.site.root}"\n')
    other = elsewhere(stage.site.database)
    other.execute("SELECT count(*) FROM comments")
    stage.call("restore", "database", "--in-place", "--yes", code=4)


def test_what_looks_foreign_needs_words(stage: Stage, tmp_path: Path) -> None:
    stage.call("backup", "daily")
    other = tmp_path / "other.toml"
    other.write_text(f'[site]\nroot = "{stage.site.root}"\n')
    artifact = daily(stage)
    shutil.copy(artifact, tmp_path / "theirs.zst")
    done = subprocess.run(
        [TOOL, "--config", other, "restore", "database", tmp_path / "theirs.zst", "--in-place", "--yes"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "it is of the site shop, this is other" in done.stderr
    stage.change("CREATE TABLE a(x)", "CREATE TABLE b(x)", *(f"CREATE TABLE t{n}(x)" for n in range(8)))
    done = stage.call("restore", "database", "--in-place", "--yes", code=4)
    assert "it lacks 10 of the live database's 16 tables" in done.stderr
    stage.call("restore", "database", "--in-place", "--yes", "--force", "before the migration")


def test_a_target_that_is_there_is_never_replaced(live: Stage, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "folder", "link"):
        live.call("restore", "database", "--to", str(tmp_path / name), code=4)
    live.call("restore", "database", "--to", str(tmp_path / "no/such/folder"), code=6)
    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def bad_files(folder: Path, good: Path) -> dict[str, tuple[Path, int]]:
    """Files that are no artifacts, with the exit code for each."""
    data = good.read_bytes()
    (folder / "cut").write_bytes(data[:-100])
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    (folder / "link").symlink_to(good)
    os.mkfifo(folder / "fifo")
    (folder / "database").write_bytes(b"SQLite format 3\0" + bytes(4080))
    (folder / "flipped").write_bytes(data[:300] + bytes([data[300] ^ 1]) + data[301:])
    newer = data.replace(b'"format":1', b'"format":7')
    (folder / "newer").write_bytes(newer)
    codes = {
        "cut": 9,
        "empty": 9,
        "folder": 4,
        "link": 4,
        "fifo": 4,
        "database": 4,
        "flipped": 9,
        "newer": 9,
        "none": 6,
    }
    return {name: (folder / name, code) for name, code in codes.items()}


def test_bad_input_is_told_and_changes_nothing(live: Stage, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    inode = live.site.database.stat().st_ino
    for name, (path, code) in bad_files(tmp_path / "bad", daily(live)).items():
        for where in (["--to", str(tmp_path / "out.sqlite")], ["--in-place", "--yes"]):
            done = live.call("restore", "database", str(path), *where, code=code)
            assert name in done.stderr, done.stderr
            assert "try:" in done.stderr
    assert not (tmp_path / "out.sqlite").exists()
    assert not (live.folder / "stops").exists()
    assert live.site.database.stat().st_ino == inode
    assert live.kept() == ["portfolio.sqlite"]


def test_an_artifact_that_decodes_to_more_than_it_states_is_stopped(live: Stage, tmp_path: Path) -> None:
    artifact = read_artifact(daily(live))
    metadata = replace(artifact.metadata, content=Content(artifact.metadata.content.sha256, 4096))
    with pytest.raises(Exception, match="decodes to more than the 4,096 bytes"):
        decode_to(replace(artifact, metadata=metadata), tmp_path / "out", Log(site="shop", job="test"))
    assert not (tmp_path / "out").exists()


def test_a_logs_artifact_is_not_a_database(live: Stage) -> None:
    live.call("logs", "rotate")
    [archive] = (live.site.backups / Kind.LOGS.folder).iterdir()
    done = live.call("restore", "database", archive.name, "--in-place", "--yes", code=2)
    assert "holds logs" in done.stderr


# --- a live database that is damaged, missing, or not one at all ---


def test_a_damaged_database_is_kept_as_raw_files_and_can_be_had_back(live: Stage) -> None:
    live.control("stop")
    live.site.database.write_bytes(b"garbage" * 1000)
    live.site.database.with_name("portfolio.sqlite-wal").write_bytes(b"rubbish")
    done = live.call("restore", "database", "--in-place", "--yes")
    assert ids(live.site.database) == set(range(1, 51))
    [folder] = [path for path in live.data.iterdir() if path.is_dir()]
    assert str(folder) in done.stdout
    assert (folder / "portfolio.sqlite").read_bytes() == b"garbage" * 1000
    assert (folder / "portfolio.sqlite-wal").read_bytes() == b"rubbish"
    assert not live.site.database.with_name("portfolio.sqlite-wal").exists()

    live.call("restore", "undo", "--yes")
    assert live.site.database.read_bytes() == b"garbage" * 1000
    assert live.site.database.with_name("portfolio.sqlite-wal").read_bytes() == b"rubbish"
    live.call("restore", "undo", "--yes")
    assert ids(live.site.database) == set(range(1, 51))
    live.start()


def test_raw_files_that_cannot_be_copied_change_nothing(live: Stage) -> None:
    live.control("stop")
    live.site.database.write_bytes(b"garbage" * 1000)
    live.call("restore", "database", "--in-place", "--yes")
    [folder] = [path for path in live.data.iterdir() if path.is_dir()]
    (folder / "portfolio.sqlite-wal").mkdir()
    done = live.call("restore", "undo", "--yes", code=4)
    assert "the former state is in place" in done.stderr
    assert ids(live.site.database) == set(range(1, 51))
    assert live.kept() == ["portfolio.sqlite", folder.name]
    assert json.loads(live.site.state.joinpath("restore.json").read_bytes())["state"] == "put back"
    (folder / "portfolio.sqlite-wal").rmdir()
    live.call("restore", "undo", "--yes")
    assert live.site.database.read_bytes() == b"garbage" * 1000


def test_a_missing_database_is_made_new(live: Stage) -> None:
    live.control("stop")
    live.site.database.unlink()
    done = live.call("restore", "database", "--in-place", "--yes")
    assert "no database before" in done.stdout
    assert ids(live.site.database) == set(range(1, 51))
    live.call("restore", "undo", "--yes", code=6)


def test_a_wal_without_its_database_is_not_replayed(live: Stage) -> None:
    live.control("stop")
    live.change("DELETE FROM comments")
    shutil.copy(live.site.database, live.folder / "away")
    connection = sqlite3.connect(live.site.database)
    connection.execute("INSERT INTO comments(image, body) VALUES(1, 'in the WAL')")
    connection.commit()
    wal = live.site.database.with_name("portfolio.sqlite-wal")
    data = wal.read_bytes()
    connection.close()
    live.site.database.unlink()
    wal.write_bytes(data)
    live.call("restore", "database", "--in-place", "--yes")
    assert ids(live.site.database) == set(range(1, 51))
    [folder] = [path for path in live.data.iterdir() if path.is_dir()]
    assert (folder / "portfolio.sqlite-wal.stray").read_bytes() == data


def test_a_restore_that_is_taken_back_leaves_the_undo_of_the_one_before(live: Stage) -> None:
    live.call("restore", "database", "--in-place", "--yes")
    live.behaves("sick")
    live.call("restore", "database", "--in-place", "--yes", code=1)
    live.behaves("sick", yes=False)
    live.call("restore", "undo", "--yes")
    assert not set(range(1, 11)) & ids(live.site.database)


def test_a_former_database_that_no_record_tells_of_is_not_thrown_away(live: Stage) -> None:
    live.control("stop")
    former = live.data / ".portfolio-ops-restore/former"
    former.mkdir(parents=True)
    (former / "portfolio.sqlite").write_text("precious")
    for _ in range(2):
        done = live.call("restore", "database", "--in-place", "--yes", code=4)
        assert "no record tells of" in done.stderr
    assert (former / "portfolio.sqlite").read_text() == "precious"


def test_a_stray_wal_does_not_undo_the_restore(stage: Stage) -> None:
    """What a person who restores by hand may have left: a WAL of another database."""
    stage.call("backup", "daily")
    other = stage.data / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE elsewhere(x)")
    connection.commit()
    wal = other.with_name("other.sqlite-wal").read_bytes()
    connection.close()
    other.unlink()
    stage.site.database.with_name("portfolio.sqlite-wal").write_bytes(wal)
    stage.call("restore", "database", "--in-place", "--yes", "--force", "the live one is a mess")
    assert ids(stage.site.database) == set(range(1, 51))


def test_a_full_disk_refuses_before_anything_is_touched(live: Stage, tmp_path: Path) -> None:
    """The backups on a small filesystem of their own, the data on another one."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
    try:
        done = live.call("restore", "database", "--to", str(small / "copy.sqlite"), code=4)
        assert "bytes free" in done.stderr
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_restore_waits_for_a_backup_that_runs_and_gives_up(live: Stage) -> None:
    descriptor = os.open(live.site.state / "daily.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    live.call("restore", "database", "--in-place", "--yes", "--wait", "0", code=7)
    os.close(descriptor)
    assert not (live.folder / "stops").exists()
