"""What of the archive goes: nothing that a moment within its time needs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.jobs.expire import expired_increments, prune_increments
from portfolio_ops.restore import points
from portfolio_ops.restore.expiry import expired
from portfolio_ops.store import timeline
from tests.integration.archive.archiver import archiving
from tests.integration.archive.conftest import Operator

YEAR = timedelta(days=365)


def gone(site: Site, kept: timedelta, after: timedelta = timedelta()) -> list[str]:
    now = datetime.now(UTC) + after
    return [increment.path.name for increment in expired(points.read(site), kept, now)]


def test_increments_before_the_last_base_that_is_past_its_time_go(site: Site) -> None:
    site.backups.mkdir(exist_ok=True)
    with archiving(site) as archive:
        archive.change("INSERT INTO comments(body) VALUES('1')")
        archive.base()
        for number in range(4):
            archive.next_file()
            archive.change(f"INSERT INTO comments(body) VALUES('file {number}')")
            if number == 1:
                archive.base()
                archive.change("INSERT INTO comments(body) VALUES('behind the base')")
        names = [path.name for path in archive.files()]
        assert gone(site, YEAR) == []
        # All are past their time; the base lies in the third file, or at the very end of the second.
        assert gone(site, timedelta(seconds=1), YEAR) == names[:2]


def test_without_a_base_behind_them_none_goes(site: Site) -> None:
    site.backups.mkdir(exist_ok=True)
    with archiving(site) as archive:
        archive.base()
        for number in range(3):
            archive.change(f"INSERT INTO comments(body) VALUES('{number}')")
            archive.next_file()
    assert gone(site, timedelta(seconds=1), YEAR) == []


def test_a_timeline_that_is_over_goes_whole_once_a_newer_backup_is_there(
    site: Site, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.backups.mkdir(exist_ok=True)
    with archiving(site) as first:
        first.base()
        first.change("INSERT INTO comments(body) VALUES('1')")
    monkeypatch.setattr(
        timeline, "new_id", lambda _: f"{datetime.now(UTC) + timedelta(seconds=2):%Y-%m-%dT%H%M%S.%fZ}-ffffff"
    )
    with archiving(site) as second:
        second.change("INSERT INTO comments(body) VALUES('2')")
        assert gone(site, timedelta(seconds=1), YEAR) == []  # nothing stands in for it
        monkeypatch.setattr(timeline, "began", lambda name: datetime(2020, 1, 1 + name.endswith("-ffffff"), tzinfo=UTC))
        second.base()
        assert gone(site, YEAR) == []
        assert gone(site, timedelta(seconds=1), YEAR) == [path.name for path in first.files()]
    assert operator.asked("prune", "--explain")["increments"] == []


def test_pruning_takes_the_files_and_an_empty_folder(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.backups.mkdir(exist_ok=True)
    with archiving(site) as archive:
        archive.change("INSERT INTO comments(body) VALUES('1')")
    [file] = archive.files()
    kept = site.backups / "wal" / "base-kept"
    kept.write_bytes(b"")
    monkeypatch.setattr("portfolio_ops.jobs.expire.expired_increments", lambda *_: [file])
    assert prune_increments(site, wait=timedelta()) == [file]
    assert sorted((site.backups / "wal").iterdir()) == [kept]


def test_a_site_without_an_archive_has_nothing_to_let_go(site: Site, tmp_path: Path) -> None:
    assert tmp_path.exists()
    site.state.mkdir(parents=True)
    assert expired_increments(site, datetime.now(UTC)) == []
    assert prune_increments(site, wait=timedelta()) == []
