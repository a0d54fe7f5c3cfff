"""A site that got another name: what bears the former one is told once, left alone, and the cure takes it away."""

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from portfolio_ops import config
from portfolio_ops.config import Site
from portfolio_ops.doctor import machine
from portfolio_ops.store import catalogue, timeline
from portfolio_ops.store.artifact import Kind, Metadata
from portfolio_ops.store.publish import Draft
from tests.integration.archive.archiver import archiving, digest_of
from tests.integration.test_jobs import asked, call

FOREIGN = "bears the name of site 'shop', and counts for nothing here (artifacts: 5, timelines: 1)"


@pytest.fixture
def when(site: Site) -> str:
    """The site with all kinds of backups; a moment of it."""
    with archiving(site) as archive:
        archive.base()
        moment = archive.change("INSERT INTO comments(body) VALUES('1')").seen
    for words in (("backup", "daily"), ("backup", "social"), ("backup", "gallery", "Été 2025"), ("logs", "rotate")):
        call(site, *words)
    return moment.isoformat()


def renamed(site: Site) -> Site:
    """The same site under another name, with its first backups."""
    store = config.load(site.file.rename(site.file.with_name("store.toml")))
    call(store, "backup", "daily")
    call(store, "archive", "once")
    return store


@pytest.mark.usefixtures("when")
def test_what_bears_the_former_name_is_one_finding_and_no_drill_fails_for_it(site: Site) -> None:
    store = renamed(site)
    [finding] = [each for each in asked(store, "status", code=10)["data"]["findings"] if "'shop'" in each]
    assert FOREIGN in finding
    assert call(store, "list", code=10).stderr.count("shop'") == 1
    done = call(store, "backup", "daily")
    assert "Not an artifact" not in done.stderr
    report = asked(store, "drill")["data"]
    assert any("the archive: 1 spans were read back" in line for line in report["evidence"])
    assert asked(store, "archive", "verify")["data"]["damaged"] == []
    assert len(timeline.ids(site.backups)) == 2
    assert asked(store, "status", code=10)["data"]["archive"]["timeline"] == timeline.own(site.backups, "store")[0]


@pytest.mark.usefixtures("when")
def test_one_that_was_renamed_and_has_no_archive_yet_has_none_to_rehearse(site: Site) -> None:
    store = config.load(site.file.rename(site.file.with_name("store.toml")))
    call(store, "backup", "daily")
    assert "nothing is archived" in str(asked(store, "drill")["data"]["evidence"])
    assert asked(store, "status", code=10)["data"]["archive"] is None


def test_the_cure_takes_it_to_where_the_former_name_finds_it(site: Site, when: str, tmp_path: Path) -> None:
    lost = digest_of(site.database)
    store, away = renamed(site), site.root / "backups-shop"
    [cure] = [each.cure for each in machine.look(store, ()) if FOREIGN in each.text]
    subprocess.run(["sh", "-c", cure], check=True)
    call(store, "list")
    assert not [each for each in asked(store, "status", code=10)["data"]["findings"] if "shop" in each]
    assert (away.stat().st_uid, away.stat().st_mode & 0o777) == (site.backups.stat().st_uid, 0o750)
    site.file.write_text(store.file.read_text().replace("[site]", '[site]\nbackups = "backups-shop"'))
    former = config.load(site.file)
    assert len(catalogue.scan(former.backups, "shop").artifacts) == 5
    assert not catalogue.scan(former.backups, "shop").problems
    call(former, "restore", "database", "--at", when, "--to", str(tmp_path / "former.sqlite"))
    assert digest_of(tmp_path / "former.sqlite") == lost


@pytest.mark.usefixtures("when")
def test_of_two_sites_that_share_a_folder_nothing_is_taken_away(site: Site) -> None:
    store = renamed(site)
    shutil.copy(store.file, site.file)
    [cure] = [each.cure for each in machine.look(store, ()) if FOREIGN in each.text]
    assert cure == f"give each site a folder of its own: [site] backups in {site.file} and {store.file}"


def test_a_name_that_no_site_can_have_is_in_no_command(site: Site) -> None:
    folder = site.backups / Kind.DAILY.folder
    folder.mkdir(parents=True)
    for name in ("../../shop", "", "a b"):
        with Draft(folder) as draft:
            draft.write([b"x"])
            content = draft.read_back()
            draft.publish("portfolio-2021-01-01", ".zst", Metadata(Kind.DAILY, name, datetime.now(UTC), content))
    findings = asked(site, "status", code=10)["data"]["findings"]
    assert len([each for each in findings if each.startswith("not an artifact: ")]) == 3
    assert not [each for each in machine.look(site, ()) if "install" in each.cure]
