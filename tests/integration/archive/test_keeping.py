"""What retention and the clock do to an archive over weeks: whatever else there is, its moments stay their time."""

import contextlib
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Site
from portfolio_ops.moment import exact
from portfolio_ops.store import timeline
from tests.conftest import make_database
from tests.integration.archive.archiver import archiving, digest_of
from tests.integration.model.product import Product

DAY = 86400


class Weeks:
    """A site whose product lives through weeks in seconds."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site, self.product = site, Product(site.file, folder)
        self._copy = folder / "copy.sqlite"

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.product.ahead)

    def asked(self, *words: str, code: int = 0) -> Any:
        done = self.product.call("--json", *words)
        assert done.code == code, done
        return done.data

    def write(self, body: str) -> str:
        """Change the database; gives the hash of what it holds."""
        with contextlib.closing(sqlite3.connect(self.site.database, isolation_level=None)) as connection:
            connection.execute("INSERT INTO comments(body) VALUES(?)", (body,))
        return digest_of(self.site.database)

    def restored(self, when: datetime) -> str:
        self.asked("restore", "database", "--at", exact(when), "--to", str(self._copy))
        digest = digest_of(self._copy)
        self._copy.unlink()
        return digest

    def without_a_wal(self, page_size: int = 1024) -> None:
        self.site.database.unlink()
        make_database(self.site.database, journal_mode="delete", page_size=page_size)


@pytest.fixture
def weeks(site: Site, tmp_path: Path) -> Weeks:
    site.backups.mkdir(exist_ok=True)
    return Weeks(site, tmp_path)


def test_a_backup_that_no_moment_begins_with_lets_no_base_go(weeks: Weeks) -> None:
    weeks.without_a_wal()
    seen: list[tuple[datetime, str]] = []
    for day in range(0, 37, 3):
        weeks.product.ahead = day * DAY
        written = weeks.write(f"day {day}")
        weeks.asked("archive", "once")
        seen.append((weeks.now, written))
        weeks.product.ahead += DAY // 3
        weeks.write(f"day {day}, not archived")
        weeks.asked("backup", "daily")
    weeks.asked("prune", "--yes")
    assert weeks.asked("archive", "verify")["damaged"] == []
    kept = [each for each in seen[:-1] if weeks.now - each[0] < timedelta(days=30)]
    assert len(kept) >= 9
    for when, written in kept:
        assert weeks.restored(when) == written


def test_what_no_base_leads_to_is_lost_and_not_awaited(weeks: Weeks) -> None:
    weeks.without_a_wal()
    weeks.write("one")
    weeks.asked("archive", "once")
    weeks.product.ahead = DAY
    weeks.write("two")
    weeks.asked("archive", "once")
    [base] = weeks.site.backups.glob("wal/base-*")
    base.unlink()
    [piece] = weeks.asked("archive", "verify", code=9)["pieces"]
    assert (piece["state"], "no base leads there" in piece["why"]) == ("missing-lost", True)


def test_a_clock_that_was_ahead_once_ends_no_archive(weeks: Weeks) -> None:
    """It ran ahead for one start: what is begun later comes after it all the same."""
    weeks.without_a_wal()
    weeks.product.ahead = 400 * DAY
    weeks.write("by a clock that is wrong")
    weeks.asked("backup", "daily")
    weeks.asked("archive", "once")
    weeks.product.ahead = 0
    weeks.write("right again")
    weeks.asked("archive", "once")
    begun = timeline.ids(weeks.site.backups)
    bases = len(list(weeks.site.backups.glob("wal/base-*")))
    written = weeks.write("and on")
    weeks.asked("archive", "once")
    assert timeline.ids(weeks.site.backups) == begun
    assert len(list(weeks.site.backups.glob("wal/base-*"))) == bases
    [*_, last] = [each for each in weeks.asked("list", "points")["windows"] if each["timeline"] == begun[-1]]
    assert weeks.restored(datetime.fromisoformat(last["last"])) == written
    told = json.loads(weeks.product.call("--json", "status").out)["data"]
    assert told["archive"]["timeline"] == begun[-1]


def test_a_clock_that_was_a_little_ahead_mixes_no_timelines(weeks: Weeks) -> None:
    """What it named lies in the past by now."""
    weeks.without_a_wal()
    weeks.product.ahead = 15
    weeks.write("by a clock that is ahead")
    weeks.asked("archive", "once")
    [first] = timeline.ids(weeks.site.backups)
    weeks.product.ahead = 0
    weeks.without_a_wal(4096)
    weeks.write("right")
    weeks.asked("archive", "once")
    weeks.product.ahead = 3600
    seen = []
    for number in range(3):
        written = weeks.write(f"later, {number}")
        weeks.asked("archive", "once")
        weeks.asked("backup", "daily")
        seen.append((weeks.now, written))
        weeks.product.ahead += DAY
    [again, second] = timeline.ids(weeks.site.backups)
    assert again == first
    for day in range(7, 30, 7):
        weeks.product.ahead = day * DAY
        weeks.asked("backup", "daily")
    weeks.product.ahead = 31 * DAY
    weeks.asked("prune", "--yes")
    for when, written in seen[1:-1]:
        assert weeks.restored(when) == written
    told = json.loads(weeks.product.call("--json", "status").out)["data"]
    assert told["archive"]["timeline"] == second


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_clock_that_went_back_begins_one_timeline(weeks: Weeks, mode: str) -> None:
    if mode == "delete":
        weeks.without_a_wal()
    with contextlib.closing(sqlite3.connect(weeks.site.database, isolation_level=None)) as connection:
        for ahead in (200, 200, 0, 5, 10, 15, 20):
            weeks.product.ahead = ahead
            connection.execute("INSERT INTO comments(body) VALUES('x')")
            weeks.asked("archive", "once")
    assert len(timeline.ids(weeks.site.backups)) == 2


def test_the_file_of_the_hour_stays_however_short_moments_are_kept(weeks: Weeks) -> None:
    weeks.site.file.write_text(weeks.site.file.read_text() + '[retention]\nwal = "10s"\n')
    for page_size in (1024, 4096):
        weeks.without_a_wal(page_size)
        for number in range(2):
            weeks.write(f"change {number}")
            weeks.asked("archive", "once")
    assert len(timeline.ids(weeks.site.backups)) == 2
    files = sorted(weeks.site.backups.glob("wal/*/*.wal.zst"))
    weeks.product.ahead = 20
    weeks.asked("prune", "--yes")
    assert sorted(weeks.site.backups.glob("wal/*/*.wal.zst")) == files


def test_timelines_of_another_site_are_left_alone_and_told_of_in_one_finding(site: Site, weeks: Weeks) -> None:
    """Two sites with one folder of backups; or one site that was given another name."""
    with archiving(site) as archive:
        archive.base()
        when = archive.change("INSERT INTO comments(body) VALUES('1')").seen
        written = digest_of(site.database)
    [file], ours = archive.files(), weeks.product
    other = site.file.with_name("other.toml")
    other.write_text(site.file.read_text())
    weeks.product = Product(other, site.root)
    weeks.asked("archive", "once")
    assert len(timeline.ids(site.backups)) == 2, "the other site began one of its own"
    assert weeks.asked("archive", "verify")["damaged"] == []
    told = [Path(each["file"]) for each in weeks.asked("list", "wal", code=10)["problems"]]
    assert file.parent in told
    assert len(told) == 1 + 1, "it, and its base"
    weeks.product.ahead = 100 * DAY
    weeks.write("for the other")
    weeks.asked("backup", "daily")
    weeks.asked("prune", "--yes")
    weeks.product = ours
    assert weeks.restored(when) == written
