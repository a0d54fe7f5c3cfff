"""The site's volume is mounted read-only, as the kernel does when a disk fails: who is refused is told that."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portfolio_ops import config, errors
from portfolio_ops.config import Site
from portfolio_ops.errors import ExitCode
from portfolio_ops.host.files import open_regular
from portfolio_ops.mount import Mount, mount_of, read_only
from tests.conftest import make_database

TOOL = Path(sys.executable).with_name("portfolio-ops")
OWNER = 4242


def call(site: Site, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([TOOL, "--config", site.file, *words], capture_output=True, text=True, check=False)


@pytest.fixture
def volume(filesystem: Callable[[str], Path]) -> Path:
    """A filesystem of its own, to which every user may come."""
    place = filesystem("small")
    for parent in place.parents:
        if str(parent).startswith("/tmp/") and parent.stat().st_uid == os.geteuid():  # noqa: S108
            parent.chmod(0o755)
    return place


@pytest.fixture
def closed(volume: Path, tmp_path: Path) -> Iterator[Site]:
    """A site of another user with backups, whose volume is read-only by now."""
    root = volume / "closed"
    (root / "data").mkdir(parents=True)
    make_database(root / "data/portfolio.sqlite")
    for path in [root, *root.rglob("*")]:
        os.chown(path, OWNER, OWNER)
    file = tmp_path / "shop.toml"
    file.write_text(f'[site]\nroot = "{root}"\n[logs]\nfiles = []\n')
    site = config.load(file)
    for words in (("backup", "daily"), ("backup", "social")):
        done = call(site, *words)
        assert done.returncode == 0, done.stderr
    subprocess.run(["mount", "-o", "remount,ro", volume], check=True)
    yield site
    subprocess.run(["mount", "-o", "remount,rw", volume], check=True)
    subprocess.run(["rm", "-r", root], check=True)


@pytest.mark.parametrize(
    "words",
    [
        ("backup", "daily"), ("backup", "social"), ("verify",), ("drill",), ("prune", "--yes"), ("archive", "once"),
        ("restore", "database", "latest", "--in-place", "--yes"), ("restore", "social", "--yes"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_may_be_tried_again_and_says_where(closed: Site, volume: Path, words: list[str]) -> None:
    done = call(closed, *words)
    assert done.returncode == ExitCode.FAILED, done.stderr
    assert f"the filesystem at {volume} is mounted read-only" in done.stderr
    assert f"see `journalctl -k` and `findmnt -T {volume}`" in done.stderr
    assert "chown" not in done.stderr
    assert "ReadWritePaths" not in done.stderr


def test_who_looks_is_told(closed: Site, volume: Path) -> None:
    done = call(closed, "status")
    assert done.returncode == ExitCode.FINDINGS
    assert f"finding: the filesystem at {volume} is mounted read-only: nothing can be written there; " in done.stdout
    found = json.loads(call(closed, "--json", "doctor").stdout)["data"]["findings"]
    told = [each for each in found if each["level"] == "fault" and "is mounted read-only" in each["text"]]
    assert {each["subject"] for each in told} >= {"mount"}
    assert {each["subject"] for each in told} >= {"database"}
    assert not [each for each in found if "chown" in each["cure"]]
    assert any(each["subject"] == "clock" for each in found), "what else there is was looked at"


def test_the_sandbox_is_not_what_closes_it(closed: Site, volume: Path) -> None:
    found = json.loads(call(closed, "--json", "doctor", "--sandboxed").stdout)["data"]["findings"]
    [each] = [each for each in found if "cannot be written" in each["text"]]
    assert f"remount,rw {volume}" in each["cure"]


def test_a_file_that_cannot_be_written_is_a_file_all_the_same(closed: Site) -> None:
    with pytest.raises(OSError, match="Read-only"):
        open_regular(closed.database, os.O_RDWR)


def test_the_check_tells_before_it_cannot_remember(closed: Site) -> None:
    done = call(closed, "status", "--check")
    assert done.returncode == ExitCode.FAILED
    assert "The check found: " in done.stderr
    assert "is mounted read-only" in done.stderr.splitlines()[0]


def test_social_tables_come_back_elsewhere(closed: Site, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    os.chown(place, OWNER, OWNER)
    for parent in place.parents:
        if str(parent).startswith("/tmp/") and parent.stat().st_uid == os.geteuid():  # noqa: S108
            parent.chmod(0o755)
    done = call(closed, "restore", "social", "--into", place / "look.sqlite")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in place.iterdir()] == ["look.sqlite"]
    done = call(closed, "restore", "database", "--to", place / "whole.sqlite")
    assert done.returncode == 0, done.stderr


def test_a_mount_that_only_a_sandbox_closes_keeps_its_cure(volume: Path, tmp_path: Path) -> None:
    """As ProtectSystem= does: the filesystem can be written, by others."""
    inside = tmp_path / "inside"
    inside.mkdir()
    subprocess.run(["mount", "--bind", volume, inside], check=True)
    try:
        assert mount_of(inside / "new/file") == Mount(inside, closed=False, read_only=False)
        subprocess.run(["mount", "-o", "remount,bind,ro", inside], check=True)
        assert mount_of(inside) == Mount(inside, closed=True, read_only=False)
        assert read_only(inside) is None
        with pytest.raises(OSError, match="Read-only") as caught:
            (inside / "new").touch()
        error = errors.explained(caught.value)
        assert error.exit_code is ExitCode.NOT_PERMITTED
        assert error.suggestion == (
            "inside a unit, check ReadWritePaths= of its drop-in;"
            f" elsewhere, `findmnt -T {inside}` shows what is read-only"
        )
    finally:
        subprocess.run(["umount", inside], check=True)


def test_where_nothing_tells_which_it_is_both_are_named() -> None:
    error = errors.explained(OSError(30, "Read-only file system"))
    assert error.exit_code is ExitCode.FAILED
    assert "journalctl -k" in error.suggestion
    assert "ReadWritePaths=" in error.suggestion
