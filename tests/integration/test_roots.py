"""A database of root's in a folder of another's: copied there by root, or of a site that runs as root.

Copied, nothing is made as root, and each command names the cure; a site that was deployed as root's goes on as that.
"""

import contextlib
import json
import os
import shlex
import sqlite3
import subprocess
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.host.identity import owner_of
from tests.integration.test_doctor import TOOL, given_away
from tests.integration.test_jobs import asked, call
from tests.require import require_root

WORDS = "is root's, and its folder is not"
NEEDS_IT = [
    ("backup", "daily"),
    ("backup", "social"),
    ("backup", "gallery", "x"),
    ("archive", "once"),
    ("restore", "database", "latest", "--in-place", "--yes"),
]


@pytest.fixture
def roots(site: Site) -> Site:
    """With a backup, and a database that was copied as root since."""
    require_root("a database of another user")
    given_away(site)
    for words in (("backup", "daily"), ("backup", "social"), ("logs", "rotate"), ("drill",)):
        call(site, *words)
    assert asked(site, "status")["data"]["findings"] == []
    os.chown(site.database, 0, 0)
    return site


@pytest.fixture
def run_by_root(site: Site) -> Site:
    """Its backend runs as root, and it was deployed so; the folder of its data is that of a person."""
    require_root("a folder of another user")
    for words in (("backup", "daily"), ("backup", "social"), ("logs", "rotate"), ("drill",)):
        call(site, *words)
    os.chown(site.database.parent, 4242, 4243)
    return site


def owners(site: Site) -> set[tuple[int, int]]:
    """Of all that the site has, but for its database."""
    paths = {site.root, *site.root.rglob("*")} - {site.database}
    return {(path.stat().st_uid, path.stat().st_gid) for path in paths}


def test_status_finds_it(roots: Site) -> None:
    [found] = asked(roots, "status", code=10)["data"]["findings"]
    assert WORDS in found
    assert f"chown --reference={roots.database.parent} {roots.database}" in found


@pytest.mark.parametrize("words", NEEDS_IT)
def test_what_needs_it_is_refused_with_the_cure(roots: Site, words: tuple[str, ...]) -> None:
    refused = asked(roots, *words, code=3)["errors"][0]
    assert WORDS in refused["message"]
    assert owners(roots) == {(4242, 4243)}
    assert [path.name for path in roots.database.parent.iterdir()] == ["portfolio.sqlite"]
    subprocess.run(shlex.split(refused["suggestion"]), check=True)
    assert (roots.database.stat().st_uid, roots.database.stat().st_gid) == (4242, 4243)
    with contextlib.closing(sqlite3.connect(roots.database, isolation_level=None)) as backend:  # as root
        backend.execute("CREATE TABLE since(a)")
        assert {path.stat().st_uid for path in roots.database.parent.iterdir()} == {4242}
        assert roots.database.with_name(f"{roots.database.name}-wal").stat().st_size
    call(roots, *words)


def test_what_does_not_need_it_is_done_as_the_sites_owner(roots: Site) -> None:
    with roots.logs[0].open("ab") as log:
        log.write(b"a new line\n")
    call(roots, "logs", "rotate")
    call(roots, "verify")
    assert owners(roots) == {(4242, 4243)}


def test_a_unit_that_runs_as_the_sites_owner_finds_it_too(roots: Site) -> None:
    for parent in Path(TOOL).parents:
        if not os.access(parent, os.X_OK) or not parent.stat().st_mode & 0o001:
            pytest.skip("NOT TESTED: another user may not come to the tool")
    done = subprocess.run(
        [TOOL, "--config", roots.file, "--json", "status", "--check"],
        capture_output=True,
        text=True,
        check=False,
        user=4242,
        group=4243,
        extra_groups=[],
    )
    assert done.returncode == 10, done.stderr
    assert WORDS in "".join(json.loads(done.stdout)["data"]["findings"])


@pytest.mark.parametrize("words", NEEDS_IT)
def test_a_site_that_was_deployed_as_roots_goes_on(run_by_root: Site, words: tuple[str, ...]) -> None:
    site = run_by_root
    with contextlib.closing(sqlite3.connect(site.database, isolation_level=None)) as backend:
        backend.execute("PRAGMA journal_mode=wal")
        backend.execute("CREATE TABLE since(a)")
        if words[0] != "restore":
            call(site, *words)
    call(site, *words)
    for look in ("status", "doctor"):
        said = call(site, look, code=10 if words[0] == "archive" else 0).stdout  # that does not run
        assert WORDS not in said
    os.chown(site.database.parent, 0, 0)
    assert owners(site) == {(0, 0)}


@pytest.mark.parametrize("lies", ["nothing", "another's", "a link", "below a link"])
def test_only_a_folder_of_backups_that_is_roots_own_tells_that_the_site_is_roots(run_by_root: Site, lies: str) -> None:
    site, backups = run_by_root, run_by_root.backups
    assert owner_of(site.database, site.root, backups) == (0, 0)
    moved = backups.rename(site.root / "moved")
    if lies == "another's":
        backups.mkdir()
        os.chown(backups, 4242, 4243)
    elif lies == "a link":
        backups.symlink_to(moved)
    elif lies == "below a link":
        (site.root / "chosen").symlink_to("/var")
        backups = site.root / "chosen/lib"
    assert owner_of(site.database, site.root, backups) == (4242, 4243)
