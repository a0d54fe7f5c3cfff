"""Sequences that the model found, or that led to what it found: each of them once failed."""

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.integration.model.machine import Site
from tests.integration.model.product import Full, Killed

DAY = timedelta(days=1)


@pytest.fixture
def state(small_disk: object) -> Iterator[Site]:  # noqa: ARG001
    """A site that ends as the model ends it."""
    made = Site()
    with contextlib.ExitStack() as ends:
        ends.callback(made.place.remove)
        yield made
        made.judge.come_to_rest()
        made.judge.examine()


def test_a_daily_with_which_a_timeline_begins_outlives_its_own_limit(state: Site) -> None:
    state.begins(opened=True, mode="wal")
    state.adds(rows=3, size=10)
    state.archives(fate=Full(640), busy=0)  # no room for a base
    state.daily(fate=None, busy=0)
    for _ in range(2):
        state.adds(rows=3, size=10)
        state.archives(fate=None, busy=0)
        state.waits(span=DAY)
    state.waits(span=3 * DAY)
    state.daily(fate=None, busy=0)
    state.daily(fate=None, busy=0)


def test_a_log_reads_in_order_after_the_clock_went_back(state: Site) -> None:
    state.begins(opened=False, mode="delete")
    for _ in range(3):
        state.logs(lines=200, ends=False)
        state.rotates(fate=None)
        state.clock_goes_back(minutes=90)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_the_clock_went_back_before_anything_was_committed_in_a_timeline(state: Site, mode: str) -> None:
    state.begins(opened=True, mode=mode)
    state.adds(rows=3, size=10)
    state.archives(fate=None, busy=0)
    state.clock_goes_back(minutes=3)
    state.adds(rows=3, size=10)
    state.archives(fate=None, busy=0)


def test_the_journal_mode_changed_and_changed_back(state: Site) -> None:
    state.begins(opened=False, mode="wal")
    state.starts()
    state.changes_its_journal_mode(mode="delete")
    state.archives(busy=3, fate=None)
    state.changes_its_journal_mode(mode="wal")
    state.judge.examine()


def test_a_pass_ended_early_and_the_last_moment_is_still_to_come(state: Site) -> None:
    state.begins(opened=True, mode="wal")
    state.waits(span=timedelta(minutes=20))
    state.starts()
    state.changes_its_journal_mode(mode="delete")
    state.archives(busy=0, fate=None)
    state.starts()
    state.archives(busy=0, fate=None)
    state.starts()
    state.changes_its_journal_mode(mode="wal")
    state.starts()
    state.clock_goes_back(minutes=90)
    state.archives(busy=0, fate=Killed(47))


def test_the_site_checkpointed_and_began_its_wal_anew_while_nobody_archived(state: Site) -> None:
    state.begins(opened=False, mode="wal")
    state.starts()
    state.archives(busy=3, fate=None)
    state.starts()
    state.checkpoints(kind="PASSIVE")
    state.starts()
    state.changes(part=2)
    state.judge.examine()
