"""The whole backup with which a timeline begins, lost while the archive runs."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import base
from portfolio_ops.jobs.base import Base
from portfolio_ops.store import timeline, verified
from tests.integration.archive.oracle import TOOL, Yard, state_of
from tests.integration.archive.test_follow import check_every_point, last_state, newest_restored

IMPATIENT = """
from portfolio_ops.jobs import base
base._ASK_AGAIN = 1.0
from portfolio_ops.cli.main import main
main()
"""


@pytest.fixture(params=["wal", "delete"])
def yard(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Yard]:
    """With a WAL and without, beside an archive that looks each second whether its base is there."""
    made = Yard(tmp_path, journal_mode=request.param)
    with (made.folder / "archive.log").open("ab") as log:
        command: list[str | Path] = [sys.executable, "-c", IMPATIENT, "--config", made.file, "archive", "run"]
        made.archive = subprocess.Popen(command, stderr=log)
    made.wait_for_base()
    yield made
    made.end()


def commits(yard: Yard) -> None:
    yard.write(0, pause=0.01)
    time.sleep(1.5)
    yard.stop_writing(0)
    time.sleep(1.5)


def test_one_that_goes_into_quarantine_is_made_anew(yard: Yard) -> None:
    commits(yard)
    time.sleep(1.5)
    [bad] = yard.bases()
    verified.quarantine(bad.path, yard.site.backups)
    yard.until(lambda: len(yard.bases()) == 1, "another base is made")
    commits(yard)
    time.sleep(2.5)
    yard.end_archive()
    assert len(yard.bases()) == len(timeline.ids(yard.site.backups)) == 1  # made once
    assert newest_restored(yard, check_every_point(yard)) == last_state(yard) == state_of(yard.database)


def test_one_of_which_another_backup_takes_the_place_is_not_made_anew(yard: Yard) -> None:
    commits(yard)
    subprocess.run([TOOL, "--config", yard.file, "backup", "daily"], check=True, stderr=subprocess.DEVNULL)
    commits(yard)
    first, _ = yard.bases()
    first.path.unlink()
    time.sleep(3)
    commits(yard)
    yard.end_archive()
    assert [each.metadata.kind.value for each in yard.bases()] == ["daily"]
    assert newest_restored(yard, check_every_point(yard)) == last_state(yard)


def test_where_nothing_changes_nothing_is_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([TOOL, "--config", site.file, "backup", "daily"], check=True, stderr=subprocess.DEVNULL)
    asked: list[bool] = []

    def leads() -> bool:
        asked.append(True)
        return True

    monkeypatch.setattr(base, "_ASK_AGAIN", 0.0)
    looked = Base(site, Log(site=site.name, job="archive"), leads, resumed=True)
    for _ in range(9):
        looked.look()
    assert looked.is_there
    assert len(asked) == 1
    subprocess.run([TOOL, "--config", site.file, "backup", "daily"], check=True, stderr=subprocess.DEVNULL)
    looked.look()
    assert len(asked) == 2


@pytest.mark.parametrize("yard", ["wal"], indirect=True)
def test_a_backup_that_was_taken_while_all_stood_still_is_no_base_by_itself(yard: Yard) -> None:
    """Its WAL was empty, and had no name yet."""
    commits(yard)
    yard.end_archive()
    yard.bases()[0].path.unlink()
    subprocess.run([TOOL, "--config", yard.file, "backup", "daily"], check=True, stderr=subprocess.DEVNULL)
    yard.start_archive()
    yard.wait_for_base(2)
    commits(yard)
    yard.end_archive()
    assert newest_restored(yard, check_every_point(yard)) == last_state(yard)
