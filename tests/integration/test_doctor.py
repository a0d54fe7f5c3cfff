"""The doctor: what is planted is found, with a cure."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Site
from portfolio_ops.doctor import engines
from portfolio_ops.store.artifact import Kind
from tests.integration.test_jobs import planted

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


def test_looking_changes_nothing(site: Site) -> None:
    backed_up(site)

    def everything() -> dict[str, tuple[int, int]]:
        paths = [path for path in site.root.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}

    before = everything()
    examined(site, 0)
    assert everything() == before


def foreign_shm(site: Site) -> None:
    path = site.database.with_name("portfolio.sqlite-shm")
    path.touch()
    os.chown(path, 4242, 4242)


def stray_wal(site: Site) -> None:
    connection = sqlite3.connect(site.database)
    connection.execute("PRAGMA journal_mode=delete")
    connection.close()
    site.database.with_name("portfolio.sqlite-wal").write_bytes(b"x" * 100)


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


def log_is_a_link(site: Site) -> None:
    site.logs[0].unlink()
    site.logs[0].symlink_to("/etc/passwd")


FAULTS: dict[str, tuple[Callable[[Site], Any], str, int]] = {
    "no root": (lambda site: site.root.rename(site.root.with_name("away")), "does not exist", 6),
    "no database": (lambda site: site.database.unlink(), "there is no database at", 10),
    "not a database": (lambda site: site.database.write_bytes(b"text" * 2000), "is not a SQLite database", 10),
    "all may write": (lambda site: site.database.chmod(0o666), "everybody on this host may write", 10),
    "foreign": (foreign_shm, "is not of uid", 10),
    "stray": (stray_wal, "it is a stray", 10),
    "no wal": (no_wal, "its journal mode is delete", 0),
    "all may look": (lambda site: site.backups.chmod(0o755), "everybody on this host may look into", 0),
    "future": (from_the_future, "dated in the future", 10),
    "quarantine": (quarantined, "bad artifacts lie in", 10),
    "log is a folder": (log_is_a_folder, "is not a regular file", 10),
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


def test_the_version_in_another_process_is_found(site: Site, elsewhere: Callable[..., Any]) -> None:
    other = elsewhere(site.database)
    [[version]] = other.execute("SELECT sqlite_version()")
    assert engines.version_in(other.process.pid) == tuple(map(int, version.split(".")))
    found = "\n".join(each["text"] for each in examined(backed_up(site), 0))
    assert f"(process {other.process.pid}) runs SQLite {version}" in found
