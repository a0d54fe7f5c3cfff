"""`config check --stdin`: what is to take the place of a site's file, before it does."""

import os
import re
import shlex
import shutil
import subprocess

import pytest

from portfolio_ops.config import Site
from portfolio_ops.store.artifact import Kind
from tests.integration.test_jobs import asked, call, names
from tests.require import require_root


def elsewhere(site: Site) -> str:
    """Settings with another folder of backups."""
    return site.file.read_text().replace("[site]", '[site]\nbackups = "kept"')


def test_what_would_be_refused_is_refused_and_nothing_is_written(site: Site) -> None:
    before = site.file.read_text()
    done = call(site, "config", "check", "--stdin", code=2, input=f"{before}\n[retention]\ndaily = '30 days'\n")
    assert f"{site.file}: retention.daily '30 days' is not a duration" in done.stderr
    assert "the file that stands there was not touched" in done.stderr
    assert call(site, "config", "check", "--stdin", input=f"{before}\n[retention]\ndaily = '9d'\n").stdout == (
        f"{site.file} would be in order\n"
    )
    assert site.file.read_text() == before


def test_there_need_be_no_file_yet_and_one_that_is_refused_can_be_replaced(site: Site) -> None:
    good = site.file.read_text()
    for bad in (None, "no settings"):
        site.file.unlink()
        if bad is not None:
            site.file.write_text(bad)
        call(site, "config", "check", "--stdin", input=good)
        assert site.file.exists() is (bad is not None)
        site.file.write_text(good)


def test_a_folder_of_backups_is_left_only_when_all_that_it_holds_is_in_the_other(site: Site) -> None:
    call(site, "config", "check", "--stdin", input=elsewhere(site))  # there is nothing yet
    call(site, "backup", "daily")
    call(site, "archive", "once")
    done = call(site, "config", "check", "--stdin", code=4, input=elsewhere(site))
    assert f"not all that {site.backups} holds is there (artifacts: 2, timelines: 1)" in done.stderr
    assert f"mv -T {site.backups} {site.root}/kept" in done.stderr
    shutil.copytree(site.backups, site.root / "kept")
    call(site, "config", "check", "--stdin", input=elsewhere(site))
    shutil.rmtree(next((site.root / "kept/wal").glob("*Z-*")))
    done = call(site, "config", "check", "--stdin", code=4, input=elsewhere(site))
    assert "(artifacts: 0, timelines: 1)" in done.stderr


def test_the_folder_moves_as_it_is_said(site: Site) -> None:
    call(site, "backup", "daily")
    before, next_settings = names(site, Kind.DAILY), elsewhere(site)
    done = call(site, "config", "check", "--stdin", code=4, input=next_settings)
    [command] = re.findall(r": (mv -T [^;]+);", done.stderr)
    subprocess.run(shlex.split(command), check=True)
    call(site, "config", "check", "--stdin", input=next_settings)
    site.file.write_text(next_settings)
    assert [each["file"].rpartition("/")[2] for each in asked(site, "list")["data"]["artifacts"]] == before


@pytest.mark.parametrize(("denied", "code"), [("backups", 3), ("backups/daily", 4)])
def test_what_cannot_be_known_is_refused(site: Site, denied: str, code: int) -> None:
    require_root("backups that their site may not read")
    call(site, "backup", "daily")
    for path in [site.root, *site.root.rglob("*")]:
        os.chown(path, 4242, 4243)
    for parent in site.root.parents:
        if str(parent).startswith("/tmp/"):  # noqa: S108
            parent.chmod(0o755)
    os.chown(site.root / denied, 0, 0)
    (site.root / denied).chmod(0o700)
    assert "Permission denied" in call(site, "config", "check", "--stdin", code=code, input=elsewhere(site)).stderr
