"""When the archive does what: decided from what it saw, with no database."""

import pytest

from portfolio_ops.jobs.pace import Load, Pace

PAGE = 4096
LARGE = (32 << 20) // PAGE


@pytest.mark.parametrize(
    ("frames", "grown", "copied", "sealed"),
    [
        (10, 10, False, False),
        (900, 10, False, False),  # the site checkpoints at 1,000
        (990, 10, True, True),
        (500, 199, False, False),
        (700, 199, True, True),
        (700, 200, True, False),  # it may leave no gap: it would have to be held
        (LARGE, 200, True, True),
        (LARGE, 0, True, True),
    ],
)
def test_a_wal_is_copied_before_the_site_does_and_sealed_where_that_costs_little(
    frames: int, grown: int, copied: bool, sealed: bool
) -> None:
    load = Load(frames, grown, PAGE)
    assert (load.nears_checkpoints, load.is_to_be_sealed) == (copied, sealed)


def flushed(load: Load) -> Pace:
    pace = Pace(100.0)
    pace.note_flush(100.0, load, once=False)
    return pace


def test_flushes_are_a_second_apart_unless_the_site_leaves() -> None:
    pace = flushed(Load(10, 10, PAGE))
    pace.note_change(dirty=True, begins=False)
    assert not pace.is_flush_due(100.9, is_left=False, at_once=False)
    assert pace.is_flush_due(100.9, is_left=False, at_once=True)
    assert pace.is_flush_due(101.0, is_left=False, at_once=False)
    assert pace.is_flush_due(100.5, is_left=True, at_once=False)
    assert not pace.is_flush_due(100.6, is_left=True, at_once=False)  # it leaves after each commit


def test_a_site_that_rests_has_its_wal_sealed_and_then_settled_once() -> None:
    pace = flushed(Load(10, 10, PAGE))
    assert not pace.is_seal_due(100.9, is_left=False)
    assert pace.is_seal_due(100.9, is_left=True)
    pace.note_change(dirty=True, begins=False)
    assert not pace.is_seal_due(100.9, is_left=True)  # it is archived first
    pace.note_change(dirty=False, begins=False)
    assert pace.is_seal_due(101.0, is_left=False)
    assert not pace.is_settling_due(101.0)
    pace.note_seal(101.0, done=False)
    assert not pace.is_seal_due(105.9, is_left=False)
    assert pace.is_seal_due(106.0, is_left=False)
    pace.note_seal(106.0, done=True)
    assert pace.is_settling_due(106.0)
    pace.settled = True
    assert not pace.is_settling_due(200.0)
    assert list(pace.moments(200.0, empty=False)) == []  # nothing wakes it


def test_a_single_pass_leaves_the_wal_as_it_is() -> None:
    pace = Pace(100.0)
    pace.note_flush(100.0, Load(5000, 5000, PAGE), once=True)
    assert not pace.is_seal_due(200.0, is_left=True)
    assert not pace.is_settling_due(200.0)


def test_what_a_busy_site_began_anew_is_copied_soon_and_only_until_it_is_archived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pace = flushed(Load(700, 200, PAGE))
    assert pace.busy
    monkeypatch.setattr("time.monotonic", lambda: 100.2)
    pace.note_change(dirty=True, begins=True)
    assert not pace.is_copy_due(100.24)
    assert pace.is_copy_due(100.26)
    pace.note_copy(100.26, done=False)
    assert not pace.is_copy_due(100.30)
    assert min(pace.moments(100.3, empty=False)) == pytest.approx(100.31)
    assert pace.is_copy_due(100.32)
    pace.note_copy(100.32, done=True)
    assert not pace.is_copy_due(100.9)
    pace.note_flush(101.0, Load(10, 10, PAGE), once=False)
    assert not pace.busy
