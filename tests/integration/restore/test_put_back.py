"""Restores that fail: everything is as it was before, the backend runs, and no commits are mixed."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops import config
from portfolio_ops.errors import BusyError, RefusedError
from portfolio_ops.restore import swap, work
from tests.conftest import make_database
from tests.integration.restore.conftest import TOOL, Stage

# A restart policy: what it runs cannot live with the restored database, and is started again at once.
POLICY = """
import contextlib, os, sqlite3, sys, time
folder, database = sys.argv[1:3]
def ended():
    return os.path.exists(folder + "/stopped") or os.path.exists(folder + "/over")
def work():
    connection = sqlite3.connect(database, timeout=5, isolation_level=None)
    bad = connection.execute("SELECT count(*) FROM comments WHERE id <= 10").fetchone()[0]
    while not ended():
        connection.execute("INSERT INTO comments(image, body) VALUES(1, 'acknowledged')")
        time.sleep(0.004)
        if bad:
            os._exit(1)
    connection.close()
parent = os.getppid()
while not os.path.exists(folder + "/over") and os.getppid() == parent:
    if os.path.exists(folder + "/stopped"):
        open(folder + "/idle", "w").close()
        time.sleep(0.002)
        continue
    child = os.fork()
    if child == 0:
        with contextlib.suppress(sqlite3.Error):
            work()
        os._exit(1)
    os.waitpid(child, 0)
    time.sleep(0.01)
"""


def state(stage: Stage) -> str:
    return str(json.loads((stage.site.state / "restore.json").read_bytes())["state"])


def configured(stage: Stage, **changes: Any) -> None:
    """Change keys of [backend] in the site's file."""
    kept = [line for line in stage.file.read_text().splitlines() if line.partition(" ")[0] not in changes]
    stage.file.write_text("\n".join([*kept, *(f"{key} = {json.dumps(value)}" for key, value in changes.items()), ""]))
    stage.site = config.load(stage.file)


def restored_rows(database: Path) -> int:
    """How many of the rows that only the backup has; the database must be sound."""
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return int(connection.execute("SELECT count(*) FROM comments WHERE id <= 10").fetchone()[0])


@pytest.mark.slow
def test_a_backend_that_crashes_on_the_restored_database_and_is_started_at_once(live: Stage) -> None:
    live.control("stop")
    folder = live.folder
    (folder / "policy.py").write_text(POLICY)
    (folder / "stopped").touch()
    wait = f"touch {folder}/stopped; until test -e {folder}/idle; do sleep 0.01; done"
    configured(
        live,
        stop=["sh", "-c", wait],
        start=["sh", "-c", f"rm -f {folder}/idle {folder}/stopped"],
        status=["sh", "-c", f"test ! -e {folder}/stopped"],
        health="http://127.0.0.1:1/",
        patience="2s",
    )
    policy = subprocess.Popen([sys.executable, folder / "policy.py", folder, live.site.database])
    try:
        for _ in range(4):
            (folder / "idle").unlink(missing_ok=True)
            (folder / "stopped").unlink(missing_ok=True)
            time.sleep(0.3)
            live.call("restore", "database", "--in-place", "--yes", code=1)
            assert state(live) == "put back"
            time.sleep(0.2)
            subprocess.run(["sh", "-c", wait], check=True)
            assert restored_rows(live.site.database) == 0
            assert live.kept() == ["portfolio.sqlite"]
    finally:
        (folder / "over").touch()
        policy.wait()


@contextlib.contextmanager
def opened(database: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that has a database open, and has not begun to read; a line makes it write."""
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)\n"
        "print(flush=True)\n"
        "sys.stdin.readline()\n"
        "for _ in range(50): connection.execute('INSERT INTO comments(image, body) VALUES(1, ?)', ('late',))\n"
        "print(flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_who_opens_the_file_just_before_the_exchange_finds_what_it_opened(
    live: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In either direction: nothing that it writes afterwards goes into the other database."""
    monkeypatch.setattr(swap, "_LETS_GO_WITHIN", 0.3)
    live.control("stop")
    database, incoming = live.site.database, live.data / "incoming/portfolio.sqlite"
    incoming.parent.mkdir()
    make_database(incoming, images=3)
    before = database.stat().st_ino
    move = swap._move
    with contextlib.ExitStack() as processes:
        late: list[subprocess.Popen[str]] = []

        def moving(source: Path, target: Path) -> None:
            if not late:
                late.append(processes.enter_context(opened(database)))
            move(source, target)

        monkeypatch.setattr(swap, "_move", moving)
        with pytest.raises(BusyError, match="was opened by"):
            swap.exchange(database, incoming, tmp_path / "kept")
        assert database.stat().st_ino == before
        assert late[0].stdin is not None
        late[0].stdin.write("\n")
        late[0].stdin.flush()
        assert late[0].stdout is not None
        assert late[0].stdout.readline() == "\n"
    assert restored_rows(database) == 0
    assert restored_rows(incoming) == 3
    assert live.rows() > 50


def test_who_opens_the_new_file_before_it_stays_cannot_write(
    live: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its WAL would have the live name, and be taken for that of the file which is put back."""
    monkeypatch.setattr(swap, "_LETS_GO_WITHIN", 0.3)
    live.control("stop")
    incoming = live.data / "incoming/portfolio.sqlite"
    incoming.parent.mkdir()
    make_database(incoming, images=3)
    move = swap._move
    code = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], timeout=0.2, isolation_level=None)\n"
        "connection.execute('INSERT INTO comments(image, body) VALUES(1, ?)', ('early',))\n"
    )
    early: list[subprocess.CompletedProcess[str]] = []

    def moving(source: Path, target: Path) -> None:
        move(source, target)
        if not early:
            command = [sys.executable, "-c", code, str(live.site.database)]
            early.append(subprocess.run(command, capture_output=True, text=True, check=False))

    monkeypatch.setattr(swap, "_move", moving)
    with opened(live.site.database), pytest.raises(BusyError, match="was opened by"):
        swap.exchange(live.site.database, incoming, tmp_path / "kept")
    assert "database is locked" in early[0].stderr
    assert restored_rows(live.site.database) == 0
    assert restored_rows(incoming) == 3


def test_the_live_name_is_never_without_a_database(
    live: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "_LETS_GO_WITHIN", 0.0)
    live.control("stop")
    incoming = live.data / "incoming/portfolio.sqlite"
    incoming.parent.mkdir()
    make_database(incoming, images=3)
    move, real_link = swap._move, os.link
    seen: list[bool] = []

    def moving(source: Path, target: Path) -> None:
        seen.append(live.site.database.exists())
        move(source, target)
        seen.append(live.site.database.exists())

    def linking(source: Path, target: Path) -> None:
        real_link(source, target)
        seen.append(live.site.database.exists())

    monkeypatch.setattr(swap, "_move", moving)
    monkeypatch.setattr(os, "link", linking)
    with opened(live.site.database), pytest.raises(BusyError):
        swap.exchange(live.site.database, incoming, tmp_path / "kept")
    assert len(seen) == 6
    assert all(seen)


def waits_with_the_new_one(
    stage: Stage, *words: str, program: Sequence[str | Path] = (TOOL,)
) -> "subprocess.Popen[str]":
    """A restore that waits for a sick backend, the new database in place."""
    before = stage.site.database.stat().st_ino if stage.site.database.exists() else 0
    command: list[str | Path] = [*program, "--config", stage.file, *words, "restore", "database", "--in-place", "--yes"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not stage.site.database.exists() or stage.site.database.stat().st_ino == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while not stage.runs:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_it_back(live: Stage, number: signal.Signals) -> None:
    """SIGHUP is what a lost ssh session sends."""
    live.behaves("sick")
    process = waits_with_the_new_one(live)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    words = "interrupted by Ctrl-C" if number is signal.SIGINT else f"ended by {number.name}"
    assert f"the former state is in place, and {live.site.backend.described} runs, as it did: it was {words}" in said
    assert state(live) == "put back"
    assert live.runs
    assert restored_rows(live.site.database) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_sees_no_journal_is_told_in_which_state_a_signal_left_things(live: Stage, number: signal.Signals) -> None:
    """Where journald has it, and stderr is no terminal: ssh with a command, Ansible."""
    code = (
        "import sys; from portfolio_ops.host import journal; journal._send = lambda *words: True\n"
        "from portfolio_ops.cli import main; sys.argv[0] = 'portfolio-ops'; main.main()"
    )
    live.behaves("sick")
    process = waits_with_the_new_one(live, program=[sys.executable, "-c", code])
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    words = "interrupted by Ctrl-C" if number is signal.SIGINT else f"ended by {number.name}"
    assert f"the former state is in place, and {live.site.backend.described} runs, as it did: it was {words}" in said
    assert live.runs


def test_a_signal_while_it_is_staged_says_that_nothing_was_stopped(live: Stage) -> None:
    code = (
        "import sys, time; from portfolio_ops.jobs import restore; from portfolio_ops.cli import main\n"
        "restore.stage = lambda *words: (print('staging', flush=True), time.sleep(60))\n"
        "sys.argv[0] = 'portfolio-ops'; main.main()"
    )
    command: list[str | Path] = [
        sys.executable,
        "-c",
        code,
        "--config",
        live.file,
        "restore",
        "database",
        "--in-place",
        "--yes",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "staging" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the former state is in place, and nothing was stopped: it was interrupted" in said
    assert not (live.folder / "stops").exists()


def test_a_stop_that_is_interrupted_and_goes_on_is_followed_by_a_start(live: Stage) -> None:
    """As docker's daemon may, when the command that asked it is killed."""
    control, asked = f"{sys.executable} {live.folder}/control.py {live.folder} stop", live.folder / "asked"
    configured(live, stop=["sh", "-c", f"(sleep 2; {control}) & touch {asked}; wait"])
    command: list[str | Path] = [TOOL, "--config", live.file, "restore", "database", "--in-place", "--yes"]
    ours, terminal = os.openpty()
    with subprocess.Popen(command, stderr=terminal) as process:
        os.close(terminal)
        deadline = time.monotonic() + 20
        while not asked.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = ""
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
            while chunk := os.read(ours, 1 << 16):
                said += chunk.decode()
        os.close(ours)
        process.wait(timeout=30)
    assert process.returncode == 130
    described = live.site.backend.described
    assert re.search(rf"Waiting for {re.escape(described)} to stop, as it was asked to: [1-6] s at most", said)
    assert f"{described} runs, as it did" in said
    time.sleep(2)
    assert live.runs
    assert restored_rows(live.site.database) == 0


def test_what_cannot_be_put_back_runs_with_the_restored_one_and_says_so(live: Stage) -> None:
    live.behaves("sick")
    process = waits_with_the_new_one(live)
    with contextlib.closing(sqlite3.connect(live.site.database)) as reader:
        reader.execute("SELECT count(*) FROM comments").fetchall()
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "The restored database is in place, and whole" in said
        assert live.runs
    live.behaves("sick", yes=False)
    assert "the restored database is in place" in live.call("restore", "undo", "--yes").stdout
    assert restored_rows(live.site.database) == 0
    assert live.runs


def test_a_stop_that_outlives_its_patience_is_followed_by_a_start(live: Stage) -> None:
    control = f"{sys.executable} {live.folder}/control.py {live.folder} stop"
    configured(live, stop=["sh", "-c", f"(sleep 3; {control}) & wait"], patience="2s")
    done = live.call("restore", "database", "--in-place", "--yes", code=1)
    assert "did not end within 2 s" in done.stderr
    time.sleep(2)
    assert live.runs
    assert restored_rows(live.site.database) == 0


def test_the_backend_inherits_no_ignored_signal(live: Stage) -> None:
    live.behaves("sick")
    live.call("restore", "database", "--in-place", "--yes", code=1)
    status = Path(f"/proc/{(live.folder / 'pid').read_text()}/status").read_text()
    [ignored] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn")]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        assert not ignored & 1 << (number - 1)


def test_a_start_that_leaves_a_daemon_with_our_output_ends(live: Stage) -> None:
    control = f"{sys.executable} {live.folder}/control.py {live.folder} start"
    configured(live, start=["sh", "-c", f"sleep 20 & {control}"])
    live.call("restore", "database", "--in-place", "--yes")
    assert live.runs


def test_a_backend_that_did_not_run_is_left_stopped_and_that_is_said(live: Stage) -> None:
    live.control("stop")
    done = live.call("restore", "database", "--in-place", "--yes")
    assert "did not run, and is left stopped" in done.stdout
    assert not live.runs


def moved_away(stage: Stage) -> bytes:
    """The database moved away by hand, its WAL forgotten; gives that."""
    stage.control("stop")
    connection = sqlite3.connect(stage.site.database)
    connection.execute("INSERT INTO comments(image, body) VALUES(1, 'only in the WAL')")
    connection.commit()
    wal = stage.site.database.with_name("portfolio.sqlite-wal")
    data = wal.read_bytes()
    connection.close()
    stage.site.database.rename(stage.data / "portfolio.broken")
    wal.write_bytes(data)
    return data


def test_a_wal_without_its_database_comes_back_too(live: Stage) -> None:
    data = moved_away(live)
    live.behaves("sick")
    # It is started by hand while the restore waits for nothing: a status that says yes makes it be started.
    configured(live, status=["true"], start=["true"], health="http://127.0.0.1:1/", patience="1s")
    live.call("restore", "database", "--in-place", "--yes", code=1)
    assert not live.site.database.exists()
    assert live.site.database.with_name("portfolio.sqlite-wal").read_bytes() == data
    assert live.kept() == ["portfolio.broken"]


def test_an_empty_database_beside_a_wal_is_not_opened(live: Stage) -> None:
    """SQLite takes that WAL for a stray, and deletes it."""
    data = moved_away(live)
    live.site.database.touch()
    wal = live.site.database.with_name("portfolio.sqlite-wal")
    live.call("restore", "database", "--in-place", "--dry-run")
    assert wal.read_bytes() == data
    assert "SQLite would delete that" in live.call("backup", "daily", code=4).stderr
    assert wal.read_bytes() == data
    live.call("restore", "database", "--in-place", "--yes")
    assert restored_rows(live.site.database) == 10
    live.call("restore", "undo", "--yes")
    assert live.site.database.stat().st_size == 0
    assert wal.read_bytes() == data


def refused(stage: Stage, code: int, *words: str) -> str:
    """A restore that is refused before anything is stopped; gives what it says."""
    before = stage.site.database.stat().st_ino
    done = stage.call("restore", "database", "--in-place", "--yes", *words, code=code)
    assert not (stage.folder / "stops").exists()
    assert stage.runs
    assert stage.site.database.stat().st_ino == before
    return done.stderr


def test_somebody_elses_side_file_is_found_before_the_backend_is_stopped(live: Stage) -> None:
    shm = live.site.database.with_name("portfolio.sqlite-shm")
    os.chown(shm, 4242, 4242)
    assert "chown --reference" in refused(live, 3)
    os.chown(shm, 0, 0)


def test_a_database_that_is_mounted_by_itself_is_refused_before_the_backend_is_stopped(live: Stage) -> None:
    live.control("stop")
    subprocess.run(["mount", "--bind", live.site.database, live.site.database], check=True)
    try:
        live.start()
        (live.folder / "stops").unlink()
        assert "mounted by itself" in refused(live, 4)
    finally:
        live.control("stop")
        subprocess.run(["umount", live.site.database], check=True)


def test_too_little_room_is_found_before_the_backend_is_stopped(live: Stage, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    live.control("stop")
    (live.folder / "stops").unlink()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        shutil.copytree(live.data, small / "data")
        (small / "fill").write_bytes(bytes((1 << 20) - 2 * live.site.database.stat().st_size))
        line = f'database = "{small}/data/portfolio.sqlite"\n[backend]'
        live.file.write_text(live.file.read_text().replace("[backend]", line))
        assert "bytes free" in live.call("restore", "database", "--in-place", "--yes", code=4).stderr
        assert not (live.folder / "stops").exists()
        assert sorted(path.name for path in (small / "data").iterdir()) == ["portfolio.sqlite"]
    finally:
        subprocess.run(["umount", small], check=True)


def test_pages_of_another_size_look_foreign(live: Stage) -> None:
    live.control("stop")
    live.change("PRAGMA journal_mode=delete")
    live.change("PRAGMA page_size=1024", "VACUUM")
    live.start()
    (live.folder / "stops").unlink()
    assert "its pages are of 4096 bytes" in refused(live, 4)
    live.call("restore", "database", "--in-place", "--yes", "--force", "the page size was changed on purpose")
    assert live.runs


def test_a_drill_that_reads_the_live_database_is_waited_for(live: Stage) -> None:
    descriptor = os.open(live.site.state / "drill.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert "drill lock" in refused(live, 7, "--wait", "0")
    os.close(descriptor)


def test_the_undo_of_an_artifact_that_is_gone_says_so(live: Stage) -> None:
    live.call("restore", "database", "--in-place", "--yes")
    for path in (live.site.backups / "event-triggered").iterdir():
        path.unlink()
    assert "the state before the latest restore was in" in live.call("restore", "undo", "--yes", code=6).stderr


def test_a_new_database_belongs_to_the_owner_of_its_folder(live: Stage) -> None:
    live.control("stop")
    live.site.database.unlink()
    for folder, _, files in os.walk(live.site.root):
        for path in (folder, *(f"{folder}/{name}" for name in files)):
            os.chown(path, 1001, 1001)
    os.chown(live.site.root, 0, 0)
    for above in live.site.root.parents:
        if above != Path("/"):
            above.chmod(0o755)
    live.call("restore", "database", "--in-place", "--yes")
    status = live.site.database.stat()
    assert (status.st_uid, status.st_gid) == (1001, 1001)


def test_the_acl_that_a_folder_gives_is_not_added(live: Stage) -> None:
    user, mask = 0x02, 0x10
    entries = (
        (0x01, 7, 0xFFFFFFFF),
        (user, 7, 4242),
        (0x04, 5, 0xFFFFFFFF),
        (mask, 7, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    )
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(live.data, "system.posix_acl_default", acl)
    assert os.listxattr(live.site.database) == []
    live.call("restore", "database", "--in-place", "--yes")
    assert os.listxattr(live.site.database) == []


def test_what_cannot_be_removed_is_not_taken_for_the_only_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore was at its end, its former database kept as a backup, and its folder could not be removed."""
    database = tmp_path / "portfolio.sqlite"
    make_database(database)
    work.make(database)
    work.former_of(database).mkdir()
    shutil.copy(database, work.former_of(database))
    with pytest.raises(RefusedError, match="no record tells of"):
        work.require_nothing_left(database)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    work.remove(database)
    work.require_nothing_left(database)
    monkeypatch.undo()
    work.make(database)
    assert list(work.folder_of(database).iterdir()) == []
