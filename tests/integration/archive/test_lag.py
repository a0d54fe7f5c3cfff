"""A running archive that does not archive is a finding, as soon as that is certain."""

import contextlib
import os
import re
import sqlite3
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.jobs import archive_health
from portfolio_ops.store import catalogue
from portfolio_ops.store.lock import ARCHIVING, EXCHANGE, held
from tests.conftest import make_database
from tests.integration.archive.oracle import TOOL

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["wal", "delete"])
def site(site: Site, request: pytest.FixtureRequest) -> Site:
    """With a WAL and without."""
    site.database.unlink()
    make_database(site.database, journal_mode=request.param)
    site.state.mkdir(parents=True)
    return site


def finding(site: Site, later: timedelta) -> str:
    """What is found then, of an archive that runs and does nothing."""
    with held(site.state, ARCHIVING, wait=timedelta(), on_wait=lambda _: None):
        found = archive_health.assess(site, catalogue.scan(site.backups, site.name), datetime.now(UTC) + later)
    assert found is not None
    assert found.running
    return found.finding


def test_what_was_committed_long_ago_and_is_not_archived_is_found(site: Site) -> None:
    with contextlib.closing(sqlite3.connect(site.database, isolation_level=None)) as program:
        program.execute("SELECT count(*) FROM comments").fetchall()
        for _ in range(2):  # the first begins the timeline
            subprocess.run([TOOL, "--config", site.file, "archive", "once"], check=True, stderr=subprocess.DEVNULL)
            program.execute("INSERT INTO comments(body) VALUES('archived')")
        subprocess.run([TOOL, "--config", site.file, "archive", "once"], check=True, stderr=subprocess.DEVNULL)
        assert finding(site, 30 * MINUTE) == ""
        program.execute("INSERT INTO comments(body) VALUES('not archived')")
        # The archive may have come to it in time, however long the site wrote nothing before.
        assert finding(site, MINUTE) == ""
        assert "runs, and what was committed 30 minutes ago is not archived" in finding(site, 30.5 * MINUTE)
        with held(site.state, EXCHANGE, wait=timedelta(), on_wait=lambda _: None):
            assert finding(site, 30.5 * MINUTE) == ""  # a restore is given way to


def test_what_people_read_has_the_hosts_clock(site: Site) -> None:
    """The site's people compare it with what else they see: a finding, who holds a lock, and the clock itself."""

    def said(*words: str, code: int) -> str:
        command: list[str | Path] = [TOOL, "--config", site.file, *words]
        zone = {**os.environ, "TZ": "XYZ-5"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=zone)
        assert done.returncode == code, done.stderr
        return f"{done.stdout}{done.stderr}"

    with contextlib.closing(sqlite3.connect(site.database, isolation_level=None)) as program:
        for _ in range(2):
            said("archive", "once", code=0)
            program.execute("INSERT INTO comments(body) VALUES('archived')")
        said("archive", "once", code=0)
    local = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d XYZ\b"
    assert re.search(f"the archive does not run: no moment since {local} can be restored", said("status", code=10))
    assert re.search(f"  clock +{local}", said("doctor", code=10))
    with held(site.state, "daily", wait=timedelta(), on_wait=lambda _: None):
        assert re.search(rf"daily lock \(process \d+, since {local}\)", said("backup", "daily", "--wait", "0", code=7))
