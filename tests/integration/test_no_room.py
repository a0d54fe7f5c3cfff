"""The disk of the backups is full to the last block: what can be done is done, and what cannot says where."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from portfolio_ops import config
from portfolio_ops.config import Site
from portfolio_ops.doctor import machine
from portfolio_ops.errors import ExitCode
from portfolio_ops.host.files import free_bytes, nearest
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Kind
from portfolio_ops.store.lock import ARCHIVING, held, holder_of
from tests.conftest import make_database
from tests.integration.test_jobs import planted
from tests.require import require_root

TOOL = Path(sys.executable).with_name("portfolio-ops")


def call(site: Site, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([TOOL, "--config", site.file, *words], capture_output=True, text=True, check=False)


def filled(place: Path) -> None:
    """No block is free any more."""
    with (place / "ballast").open("ab") as file:
        step = 1 << 22
        while step >= 512:
            try:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, step)
            except OSError:
                step //= 2


@pytest.fixture
def full(filesystem: Callable[[str], Path], tmp_path: Path) -> Iterator[Site]:
    """A site whose disk is full, with three event backups that are past their time."""
    place = filesystem("small")
    root = place / "full"
    (root / "data").mkdir(parents=True)
    make_database(root / "data/portfolio.sqlite")
    file = tmp_path / "shop.toml"
    file.write_text(f'[site]\nroot = "{root}"\n[logs]\nfiles = []\n[retention]\nevent = "1d"\nminimum = 1\n')
    site = config.load(file)
    for words in (("backup", "daily"), ("backup", "gallery", "winter")):
        assert call(site, *words).returncode == 0
    for number in range(3):
        planted(site, Kind.EVENT, timedelta(days=200 + number), f"gallery-added-old-202{number}-01-01-000000.sqlite")
    filled(place)
    yield site
    subprocess.run(["rm", "-r", root, place / "ballast"], check=True)


@pytest.mark.parametrize("notes", [True, False])
def test_a_full_disk_can_be_pruned(full: Site, notes: bool) -> None:
    """Whether the locks have been written before, or there is no block for who holds them."""
    if not notes:
        for path in full.state.glob("*.lock"):
            os.truncate(path, 0)
        filled(full.root.parent)
    done = call(full, "prune", "--yes")
    assert done.returncode == 0, done.stderr
    assert "3 deleted" in done.stdout
    assert not (full.state / "social.lock").exists(), "of what there is nothing, no lock is asked for"


def test_a_lock_that_was_held_before_says_who_holds_it_now(full: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though another program takes every block at the moment at which it is free."""
    truncate = os.ftruncate

    def watched(descriptor: int, length: int) -> None:
        truncate(descriptor, length)
        filled(full.root.parent)

    monkeypatch.setattr(os, "ftruncate", watched)
    with held(full.state, "daily", wait=timedelta(), on_wait=lambda _: None):
        assert holder_of(full.state, "daily") == os.getpid()


def test_the_archives_lock_is_not_held_without_a_word(full: Site) -> None:
    """Others tell the archive from a stranger by it, for as long as it runs."""
    with (
        pytest.raises(OSError, match="No space left"),
        held(full.state, ARCHIVING, wait=timedelta(), on_wait=lambda _: None),
    ):
        raise AssertionError
    assert holder_of(full.state, ARCHIVING) is None


@pytest.mark.parametrize("words", [("backup", "daily"), ("verify",), ("archive", "once"), ("status", "--check")])
def test_what_fails_says_where(full: Site, words: tuple[str, ...]) -> None:
    done = call(full, *words)
    assert done.returncode == ExitCode.FAILED
    assert f"No space left on device: {full.state}/" in done.stderr
    assert f"free some space on the filesystem at {full.root.parent}; " in done.stderr


def test_a_drill_is_inconclusive(full: Site) -> None:
    done = call(full, "--json", "drill")
    assert done.returncode == ExitCode.FINDINGS
    answer = json.loads(done.stdout)["data"]
    assert answer["verdict"] == "inconclusive"
    assert "No space left on device: " in answer["reasons"][0]


def test_room_is_looked_for_where_backups_will_be(site: Site, tmp_path: Path) -> None:
    require_root("a filesystem of its own")
    place = tmp_path / "volume"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], check=True)
    try:
        elsewhere = replace(site, backups=place / "new/backups")
        assert nearest(elsewhere.backups) == place
        found = machine._room(elsewhere, catalogue.scan(elsewhere.backups, site.name))
        assert int(found.text.split()[0].replace(",", "")) <= free_bytes(place) < 7 << 20
    finally:
        subprocess.run(["umount", place], check=True)
