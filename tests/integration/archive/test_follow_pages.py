"""The archive beside a site without a WAL: every restore point is exactly a state that the site was in."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from portfolio_ops.store import timeline
from tests.integration.archive.oracle import Yard
from tests.integration.archive.test_follow import check_every_point, last_state


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path, journal_mode="delete")
    yield made
    made.end()


def test_two_writers_that_never_rest(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0, pause=0)
    yard.write(1, pause=0, pragmas="journal_mode=persist")
    time.sleep(6)
    for number in (0, 1):
        yard.stop_writing(number)
    time.sleep(2)
    yard.end_archive()
    [states] = check_every_point(yard).values()
    assert len(states) >= 4
    assert states[-1] == last_state(yard)


def test_killed_and_started_again_it_goes_on(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0, pragmas="journal_mode=truncate")
    for how in (signal.SIGKILL, signal.SIGTERM):
        time.sleep(2)
        yard.end_archive(how)
        time.sleep(0.5)
        yard.start_archive()
    time.sleep(2)
    yard.stop_writing(0)
    time.sleep(2)
    yard.end_archive()
    [states] = check_every_point(yard).values()
    assert states[-1] == last_state(yard)
    assert yard.said().count("Going on with timeline") == 2
    assert len(timeline.ids(yard.site.backups)) == 1
