"""The jobs as a person or a unit runs them: real processes, real signals, a real full disk."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Site
from portfolio_ops.store.artifact import Kind, Metadata
from portfolio_ops.store.publish import Draft
from tests.require import require_root

TOOL = Path(sys.executable).with_name("portfolio-ops")
BIG = 400_000_000


def call(site: Site, *words: str, code: int = 0, **options: Any) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run([TOOL, "--config", site.file, *words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == code, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def asked(site: Site, *words: str, code: int = 0) -> Any:
    """A command's JSON; its exit code must be the same without --json."""
    answer = json.loads(call(site, "--json", *words, code=code).stdout)
    assert set(answer) == {"result_version", "command", "status", "exit_code", "data", "errors"}
    assert answer["exit_code"] == code
    assert bool(answer["errors"]) == (answer["status"] == "error")
    return answer


def names(site: Site, kind: Kind) -> list[str]:
    folder = site.backups / kind.folder
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def planted(site: Site, kind: Kind, age: timedelta, stem: str) -> Path:
    """A true artifact of the past."""
    folder = site.backups / kind.folder
    folder.mkdir(parents=True, exist_ok=True)
    with Draft(folder) as draft:
        draft.write([stem.encode()])
        content = draft.read_back()
        return draft.publish(stem, ".zst", Metadata(kind, site.name, datetime.now(UTC) - age, content)).path


def enlarge(database: Path, size: int) -> None:
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("CREATE TABLE bulk(body BLOB)")
    for _ in range(size // 10_000_000):
        connection.execute("INSERT INTO bulk VALUES(randomblob(10000000))")
    connection.commit()
    connection.close()


def test_a_daily_backup_opens_with_zstd_and_sqlite3_alone(site: Site, tmp_path: Path) -> None:
    today = datetime.now().astimezone().strftime("%Y-%m-%d")
    call(site, "backup", "daily")
    assert names(site, Kind.DAILY) == [f"portfolio-{today}.sqlite.zst"]
    copy = tmp_path / "copy.sqlite"
    subprocess.run(["zstd", "-q", "-d", site.backups / f"daily/portfolio-{today}.sqlite.zst", "-o", copy], check=True)
    done = subprocess.run(
        ["sqlite3", copy, "PRAGMA integrity_check; SELECT count(*) FROM comments"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "ok\n50\n"


def test_a_second_run_of_a_day_leaves_the_first(site: Site) -> None:
    call(site, "backup", "daily")
    first = {path: path.read_bytes() for path in (site.backups / "daily").iterdir()}
    connection = sqlite3.connect(site.database)
    connection.execute("DELETE FROM comments")
    connection.commit()
    connection.close()
    call(site, "backup", "daily")
    assert len(names(site, Kind.DAILY)) == 2
    assert all(path.read_bytes() == data for path, data in first.items())


GALLERIES = [
    "plain", "../../etc/passwd", "a'b\"c`d$(e)", "line\nbreak\r\ttab", "Été 🎉 写真", "x" * 1000, "-rf", ".", "..",
    "%n%s", "a/b", "\udcff\udcfe", " leading", "CON", "\u202eevil",
]  # fmt: skip


def test_any_gallery_name_makes_one_safe_file_and_is_told_truly(site: Site) -> None:
    before = {path for path in site.root.parent.rglob("*") if "event-triggered" not in str(path)}
    for name in GALLERIES:
        call(site, "backup", "gallery", "--", name)
    found = asked(site, "list", "event")["data"]["artifacts"]
    assert [each["name"] for each in found] == GALLERIES
    files = names(site, Kind.EVENT)
    assert len(files) == len(GALLERIES)
    assert all(len(os.fsencode(file)) <= 160 and file.isascii() and file.isprintable() for file in files)
    assert all(file.startswith("gallery-added-") and file.endswith(".sqlite.zst") for file in files)
    after = {path for path in site.root.parent.rglob("*") if "event-triggered" not in str(path)}
    assert {path for path in after - before if ".portfolio-ops" not in str(path)} <= {site.backups}


@pytest.mark.parametrize("name", ["", "  \n", "\u2003"])
def test_an_empty_gallery_name_is_a_usage_error(site: Site, name: str) -> None:
    call(site, "backup", "gallery", name, code=2)
    assert names(site, Kind.EVENT) == []


def test_events_of_one_second_are_all_kept(site: Site) -> None:
    processes = [
        subprocess.Popen([TOOL, "--config", site.file, "backup", "gallery", "same"], stderr=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL)
        for _ in range(5)
    ]  # fmt: skip
    assert [process.wait() for process in processes] == [0] * 5
    assert len(names(site, Kind.EVENT)) == 5


@contextlib.contextmanager
def lock_held(site: Site) -> Iterator[None]:
    code = (
        "import sys, time\nfrom datetime import timedelta\nfrom pathlib import Path\n"
        "from portfolio_ops.store.lock import held\n"
        "with held(Path(sys.argv[1]), 'daily', wait=timedelta(), on_wait=print):\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    site.state.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([sys.executable, "-c", code, str(site.state)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
    finally:
        process.kill()
        process.communicate()


def test_one_run_at_a_time_and_the_other_says_that_it_waits(site: Site) -> None:
    with lock_held(site):
        answer = asked(site, "backup", "daily", "--wait", "0", code=7)
        assert answer["errors"][0]["code"] == "BUSY"
        done = call(site, "backup", "daily", "--wait", "1s", code=7)
        assert "Waiting for another run of backup-daily: process " in done.stderr
        call(site, "backup", "gallery", "other jobs are not held up")
    call(site, "backup", "daily", "--wait", "0")


def test_who_prunes_by_hand_waits_for_a_run_as_well(site: Site) -> None:
    old = [planted(site, Kind.DAILY, timedelta(days=days), f"old-{days}") for days in (400, 300, 200, 100, 90)]
    with lock_held(site):
        done = call(site, "prune", "--yes", "--wait", "1s", code=7)
        assert "Waiting for another run of backup-daily: process " in done.stderr
        assert "--wait" in done.stderr.partition("try: ")[2]
    assert all(path.exists() for path in old)
    call(site, "prune", "--yes", "--wait", "0")
    assert not old[0].exists()


def running(site: Site, *words: str, until: Callable[[], bool]) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([TOOL, "--config", site.file, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not until():
        assert process.poll() is None, "it ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return process


def half_written(site: Site) -> Callable[[], bool]:
    """True once an unfinished artifact has some bytes."""
    folder = site.backups / "daily"

    def look() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return any(path.stat().st_size > 1000 for path in folder.glob(".tmp-*"))
        return False

    return look


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, ""),
        (signal.SIGTERM, "ended by SIGTERM"),
        (signal.SIGHUP, "ended by SIGHUP"),
        (signal.SIGINT, "interrupted by Ctrl-C"),
    ],
)
def test_a_run_that_is_ended_leaves_no_artifact_and_the_next_heals(
    site: Site, number: signal.Signals, words: str
) -> None:
    enlarge(site.database, BIG)
    process = running(site, "backup", "daily", until=half_written(site))
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == (128 + number if words else -number)
    assert (f"{words}; should anything be left to finish" in said.decode()) == bool(words)
    left = names(site, Kind.DAILY)
    assert not [name for name in left if not name.startswith(".tmp-")]
    if number is not signal.SIGKILL:
        assert left == []
    health = asked(site, "status", code=10)["data"]["jobs"]["backup-daily"]
    assert health["state"] == "failed"
    assert (
        health["why"]
        == f"the last run {f'failed: {words}' if words else 'ended without a word: killed, or a power cut'}"
    )
    done = call(site, "backup", "daily")
    assert ("ended without a word" in done.stderr) == (number is signal.SIGKILL)
    assert len(names(site, Kind.DAILY)) == 1
    assert asked(site, "status", code=10)["data"]["jobs"]["backup-daily"]["state"] == "ok"
    assert sqlite3.connect(site.database).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_failed_run_prunes_nothing(site: Site) -> None:
    old = [planted(site, Kind.DAILY, timedelta(days=40 + age), f"portfolio-old-{age}") for age in range(6)]
    good = site.database.read_bytes()
    site.database.write_bytes(good[:8192] + bytes(reversed(good[8192:])))
    for code in (1, 9):
        with contextlib.suppress(AssertionError):
            call(site, "backup", "daily", code=code)
            break
    else:
        pytest.fail("a damaged database was backed up as if it were sound")
    assert all(path.exists() for path in old)
    assert len(names(site, Kind.DAILY)) == 6
    site.database.write_bytes(good)
    planted(site, Kind.DAILY, timedelta(days=2), "portfolio-of-late")
    done = asked(site, "backup", "daily")
    # Three are always kept (the new one, that of late, and the newest of the old); the rest is past its 30 days.
    assert len(done["data"]["pruned"]) == 5
    assert [path.exists() for path in old] == [True, False, False, False, False, False]


def test_a_clock_that_may_have_leapt_prunes_nothing_by_itself(site: Site) -> None:
    old = [planted(site, Kind.DAILY, timedelta(days=40 + age), f"portfolio-old-{age}") for age in range(6)]
    for _ in range(2):  # what the first run makes says nothing of the clock
        done = call(site, "backup", "daily")
        assert "Nothing is pruned: nothing was made for 40 days until a day ago" in done.stderr
    assert all(path.exists() for path in old)
    call(site, "prune", "--yes")
    assert [path.exists() for path in old] == [True, False, False, False, False, False]


def test_an_emptied_database_is_not_published(site: Site) -> None:
    call(site, "backup", "daily")
    before = names(site, Kind.DAILY)
    with site.database.open("r+b") as file:
        file.truncate()
    for ending in ("-wal", "-shm"):
        site.database.with_name(f"{site.database.name}{ending}").unlink(missing_ok=True)
    assert "is empty" in call(site, "backup", "daily", code=4).stderr
    assert names(site, Kind.DAILY) == before


def test_what_is_no_artifact_is_reported_and_left_alone(site: Site) -> None:
    call(site, "backup", "daily")
    folder = site.backups / "daily"
    whole = next(folder.iterdir())
    (folder / "portfolio-2020-01-01.sqlite.gz").write_bytes(b"\x1f\x8b old")
    (folder / "portfolio-2020-01-02.sqlite.zst").write_bytes(whole.read_bytes()[:-10])
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    (folder / "link").symlink_to(whole)
    os.mkfifo(folder / "fifo")
    (folder / "bad\nname").write_bytes(b"x")
    before = sorted(folder.iterdir())
    answer = asked(site, "list", code=10)
    assert len(answer["data"]["artifacts"]) == 1
    assert len(answer["data"]["problems"]) == 7
    assert all(problem["reason"] for problem in answer["data"]["problems"])
    call(site, "list", code=10)
    call(site, "status", code=10)
    call(site, "prune", "--yes")
    done = call(site, "backup", "daily")
    assert "Not an artifact" in done.stderr
    assert set(before) <= set(folder.iterdir())


def test_artifacts_of_another_site_or_kind_count_for_nothing(site: Site) -> None:
    call(site, "backup", "daily")
    (site.backups / "social").mkdir()
    shutil.copy(next((site.backups / "daily").iterdir()), site.backups / "social/social-tables-2025-01-01.sql.zst")
    with Draft(site.backups / "daily") as draft:
        draft.write([b"x"])
        content = draft.read_back()
        draft.publish("portfolio-2021-01-01", ".zst", Metadata(Kind.DAILY, "other", datetime.now(UTC), content))
    problems = [problem["reason"] for problem in asked(site, "list", code=10)["data"]["problems"]]
    assert any("is an artifact of site 'other'" in reason for reason in problems)
    assert any("is of kind daily, in the folder of social" in reason for reason in problems)


def test_a_file_where_a_folder_should_be_is_refused_and_named(site: Site) -> None:
    site.backups.mkdir()
    (site.backups / "daily").write_bytes(b"in the way")
    done = call(site, "backup", "daily", code=4)
    assert f"{site.backups}/daily should be a folder" in done.stderr
    assert (site.backups / "daily").read_bytes() == b"in the way"
    [problem] = asked(site, "list", code=10)["data"]["problems"]
    assert problem["reason"] == f"{site.backups}/daily cannot be listed: Not a directory"


def test_a_backup_that_will_not_fit_is_refused_before_any_work(small_disk: Site) -> None:
    enlarge(small_disk.database, 30_000_000)
    answer = asked(small_disk, "backup", "daily", code=4)
    assert "bytes free" in answer["errors"][0]["message"]
    assert names(small_disk, Kind.DAILY) == []


def test_a_disk_that_fills_up_under_way_leaves_nothing_half(small_disk: Site) -> None:
    call(small_disk, "backup", "daily")
    enlarge(small_disk.database, 30_000_000)
    # The estimate is fooled here on purpose: the disk fills while the artifact is written.
    script = (
        "import sys; import portfolio_ops.jobs.database as d; d.require_space = lambda *a: None\n"
        "from portfolio_ops.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--config", str(small_disk.file), "backup", "daily"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert "nothing unfinished was published" in done.stderr
    assert len(names(small_disk, Kind.DAILY)) == 1


def test_errors_have_their_documented_codes(site: Site, tmp_path: Path) -> None:
    call(site, "show", "nothing", code=6)
    call(site, "bogus", code=2)
    call(site, "backup", "daily", "--wait", "soon", code=2)
    assert asked(site, "show", "nothing", code=6)["errors"][0]["code"] == "NOT_FOUND"
    site.file.write_text("[site]\nrot = 1\n[logs]\nfile = 2\n")
    assert len(asked(site, "config", "check", code=2)["errors"]) == 3
    site.file.write_text(f'[site]\nroot = "{tmp_path}/not-mounted"\n')
    answer = asked(site, "backup", "daily", code=6)
    assert "is the volume mounted?" in answer["errors"][0]["suggestion"]
    assert not (tmp_path / "not-mounted").exists()


def test_a_missing_database_is_an_error_and_no_new_one_is_made(site: Site) -> None:
    site.database.unlink()
    call(site, "backup", "daily", code=6)
    assert not site.database.exists()
    assert list(site.database.parent.iterdir()) == []


def test_what_needs_a_person_is_no_ok_to_monitoring(site: Site) -> None:
    for words in (("backup", "daily"), ("backup", "social"), ("logs", "rotate"), ("drill",)):
        call(site, *words)
    assert call(site, "status", "--nagios").stdout.startswith("PORTFOLIO-OPS OK - shop: ")
    (site.backups / "daily/stranger.zst").touch()
    assert call(site, "status", "--nagios", code=1).stdout.startswith("PORTFOLIO-OPS WARNING - shop: not an artifact")
    (site.backups / "quarantine").mkdir()
    (site.backups / "quarantine/bad.zst").touch()
    assert call(site, "status", "--nagios", code=2).stdout.startswith("PORTFOLIO-OPS CRITICAL - shop: ")


def test_status_speaks_to_monitoring(site: Site) -> None:
    done = call(site, "status", "--nagios", code=2)
    assert done.stdout.startswith("PORTFOLIO-OPS CRITICAL - shop: ")
    assert done.stdout.count("\n") == 1
    call(site, "--json", "status", "--nagios", code=2)
    site.file.write_text("nonsense")
    assert call(site, "status", "--nagios", code=3).stdout.startswith("PORTFOLIO-OPS UNKNOWN")


def test_root_steps_down_to_the_owner_of_the_site(site: Site) -> None:
    require_root("stepping down to the site's owner")
    for path in [site.root, *site.root.rglob("*")]:
        os.chown(path, 4242, 4243)
    for parent in site.root.parents:
        if parent.stat().st_uid == os.geteuid() and str(parent).startswith("/tmp/"):  # noqa: S108
            parent.chmod(0o755)
    call(site, "backup", "daily")
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in [site.backups, *site.backups.rglob("*")]}
    assert owners == {(4242, 4243)}
    assert [path.name for path in site.database.parent.iterdir()] == ["portfolio.sqlite"]


def test_lists_are_quick_with_a_thousand_artifacts(site: Site) -> None:
    for number in range(1000):
        planted(site, Kind.EVENT, timedelta(hours=number), f"gallery-added-{number}")
    assert len(asked(site, "list")["data"]["artifacts"]) == 1000
