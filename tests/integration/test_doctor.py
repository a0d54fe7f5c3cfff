"""The doctor: what is planted is found, with a cure."""

import contextlib
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from portfolio_ops.config import Site
from portfolio_ops.doctor import data, engines, machine, sandbox
from portfolio_ops.doctor.finding import Finding, Level
from portfolio_ops.host.timers import TIMERS, ServiceState, TimerState
from portfolio_ops.jobs import health
from portfolio_ops.restore.plan import who_holds
from portfolio_ops.store import catalogue, runs
from portfolio_ops.store.artifact import Kind
from portfolio_ops.store.lock import ARCHIVING, held
from tests.integration.test_jobs import planted
from tests.require import require_root

TOOL = Path(sys.executable).with_name("portfolio-ops")


def examined(site: Site, code: int) -> list[dict[str, str]]:
    done = subprocess.run(
        [TOOL, "--config", site.file, "--json", "doctor"], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout)["data"]["findings"]
    assert all(bool(each["cure"]) is (each["level"] != "ok") for each in found)
    return found


def backed_up(site: Site) -> Site:
    """A site that has nothing to find, but for what needs systemd."""
    for words in (("backup", "daily"), ("backup", "social"), ("logs", "rotate"), ("drill",)):
        subprocess.run([TOOL, "--config", site.file, *words], check=True, capture_output=True)
    return site


def test_nothing_is_wrong_with_a_site_in_order(site: Site) -> None:
    found = examined(backed_up(site), 0)
    assert {each["level"] for each in found} <= {"ok", "advice"}
    assert {"configuration", "mount", "backups", "side files", "database", "log", "room", "clock"} <= {
        each["subject"] for each in found
    }


def test_what_two_sites_have_in_common_is_a_fault_of_both(site: Site) -> None:
    other, strange = site.file.with_name("former.toml"), site.file.with_name("strange.toml")
    strange.write_text("no site")

    def shared(words: str, code: int) -> list[str]:
        other.write_text(f'[site]\nroot = "{site.root}"\n{words}')
        found = [each for each in examined(site, code) if each["subject"] == "neighbours"]
        return [each["text"].partition(", too ")[2] for each in found]

    assert shared('backups = "others"\n[logs]\nfiles = ["logs/other.log"]\n', 10) == ["(database)"]
    assert shared("", 10) == ["(backups)", "(database)", "(a log)"]
    backed_up(site)
    assert shared('database = "data/x.sqlite"\nbackups = "others"\n[logs]\nfiles = []\n', 0) == [""]


def given_away(site: Site) -> None:
    """To another user, who may come to it."""
    for path in [site.root, *site.root.rglob("*")]:
        os.chown(path, 4242, 4243)
    for parent in site.root.parents:
        if parent.stat().st_uid == os.geteuid() and str(parent).startswith("/tmp/"):  # noqa: S108
            parent.chmod(0o755)


def cure(found: dict[str, str]) -> None:
    """Do what it says."""
    for command in found["cure"].split(" && "):
        subprocess.run(shlex.split(command), check=True)


def test_a_database_that_may_not_be_read_has_no_stray_wal(site: Site) -> None:
    require_root("a database of another user")
    given_away(site)
    with contextlib.closing(sqlite3.connect(site.database, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE precious(a)")
        site.database.chmod(0)
        subjects = {each["subject"]: each for each in examined(site, 10) if each["level"] == "fault"}
        assert "side files" not in subjects
        assert "may not be read by uid 4242" in subjects["database"]["text"]
        cure(subjects["database"])
        assert site.database.stat().st_mode & 0o600 == 0o600


def test_backups_that_may_not_be_read_can_be_after_the_cure(site: Site) -> None:
    require_root("backups of another user")
    given_away(backed_up(site))
    for path in site.backups.glob("daily/*"):
        path.chmod(0)
    [found] = [each for each in examined(site, 10) if each["subject"] == "backups"]
    cure(found)
    examined(site, 0)


def test_backups_that_keep_out_their_owner_can_be_used_after_the_cure(site: Site) -> None:
    require_root("backups of another user")
    given_away(backed_up(site))
    site.backups.chmod(0)
    for command in ("list", "status", "backup daily", "verify"):
        done = subprocess.run(
            [TOOL, "--config", site.file, *command.split()], capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        assert f"its own mode keeps the owner of {site.backups} out: chmod u+rwX {site.backups}" in said, command
        assert "run as" not in said
    [found] = [each for each in examined(site, 10) if each["subject"] == "backups"]
    assert found["cure"] == f"chmod u+rwX {site.backups}"
    cure(found)
    assert {each["level"] for each in examined(site, 0)} <= {"ok", "advice"}


def test_a_database_of_roots_in_anothers_folder_is_not_opened(site: Site) -> None:
    require_root("a database of another user")
    given_away(site)
    with contextlib.closing(sqlite3.connect(site.database)) as connection:
        connection.execute("CREATE TABLE more(a)")
        sides = [site.database.with_name(f"portfolio.sqlite{ending}") for ending in ("-wal", "-shm")]
        for path in sides:
            os.chown(path, 4242, 4242)
        os.chown(site.database, 0, 0)
        [found] = [each for each in examined(site, 10) if each["subject"] == "database"]
        assert [path.stat().st_uid for path in sides] == [4242, 4242]
        cure(found)
        assert {path.stat().st_uid for path in (site.database, *sides)} == {4242}


def test_a_database_that_was_removed_under_its_site_can_be_rescued(site: Site) -> None:
    with contextlib.closing(sqlite3.connect(site.database, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE precious(a)")
        site.database.unlink()
        connection.execute("INSERT INTO precious VALUES(1)")
        [found] = [each for each in examined(site, 10) if each["subject"] == "database"]
        assert f"process {os.getpid()}" in found["text"]
        assert f"exec 7</proc/{os.getpid()}/fd/" in found["cure"]  # tests/integration/restore/test_removed.py runs it


def test_a_cure_is_named_once(site: Site) -> None:
    subprocess.run([TOOL, "--config", site.file, "backup", "daily"], check=True, capture_output=True)
    done = subprocess.run([TOOL, "--config", site.file, "doctor"], capture_output=True, text=True, check=False)
    assert done.stdout.count("it has never run") > 1
    cures = [line for line in done.stdout.splitlines() if line.startswith("runs: ")]
    assert len(cures) == 1


def test_looking_changes_nothing(site: Site) -> None:
    backed_up(site)
    before = everything(site)
    examined(site, 0)
    assert everything(site) == before


def everything(site: Site) -> dict[str, tuple[int, int]]:
    paths = [path for path in site.root.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def foreign_shm(site: Site) -> None:
    path = site.database.with_name("portfolio.sqlite-shm")
    path.touch()
    os.chown(path, 4242, 4242)


def stray_wal(site: Site) -> None:
    connection = sqlite3.connect(site.database)
    connection.execute("PRAGMA journal_mode=delete")
    connection.close()
    site.database.with_name("portfolio.sqlite-wal").write_bytes(b"x" * 100)


def stray_wal_of_another(site: Site) -> None:
    stray_wal(site)
    os.chown(site.database.with_name("portfolio.sqlite-wal"), 4242, 4242)


def wal_of_nothing(site: Site) -> None:
    """The WAL may be all that is left, and SQLite deletes it once it opens an empty database."""
    stray_wal(site)
    site.database.write_bytes(b"")


def hot_journal(site: Site) -> None:
    """A transaction that a crash interrupted."""
    script = """if True:
        import os, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA journal_mode=delete")
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN")
        connection.execute("UPDATE images SET body=zeroblob(900)")
        os.kill(os.getpid(), 9)
        """
    subprocess.run([sys.executable, "-c", script, site.database], check=False)
    assert site.database.with_name("portfolio.sqlite-journal").stat().st_size > 0


def no_wal(site: Site) -> None:
    connection = sqlite3.connect(site.database)
    connection.execute("PRAGMA journal_mode=delete")
    connection.close()


def from_the_future(site: Site) -> None:
    planted(site, Kind.DAILY, timedelta(days=-3), "portfolio-2030-01-01.sqlite")


def quarantined(site: Site) -> None:
    (site.backups / "quarantine").mkdir()
    (site.backups / "quarantine/bad.zst").touch()


def log_is_a_folder(site: Site) -> None:
    site.logs[0].unlink()
    site.logs[0].mkdir()


def database_is_a_folder(site: Site) -> None:
    site.database.unlink()
    site.database.mkdir()


def log_is_a_link(site: Site) -> None:
    site.logs[0].unlink()
    site.logs[0].symlink_to("/etc/passwd")


def configured(text: str) -> Callable[[Site], Any]:
    """Put something at the end of the configuration."""

    def plant(site: Site) -> None:
        site.file.write_text(f"{site.file.read_text()}\n{text}\n")

    return plant


def no_social_table(site: Site) -> None:
    connection = sqlite3.connect(site.database)
    connection.execute("DROP TABLE comments")
    connection.close()


FAULTS: dict[str, tuple[Callable[[Site], Any], str, int]] = {
    "no root": (lambda site: site.root.rename(site.root.with_name("away")), "does not exist", 6),
    "no database": (lambda site: site.database.unlink(), "there is no database at", 10),
    "a folder": (database_is_a_folder, "portfolio.sqlite is a folder", 10),
    "not a database": (lambda site: site.database.write_bytes(b"text" * 2000), "is not a SQLite database", 10),
    "all may write": (lambda site: site.database.chmod(0o666), "everybody on this host may write", 10),
    "foreign": (foreign_shm, "is not of uid", 10),
    "stray": (stray_wal, "it is a stray", 10),
    "stray of another": (stray_wal_of_another, "it is a stray", 10),
    "foreign stray": (stray_wal_of_another, "is not of uid", 10),
    "wal of nothing": (wal_of_nothing, "it is a stray", 10),
    "hot journal": (hot_journal, "that runs, or was interrupted", 0),
    "no wal": (no_wal, "its journal mode is delete", 0),
    "no social table": (no_social_table, "[social] tables names comments", 10),
    "no gallery table": (configured('[gallery]\ntable = "shows"\nname = "slug"'), "no such table yet", 0),
    "no gallery column": (configured('[gallery]\ntable = "images"\nname = "slug"'), "has no column slug", 10),
    "all may look": (lambda site: site.backups.chmod(0o755), "everybody on this host may look into", 0),
    "all may delete": (
        lambda site: site.backups.chmod(0o777),
        "everybody on this host may write into",
        10,
    ),
    "future": (from_the_future, "dated in the future", 10),
    "quarantine": (quarantined, "bad artifacts lie in", 10),
    "log is a folder": (log_is_a_folder, "is a folder, not a regular file", 10),
    "log is a link": (log_is_a_link, "is not a regular file", 10),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_planted_is_found(site: Site, name: str) -> None:
    plant, words, code = FAULTS[name]
    backed_up(site)
    plant(site)
    if code == 6:
        done = subprocess.run([TOOL, "--config", site.file, "doctor"], capture_output=True, text=True, check=False)
        assert (done.returncode, words in done.stderr) == (6, True)
        return
    found = examined(site, code)
    assert words in "\n".join(each["text"] for each in found)
    assert len({each["level"] for each in found if each["subject"] == "side files"}) <= 1


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("", "may not be written by uid 4242"),
        ("/daily", "1 of what lies in"),
        ("/daily/*", "1 of what lies in"),
        ("/.portfolio-ops/*.lock", "of what lies in"),
    ],
)
def test_backups_that_root_has_copied_are_found(site: Site, part: str, words: str) -> None:
    require_root("backups of another user")
    given_away(backed_up(site))
    examined(site, 0)
    for path in site.root.glob(f"backups{part}"):
        os.chown(path, 0, 0)
        path.chmod(0o700 if path.is_dir() else 0o600)
    [found] = [each for each in examined(site, 10) if each["subject"] == "backups"]
    assert words in found["text"]
    assert found["cure"].startswith(f"chown -R 4242:4243 {site.backups}")
    backup: list[str | Path] = [TOOL, "--config", site.file, "backup", "daily"]
    done = subprocess.run(backup, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 3}  # for this, it need not read old backups
    assert done.returncode == 0 or "belongs to uid 0, and this runs as uid 4242" in done.stderr
    cure(found)
    if part == "/daily":
        assert "backup-daily: the last run failed: Permission denied" in str(examined(site, 10))
    subprocess.run(backup, check=True, capture_output=True)
    examined(site, 0)


@pytest.mark.parametrize("plant", [stray_wal, stray_wal_of_another, wal_of_nothing, hot_journal])
@pytest.mark.parametrize("sandboxed", [False, True])
def test_what_opening_would_change_is_left_alone(site: Site, plant: Callable[[Site], Any], sandboxed: bool) -> None:
    backed_up(site)
    plant(site)
    before = everything(site)
    if sandboxed:
        found = [f"{each.subject}: {each.text}" for each in sandbox.look(site)]
    else:
        found = [f"{each['subject']}: {each['text']}" for each in examined(site, 0 if plant is hot_journal else 10)]
    assert everything(site) == before
    said = "\n".join(found)
    assert "side files: portfolio.sqlite-" in said
    assert "in WAL mode" not in said
    assert "journal mode is" not in said
    assert f"{site.database} can be read" not in said


def test_a_journal_that_is_done_keeps_nothing_from_being_opened(site: Site) -> None:
    backed_up(site)
    no_wal(site)
    journal = site.database.with_name("portfolio.sqlite-journal")
    for content in (b"", bytes(512)):
        journal.write_bytes(content)
        found = {each["subject"]: each["text"] for each in examined(site, 0)}
        assert "its journal mode is delete" in found["database"]
        assert found["side files"] == "none is foreign or stray"


@pytest.mark.parametrize("with_index", [False, True])
def test_the_cure_of_a_stray_wal_takes_all_of_it_away(site: Site, with_index: bool) -> None:
    stray_wal(site)
    sides = [site.database.with_name(f"portfolio.sqlite{ending}") for ending in ("-wal", "-shm")]
    if with_index:
        sides[1].write_bytes(bytes(32768))
    [cure] = [each.cure for each in data.look(site) if each.subject == "side files"]
    subprocess.run(["sh", "-c", cure.removeprefix("stop the site and move it away: ")], check=True)
    assert not any(side.exists() for side in sides)
    assert Path(f"{sides[0]}.stray").read_bytes() == b"x" * 100
    assert Path(f"{sides[1]}.stray").exists() is with_index


def test_cures_can_be_pasted(site: Site) -> None:
    home = site.root.with_name("a site; of 'mine'")
    site.root.rename(home)
    moved = replace(site, root=home, database=home / "data/portfolio.sqlite", backups=home / "backups", logs=())
    moved.backups.mkdir(mode=0o755)
    moved.database.chmod(0o646)
    foreign_shm(moved)
    for each in data.look(moved):
        if each.cure.startswith(("chmod", "stop the site, then: ")):
            subprocess.run(["sh", "-c", each.cure.removeprefix("stop the site, then: ")], check=True)
    assert [each.subject for each in data.look(moved) if each.level is Level.FAULT] == []
    assert moved.backups.stat().st_mode & 0o777 == 0o750


class Tables:
    """The tables of mounts of a host that there is not."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fstab, self.mounts = folder / "fstab", folder / "mounts"
        monkeypatch.setattr(data, "_FSTAB", self.fstab)
        monkeypatch.setattr(data, "_MOUNTS", self.mounts)
        self.mounts.write_text("/dev/vda1 / ext4 rw 0 0\n")
        self.fstab.write_text("")

    def mounted(self, root: Path) -> Finding:
        return data._mounted(root)


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    return Tables(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("written", "volume"),
    [("/mnt/vol", "/mnt/vol"), ("/mnt/my\\040vol", "/mnt/my vol"), ("/mnt/vol/", "/mnt/vol"),
     ("/mnt/a\\134040b", "/mnt/a\\040b"), ("/mnt/\\303\\251t\\351", os.fsdecode(b"/mnt/\xc3\xa9t\xe9")),
     ("/mnt/\x0b\u0085\rx", "/mnt/\x0b\u0085\rx")],
)  # fmt: skip
def test_a_volume_that_is_not_mounted_is_named(tables: Tables, written: str, volume: str) -> None:
    root = Path(volume) / "shop"
    lines = ["# <what> <where>", "", "#UUID=0 /mnt ext4", "  #UUID=0 /mnt ext4", "UUID=0 / ext4"]
    lines += [f"UUID=1\t{written}  ext4 defaults,nofail 0 2", "b none swap sw"]
    tables.fstab.write_text("".join(f"{line}\n" for line in lines), newline="")
    tables.mounts.write_text("overlay /etc/hosts overlay rw 0 0\n")
    found = tables.mounted(root)
    assert (found.level, found.text) == (Level.FAULT, f"{volume} is in fstab and not mounted")
    tables.mounts.write_text(
        f"/dev/vda1 / ext4 rw 0 0\n/dev/vdb {written.rstrip('/')} xfs rw,relatime 0 0\n", newline=""
    )
    assert tables.mounted(root).level is Level.OK
    assert tables.mounted(Path("/srv/shop")).level is Level.OK
    assert (data._filesystem(root), data._filesystem(Path("/srv/shop"))) == ("xfs", "ext4")


def test_the_cure_mounts_a_volume_with_a_space(tables: Tables) -> None:
    tables.fstab.write_text("UUID=1 /mnt/my\\040vol ext4\n")
    assert tables.mounted(Path("/mnt/my vol/shop")).cure == "mount '/mnt/my vol'"


def test_what_is_mounted_by_hand_only_is_no_fault(tables: Tables) -> None:
    for options, level in (
        ("noauto", Level.OK), ("rw,noauto,user", Level.OK), ("rw", Level.FAULT), ("x-noauto", Level.FAULT)
    ):  # fmt: skip
        tables.fstab.write_text(f"UUID=1 /mnt/vol ext4 {options} 0 0\n")
        assert tables.mounted(Path("/mnt/vol/shop")).level is level, options


def test_links_on_the_way_to_a_volume_are_followed(tables: Tables, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "shop").mkdir(parents=True)
    (tmp_path / "link").symlink_to(volume)
    for name, written in (("link", "volume"), ("volume", "volume"), ("link", "link")):
        root = tmp_path / name / "shop"
        tables.fstab.write_text(f"UUID=1 {tmp_path / written} xfs\n")
        tables.mounts.write_text("/dev/vda1 / ext4 rw 0 0\n")
        assert tables.mounted(root).level is Level.FAULT
        tables.mounts.write_text(f"/dev/vda1 / ext4 rw 0 0\n/dev/vdb {volume} xfs rw 0 0\n")
        assert tables.mounted(root).level is Level.OK
        assert data._filesystem(root) == "xfs"


def test_a_sandbox_that_does_not_answer_is_a_fault(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = tmp_path / "bin/systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text('#!/bin/sh\n[ "$1" = show ] && echo loaded || exec sleep 60\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{systemctl.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(machine, "_BOOTED", tmp_path)
    monkeypatch.setattr(machine, "_SECONDS", 1)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    [found] = machine._sandbox(site)
    assert (found.level, found.subject) == (Level.FAULT, "sandbox")


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        (ServiceState(enabled=True, active="active", said="Timeline x"), Level.OK, "runs. Timeline x"),
        (ServiceState(enabled=True, active="inactive", said=""), Level.FAULT, "does not run (inactive)"),
        (ServiceState(enabled=True, active="activating", said=""), Level.FAULT, "does not run (activating)"),
        (ServiceState(enabled=True, active="failed", said="Lost"), Level.FAULT, "has failed for good: Lost"),
        (ServiceState(enabled=False, active="active", said=""), Level.FAULT, "not after the next boot"),
        (ServiceState(enabled=False, active="inactive", said=""), Level.ADVICE, "is not enabled"),
        (ServiceState(enabled=False, active="failed", said=""), Level.FAULT, "has failed for good"),
    ],
)
def test_whether_the_archive_runs(
    site: Site, monkeypatch: pytest.MonkeyPatch, state: ServiceState, level: Level, words: str
) -> None:
    monkeypatch.setattr(machine, "service_state", lambda _: state)
    deployed(site, monkeypatch, "archive")
    [found] = machine._archive(site, None)
    assert found.level is level
    assert words in found.text
    assert bool(found.cure) is (level is not Level.OK)


def test_an_archive_that_runs_and_archives_nothing_is_a_fault_told_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `status` says of it, whether anything was ever archived or not."""
    running = ServiceState(enabled=True, active="active", said="Not archiving: x")
    monkeypatch.setattr(machine, "service_state", lambda _: running)
    deployed(site, monkeypatch, "archive")
    site.state.mkdir(parents=True)
    with held(site.state, ARCHIVING, wait=timedelta(), on_wait=lambda _: None):
        for timelines in ([], ["2026-11-25T172041.668937Z-d305ce"]):
            for name in timelines:
                (site.backups / "wal" / name).mkdir(parents=True)
            runs.begin(site.state, ARCHIVING)
            assert [each.level for each in machine.look(site, []) if each.subject == "archive"] == [Level.OK]
            runs.finish(site.state, ARCHIVING, succeeded=False, message="the database is locked")
            words = "nothing is archived: the database is locked"
            assert words in health.assess(site, datetime.now(UTC)).findings
            [found] = [each for each in machine.look(site, []) if words in each.text]
            assert (found.level, found.subject) == (Level.FAULT, "archive")
            assert "journalctl" in found.cure
        shutil.rmtree(site.backups / "wal")
        site.database.unlink()
        assert health.assess(site, datetime.now(UTC)).archive is None


def deployed(site: Site, monkeypatch: pytest.MonkeyPatch, *units: str) -> None:
    """Units have their drop-ins."""
    place = site.file.parent / "units"
    monkeypatch.setattr(machine, "_UNITS", place)
    for name in units:
        (place / f"portfolio-{name}@{site.name}.service.d").mkdir(parents=True, exist_ok=True)
        (place / f"portfolio-{name}@{site.name}.service.d/10-portfolio-ops.conf").touch()


def test_a_unit_that_was_not_deployed_is_not_started(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    resting = ServiceState(enabled=False, active="inactive", said="")
    monkeypatch.setattr(machine, "timer_states", lambda _: {name: TimerState(None, None, False, "") for name in TIMERS})
    monkeypatch.setattr(machine, "service_states", lambda *names: dict.fromkeys(names, resting))
    monkeypatch.setattr(machine, "service_state", lambda _: resting)
    deployed(site, monkeypatch, *TIMERS[1:])
    [found] = machine._timers(site)
    assert (found.level, found.cure) == (Level.FAULT, "deploy site shop with the Ansible role")
    assert found.text.endswith("refuse to start, portfolio-backup-daily@shop.service first")
    assert list(machine._archive(site, None)) == []


def timers_of(site: Site, monkeypatch: pytest.MonkeyPatch, *, enabled: bool, active: str) -> list[Finding]:
    """What is said of timers that are all so but the last, which is enabled and at rest."""
    units = {name: f"portfolio-{name}@{site.name}.timer" for name in TIMERS}
    services = {unit: ServiceState(enabled=enabled, active=active, said="") for unit in units.values()}
    services[units[TIMERS[-1]]] = ServiceState(enabled=True, active="inactive", said="")
    states = {
        name: TimerState(None, None, services[unit].active == "active", "success") for name, unit in units.items()
    }
    deployed(site, monkeypatch, *TIMERS)
    monkeypatch.setattr(machine, "timer_states", lambda _: states)
    monkeypatch.setattr(machine, "service_states", lambda *names: {name: services[name] for name in names})
    monkeypatch.setattr(machine, "_said", lambda _: "enabled")
    return list(machine._timers(site))


def test_timers_whose_target_was_stopped_have_one_cure(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    [found] = timers_of(site, monkeypatch, enabled=True, active="inactive")
    assert (found.level, found.cure) == (Level.FAULT, "systemctl start portfolio@shop.target")
    for enabled, active, faults in ((False, "inactive", 5), (True, "active", 1)):
        each = timers_of(site, monkeypatch, enabled=enabled, active=active)
        cures = [one.cure for one in each if one.level is Level.FAULT]
        assert len(cures) == faults
        assert cures[-1] == "systemctl enable --now portfolio-drill@shop.timer"


def test_room_below_the_reserve_is_told_as_what_is_missing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, words in ((1000, "1,000 bytes beyond the reserve; "), (-210_717_081, "210,717,081 bytes short of the ")):
        monkeypatch.setattr(machine, "reserve_bytes", lambda _: 1 << 30)
        monkeypatch.setattr(machine, "free_bytes", lambda _, free=free: (1 << 30) + free)
        found = machine._room(site, catalogue.scan(site.backups, site.name))
        assert found.text.startswith(words)
        assert found.level is (Level.OK if free > 0 else Level.FAULT)


def test_who_may_not_ask_the_backend_is_told_to_be_root(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys; sys.exit('denied\\n\\nUsage:  docker [OPTIONS]\\n')"
    asked = replace(
        site.backend, stop=("true",), status=(sys.executable, "-c", script), running_service="app", described="the app"
    )
    backed = replace(site, backend=asked)
    for uid, level, words in ((0, Level.FAULT, "failed: denied Usage: docker"), (4242, Level.ADVICE, "by uid 4242")):
        monkeypatch.setattr(os, "getuid", lambda uid=uid: uid)
        [found] = machine._backend(backed)
        assert (found.level, "\\u000a" in found.text) == (level, False)
        assert words in found.text
        assert ("run this as root" in found.cure) is (uid != 0)


def test_who_may_not_look_at_the_site_is_not_sent_to_the_doctor(site: Site) -> None:
    require_root("a user who is not the owner")
    given_away(site)
    site.file.chmod(0o644)
    site.root.chmod(0o700)
    words: list[str | Path] = [TOOL, "--config", site.file, "doctor"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, user=4244, group=4244, extra_groups=[])
    assert done.returncode == 3
    assert "may not be looked at by uid 4244" in done.stderr
    assert "portfolio-ops doctor" not in done.stderr


def test_our_own_archive_is_none_of_the_programs_that_have_the_database_open(site: Site) -> None:
    site.backups.mkdir()
    archive = subprocess.Popen([TOOL, "--config", site.file, "archive", "run"], stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + 30
        while archive.pid not in [each.pid for each in who_holds(site.database)]:
            assert time.monotonic() < ends
            time.sleep(0.05)
        assert [each.text for each in engines.look(site)] == [f"ours is {apsw.sqlite_lib_version()}"]
    finally:
        archive.terminate()
        archive.wait()


def test_a_writer_at_its_own_offset_is_named(site: Site) -> None:
    backed_up(site)
    with site.logs[0].open("r+b"):
        found = examined(site, 10)
    assert f"process {os.getpid()}" in "\n".join(each["text"] for each in found)


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False), ((3, 7, 0), True), ((3, 40, 1), True), ((3, 44, 5), True), ((3, 44, 6), False),
        ((3, 50, 6), True), ((3, 50, 7), False), ((3, 51, 2), True), ((3, 51, 3), False), ((3, 54, 0), False),
    ],
)  # fmt: skip
def test_which_versions_can_corrupt(version: tuple[int, int, int], affected: bool) -> None:
    assert engines.is_affected(version) is affected


@pytest.mark.parametrize(
    ("version", "level"), [("3.40.1", Level.FAULT), ("3.51.2", Level.FAULT), ("3.51.3", Level.OK), ("3.50.7", Level.OK)]
)
def test_our_own_sqlite_is_judged_too(site: Site, monkeypatch: pytest.MonkeyPatch, version: str, level: Level) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: version)
    [found] = [each for each in engines.look(site) if each.text.startswith("ours is")]
    assert (found.level, bool(found.cure)) == (level, level is Level.FAULT)
    assert version in found.text


def test_the_version_in_another_process_is_found(site: Site, elsewhere: Callable[..., Any]) -> None:
    other = elsewhere(site.database)
    [[version]] = other.execute("SELECT sqlite_version()")
    assert engines.version_in(other.process.pid) == tuple(map(int, version.split(".")))
    found = "\n".join(each["text"] for each in examined(backed_up(site), 0))
    assert f"(process {other.process.pid}) runs SQLite {version}" in found
