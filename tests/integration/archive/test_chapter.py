"""The file of the hour: what is written into it must be found under its name."""

import contextlib
import itertools
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.jobs.chapter import Chapter
from portfolio_ops.sqlite.increment import scan
from portfolio_ops.sqlite.lineage import TimelineEndedError
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.store import timeline
from portfolio_ops.store.whose import SUFFIX
from tests.integration.archive.oracle import Yard, state_of
from tests.integration.archive.test_follow import check_every_point, last_state, newest_restored

HOUR = datetime(2026, 11, 20, 10, tzinfo=UTC)
POSITIONS = [Position("00" * 8, number) for number in range(9)]


class Told:
    """A chapter to which a page is added each time."""

    def __init__(self, site: Site) -> None:
        self.name = timeline.new_id(HOUR - timedelta(hours=1))
        self.folder = timeline.folder_of(site.backups, self.name)
        self.folder.mkdir(parents=True)
        self.chapter = Chapter(site, self.name, 4096, None, None)
        self.steps = itertools.pairwise(POSITIONS)

    def append(self, seen: datetime) -> None:
        since, position = next(self.steps)
        self.chapter.append(iter([(2, os.urandom(4096))]), 9, since, position, seen, durable=True)


def replaced(file: Path) -> None:
    """As rsync(1) does it."""
    copy = file.with_name("copy")
    shutil.copy(file, copy)
    copy.replace(file)


@pytest.mark.parametrize("lose", [Path.unlink, replaced])
def test_nothing_is_written_without_a_name(site: Site, lose: object) -> None:
    assert callable(lose)
    told = Told(site)
    with contextlib.closing(told.chapter):
        told.append(HOUR)
        [file] = told.folder.iterdir()
        lose(file)
        for _ in range(2):
            with pytest.raises(TimelineEndedError, match="while it was in use"):
                told.append(HOUR + timedelta(minutes=1))
    assert all(len(scan(path).cuts) == 1 for path in told.folder.iterdir())


def test_a_file_whose_hour_is_over_may_be_merged(site: Site) -> None:
    """It stays open until something is written in a later hour, after days perhaps."""
    told = Told(site)
    with contextlib.closing(told.chapter):
        told.append(HOUR)
        [file] = told.folder.iterdir()
        file.unlink()
        told.append(HOUR + timedelta(hours=1))
        assert [path.name for path in told.folder.iterdir()] == [timeline.name_of(HOUR + timedelta(hours=1))]


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize("rests", [False, True])
@pytest.mark.parametrize("lose", [Path.unlink, replaced])
def test_a_file_that_is_lost_while_it_is_written_costs_what_it_held_and_nothing_more(
    tmp_path: Path, journal_mode: str, lose: object, *, rests: bool
) -> None:
    assert callable(lose)
    yard = Yard(tmp_path, journal_mode=journal_mode)
    try:
        yard.start_archive()
        yard.wait_for_base()
        yard.write(0, pause=0.01)
        [name] = timeline.ids(yard.site.backups)
        folder = timeline.folder_of(yard.site.backups, name)
        yard.until(lambda: any(folder.glob(f"*{SUFFIX}")), "something is archived")
        if rests:
            yard.stop_writing(0)
        lose(max(folder.glob(f"*{SUFFIX}")))
        yard.until(lambda: len(timeline.ids(yard.site.backups)) > 1, "another timeline begins")
        assert "while it was in use" in yard.said()
        yard.wait_for_base(2)
        if not rests:
            yard.stop_writing(0)
        yard.end_archive()
        assert newest_restored(yard, check_every_point(yard)) == last_state(yard) == state_of(yard.database)
    finally:
        yard.end()
