"""Single passes of the archive beside a site that goes on: one timeline, one base, nothing where nothing changed."""

import json
import shlex
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Site
from portfolio_ops.jobs import pace
from portfolio_ops.jobs.archive import archive
from portfolio_ops.sqlite.wal_index import read_wal_index
from portfolio_ops.store import timeline
from tests.integration.conftest import Elsewhere
from tests.integration.test_doctor import given_away
from tests.integration.test_jobs import call
from tests.require import require_root

NOTE = "INSERT INTO comments(body) VALUES('a note')"


@pytest.fixture
def program(site: Site, elsewhere: Callable[..., Elsewhere], monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """The site's own program. Whoever waits for a base has waited for long enough to seal what he follows."""
    monkeypatch.setattr(pace, "_AT_REST", 0.0)
    site.backups.mkdir()
    opened = elsewhere(site.database)
    opened.execute(NOTE)
    return opened


def passes(site: Site) -> tuple[list[str], int, int]:
    """One more; gives the timelines, how many bases there are, and how many moments."""
    archive(site, once=True, wait=timedelta())
    names = timeline.ids(site.backups)
    cuts = sum(len(each.cuts) for name in names for each in timeline.read(site.backups, name, site.name).increments)
    return names, len(list((site.backups / "wal").glob("base-*"))), cuts


def test_each_goes_on_where_the_last_one_ended(site: Site, program: Elsewhere) -> None:
    [name], bases, cuts = passes(site)
    assert (bases, cuts) == (1, 0)
    for number in range(1, 4):
        program.execute(NOTE)
        assert passes(site) == ([name], 1, number)


def test_where_nothing_was_committed_nothing_is_written(site: Site, program: Elsewhere) -> None:
    first = passes(site)
    assert passes(site) == first
    program.execute(NOTE)
    second = passes(site)
    files = contents(site)
    assert passes(site) == second
    assert contents(site) == files


def test_a_large_wal_is_left_as_it_is(site: Site, program: Elsewhere) -> None:
    """Were it all in the main file, the site would begin it anew, and nobody could tell what passed meanwhile."""
    program.execute("PRAGMA wal_autocheckpoint=0")
    [name], _, _ = passes(site)
    for _ in range(3):
        for _ in range(600):
            program.execute(NOTE)
        names, bases, _ = passes(site)
        assert (names, bases) == ([name], 1)
        with site.database.with_name(f"{site.database.name}-shm").open("rb") as shm:
            assert read_wal_index(shm.fileno()).backfilled == 0


def contents(site: Site) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (site.backups / "wal").rglob("*.zst")}


@pytest.mark.parametrize("damage", ["lost", "another"])
def test_what_cannot_be_proved_begins_a_timeline(site: Site, program: Elsewhere, damage: str) -> None:
    [before], _, _ = passes(site)
    memory = site.state / "archive-position"
    words: list[Any] = memory.read_text().split()
    if damage == "lost":
        memory.unlink()
    else:  # as after a power cut: as many frames, and others
        memory.write_text(" ".join([words[0], "00000000", *words[2:]]) + "\n")
    program.execute(NOTE)
    names, bases, _ = passes(site)
    assert (names[0], len(names), bases) == (before, 2, 2)


def test_an_empty_wal_proves_something_only_beside_a_file_that_was_not_changed(site: Site, program: Elsewhere) -> None:
    program.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    [first], bases, cuts = passes(site)
    assert passes(site) == ([first], bases, cuts)
    program.execute(NOTE)
    assert passes(site) == ([first], 1, 1)
    program.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    names, bases, _ = passes(site)
    assert (names[0], len(names), bases) == (first, 2, 2)
    program.execute(NOTE)
    program.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert len(passes(site)[0]) == 3
    assert json.loads((site.state / "archive.json").read_text())["latest"]["state"] == "succeeded"


def test_a_configuration_that_the_sites_owner_may_not_read_is_named_with_the_cure(site: Site) -> None:
    """Root reads it, and steps down; the base is made by a process of the owner's."""
    require_root("a file that another user may not read")
    site.backups.mkdir()
    given_away(site)
    site.file.chmod(0o600)
    done = call(site, "archive", "once", code=1)
    assert f"error: {site.file}: cannot be read by uid 4242 (Permission denied)" in done.stderr
    cure = f"chmod a+r {site.file}"
    assert f"  try: what works for a site runs as its owner, who must be able to read it: {cure}" in done.stderr
    subprocess.run(shlex.split(cure), check=True)
    call(site, "archive", "once")
    assert len(list((site.backups / "wal").glob("base-*"))) == 1
