"""Retention against a simulated clock: years of nights, both DST changes, and clocks that lie."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_ops.config import Retention
from portfolio_ops.store.artifact import Artifact, Content, Kind, Metadata
from portfolio_ops.store.retention import Ground, Verdict, clock_leapt, decide, limit_of

POLICY = Retention(
    daily=timedelta(days=30),
    social=timedelta(weeks=12),
    event=timedelta(days=90),
    logs=timedelta(days=7),
    wal=timedelta(days=30),
    minimum=3,
)
ZURICH = ZoneInfo("Europe/Zurich")


def artifact(kind: Kind, taken: datetime, log: str = "logs/backend.log") -> Artifact:
    name = f"{kind.value}-{taken.isoformat()}-{log}"
    details = {"log": log} if kind is Kind.LOGS else {}
    return Artifact(
        Path(name),
        hashlib.sha256(name.encode()).hexdigest()[:12],
        Metadata(kind, "shop", taken.astimezone(UTC), Content("0" * 64, 1), details),
        1,
        Content("0" * 64, 1),
    )


def lying(store: Iterable[Artifact], began: list[datetime]) -> dict[str, Ground]:
    """All as bases of timelines that began at some moments."""
    return {
        each.id: Ground(str(max(moment for moment in began if moment <= each.taken)))
        for each in store
        if each.taken >= began[0]
    }


def kept(verdicts: Iterable[Verdict]) -> list[Artifact]:
    return [verdict.artifact for verdict in verdicts if verdict.keep]


def nights(first: datetime, count: int, hour: int = 2) -> list[datetime]:
    """The moments at which a nightly timer runs; a local hour that a DST change skips is run an hour later."""
    days = [first.date() + timedelta(days=number) for number in range(count)]
    moments = [datetime(day.year, day.month, day.day, hour, tzinfo=ZURICH).astimezone(UTC) for day in days]
    return [moment + timedelta(seconds=17 * (number % 5)) for number, moment in enumerate(moments)]


def test_four_years_of_nights_keep_thirty_days_through_dst_and_leap_days() -> None:
    store: list[Artifact] = []
    sizes = set()
    for number, moment in enumerate(nights(datetime(2023, 11, 1, tzinfo=UTC), 4 * 366)):
        store.append(artifact(Kind.DAILY, moment))
        now = moment + timedelta(seconds=40)
        store = kept(decide(store, POLICY, now))
        assert all(now - each.taken <= POLICY.daily for each in store)
        if number > 40:
            sizes.add(len(store))
    assert sizes <= {30, 31}
    assert 30 in sizes


def test_each_kind_has_its_own_span() -> None:
    start = datetime(2024, 2, 1, 1, tzinfo=UTC)
    store: list[Artifact] = []
    for day in range(400):
        now = start + timedelta(days=day)
        store.append(artifact(Kind.LOGS, now))
        store.append(artifact(Kind.DAILY, now + timedelta(hours=1)))
        if day % 7 == 0:
            store.append(artifact(Kind.SOCIAL, now + timedelta(hours=2)))
        if day % 5 == 0:
            store.append(artifact(Kind.EVENT, now + timedelta(hours=3)))
        if day % 3 == 0:
            store.append(artifact(Kind.WAL, now + timedelta(hours=3)))
        store = kept(decide(store, POLICY, now + timedelta(hours=4)))
    ages = {kind: [now - each.taken for each in store if each.metadata.kind is kind] for kind in Kind}
    assert {kind: len(each) for kind, each in ages.items()} == {
        Kind.DAILY: 30,
        Kind.SOCIAL: 12,
        Kind.EVENT: 18,
        Kind.LOGS: 7,
        Kind.WAL: 11,  # one from before: with it begin the oldest increments that are kept
    }
    for kind in Kind:
        assert max(ages[kind]) <= limit_of(POLICY, kind) + timedelta(days=3 if kind is Kind.WAL else 0)


def test_a_host_that_was_off_for_six_weeks_keeps_the_minimum() -> None:
    store = [artifact(Kind.DAILY, moment) for moment in nights(datetime(2025, 1, 1, tzinfo=UTC), 30)]
    back = store[-1].taken + timedelta(weeks=6)
    # Before the first run after the pause nothing is newer, so the newest three stay whatever their age.
    assert kept(decide(store, POLICY, back)) == store[-3:]
    fresh = artifact(Kind.DAILY, back)
    assert kept(decide([*store, fresh], POLICY, back)) == [*store[-2:], fresh]


def test_without_a_newer_one_nothing_goes_however_old() -> None:
    later = datetime(2035, 1, 1, tzinfo=UTC)
    for kind in Kind:
        only = [artifact(kind, datetime(2025, 1, 1, tzinfo=UTC))]
        assert kept(decide(only, POLICY, later)) == only


def test_an_artifact_dated_in_the_future_protects_and_endangers_nothing() -> None:
    now = datetime(2025, 6, 1, tzinfo=UTC)
    old = [artifact(Kind.DAILY, now - timedelta(days=age)) for age in (50, 49, 48)]
    future = [artifact(Kind.DAILY, now + timedelta(days=age)) for age in (1, 400, 4000)]
    verdicts = decide([*old, *future], POLICY, now)
    assert kept(verdicts) == [*old, *future]
    assert "in the future" in verdicts[-1].reason
    current = [artifact(Kind.DAILY, now - timedelta(days=age)) for age in (3, 2, 1)]
    assert kept(decide([*old, *current, *future], POLICY, now)) == [*current, *future]


def test_a_clock_that_jumps_back_loses_nothing_that_is_young() -> None:
    moments = nights(datetime(2025, 1, 1, tzinfo=UTC), 60)
    store = kept(decide([artifact(Kind.DAILY, moment) for moment in moments], POLICY, moments[-1]))
    back = moments[-1] - timedelta(days=20)
    again = [*store, artifact(Kind.DAILY, back)]
    assert kept(decide(again, POLICY, back)) == again


def test_an_event_backup_past_its_time_goes_once_any_newer_database_is_there() -> None:
    now = datetime(2025, 6, 1, tzinfo=UTC)
    event = artifact(Kind.EVENT, now - timedelta(days=91))
    social = artifact(Kind.SOCIAL, now)
    assert kept(decide([event, social], POLICY, now)) == [event, social]
    daily = artifact(Kind.DAILY, now)
    assert kept(decide([event, daily], POLICY, now)) == [daily]


def test_what_a_restore_put_away_stands_in_for_nothing_but_its_like() -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    for kind in (Kind.SOCIAL, Kind.EVENT):
        old, undo = artifact(kind, now - timedelta(days=200)), artifact(kind, now - timedelta(days=1))
        undo.metadata.details["event"] = "before-restore"
        assert kept(decide([old, undo], POLICY, now)) == [old, undo]
        old.metadata.details["event"] = "before-restore"
        assert kept(decide([old, undo], POLICY, now)) == [undo]


def test_a_base_is_kept_until_another_backup_from_before_what_is_kept_stands_in_for_it() -> None:
    """With it begin the increments of the last thirty days, though there are newer backups."""
    now = datetime(2026, 11, 1, tzinfo=UTC)
    base = artifact(Kind.WAL, now - timedelta(days=60))
    young = [artifact(Kind.DAILY, now - timedelta(days=days)) for days in range(7)]
    assert kept(decide([base, *young], POLICY, now)) == [base, *young]
    newer = artifact(Kind.WAL, now - timedelta(days=31))
    assert kept(decide([base, newer, *young], POLICY, now)) == [newer, *young]


def test_the_archives_of_one_log_say_nothing_of_another() -> None:
    now = datetime(2025, 6, 1, tzinfo=UTC)
    silent = artifact(Kind.LOGS, now - timedelta(days=100), log="logs/worker.log")
    busy = [artifact(Kind.LOGS, now - timedelta(days=age)) for age in (9, 1)]
    assert kept(decide([silent, *busy], POLICY, now)) == [silent, busy[1]]


MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.sampled_from(list(Kind)), MOMENTS), max_size=25),
    MOMENTS,
    st.integers(1, 6),
)
def test_whatever_there_is_the_promises_hold(drawn: list[tuple[Kind, datetime]], now: datetime, minimum: int) -> None:
    policy = Retention(POLICY.daily, POLICY.social, POLICY.event, POLICY.logs, POLICY.wal, minimum)
    store = [artifact(kind, taken) for kind, taken in drawn]
    verdicts = decide(store, policy, now)
    assert [verdict.artifact for verdict in verdicts] == store
    assert all(verdict.reason for verdict in verdicts)
    gone = [verdict.artifact for verdict in verdicts if not verdict.keep]
    left = kept(verdicts)
    assert all(now - each.taken > limit_of(policy, each.metadata.kind) for each in gone)
    if any(each.metadata.kind is Kind.DAILY for each in gone):
        present = [
            each for each in left if each.metadata.kind is Kind.DAILY and each.taken <= now + timedelta(minutes=5)
        ]
        assert len(present) >= minimum
    for each in gone:
        assert any(other.taken > each.taken for other in left), "nothing newer was left"
    # Judging what is left again lets nothing more go.
    assert kept(decide(left, policy, now)) == left


@pytest.mark.parametrize("zone", ["Europe/Zurich", "America/New_York", "Africa/Cairo", "Australia/Lord_Howe"])
def test_a_dst_change_never_leaves_fewer_than_the_days_promised(zone: str) -> None:
    tz = ZoneInfo(zone)
    start = datetime(2026, 1, 1, 2, 30, tzinfo=tz)
    store: list[Artifact] = []
    for day in range(500):
        date = (start + timedelta(days=day)).date()
        now = datetime(date.year, date.month, date.day, 2, 30, tzinfo=tz).astimezone(UTC)
        store = kept(decide([*store, artifact(Kind.DAILY, now)], POLICY, now + timedelta(seconds=30)))
        if day > 40:
            assert 30 <= len(store) <= 31


def test_what_a_moment_begins_with_outlives_its_own_limit() -> None:
    policy = replace(POLICY, daily=timedelta(days=2), wal=timedelta(days=10), minimum=1)
    first = datetime(2025, 1, 1, tzinfo=UTC)
    dailies = [artifact(Kind.DAILY, first + timedelta(days=number)) for number in range(30)]
    began = [first - timedelta(hours=1), first + timedelta(days=3, hours=-1)]

    store: list[Artifact] = []
    left: list[list[int]] = []
    for day, daily in enumerate(dailies):
        now = first + timedelta(days=day, hours=1)
        store = kept(decide([*store, daily], policy, now, lying([*store, daily], began)))
        left.append([dailies.index(each) for each in store])
    assert left[2] == [0, 1, 2]
    assert left[6] == [0, 3, 5, 6]  # the first of each timeline: no moment can be restored without; and of each week
    assert left[12] == [0, 3, 5, 11, 12]
    assert left[13] == [3, 5, 12, 13]  # day 3 is past the time of moments, and begins all that are not
    assert left[20] == [5, 12, 19, 20]
    now = first + timedelta(days=6, hours=1)
    assert kept(decide(dailies[:7], policy, now)) == dailies[5:7]  # without an archive


def test_a_clock_that_leaps_is_told_from_one_that_goes_on() -> None:
    now = datetime(2026, 11, 1, 2, 30, tzinfo=UTC)

    def leap(*days: float) -> timedelta | None:
        return clock_leapt([artifact(Kind.DAILY, now - timedelta(days=each)) for each in days], now)

    assert leap() is None
    assert leap(0) is None
    assert leap(1.01, 2.01, 40) is None
    assert leap(0, 7.1, 14.1) is None  # a site that only exports once a week
    assert leap(0, 0.01, 30, 31) == timedelta(days=30)  # this run and others of the same hour say nothing
    assert leap(-900, 0, 30) == timedelta(days=30)


def test_a_base_that_is_let_go_leaves_one_that_stays() -> None:
    policy = replace(POLICY, minimum=1)
    first = datetime(2025, 1, 1, tzinfo=UTC)
    base = artifact(Kind.WAL, first)
    dailies = [artifact(Kind.DAILY, first + timedelta(days=number, hours=1)) for number in range(40)]
    began = [first - timedelta(seconds=1)]
    store = [base, *dailies]
    for day in range(28, 40):
        now = first + timedelta(days=day, hours=2)
        there = [each for each in store if each.taken < now]
        store = kept(decide(there, policy, now, lying(there, began))) + [each for each in dailies if each.taken >= now]
        assert any(now - each.taken > policy.wal for each in store) == (day >= 30)


def test_what_begins_no_moment_stands_in_for_no_base() -> None:
    policy = replace(POLICY, minimum=1)
    now = datetime(2026, 11, 1, tzinfo=UTC)
    base, daily = artifact(Kind.WAL, now - timedelta(days=60)), artifact(Kind.DAILY, now - timedelta(days=50))
    later, young = artifact(Kind.DAILY, now - timedelta(days=40)), artifact(Kind.DAILY, now)
    store = [base, daily, later, young]
    assert kept(decide(store, policy, now, {base.id: Ground("t"), young.id: Ground("t")})) == [base, young]
    assert kept(decide(store, policy, now, lying([base, later, young], [base.taken]))) == [later, young]


def test_where_a_timeline_cannot_be_read_all_stay_that_may_begin_its_moments() -> None:
    policy = replace(POLICY, minimum=1)
    now = datetime(2026, 11, 1, tzinfo=UTC)
    store = [artifact(Kind.DAILY, now - timedelta(days=days)) for days in (80, 70, 60, 50, 0)]
    grounds = lying(store, [store[0].taken]) | {store[1].id: Ground("unread", doubtful=True)}
    assert kept(decide(store, policy, now, grounds)) == [store[1], store[3], store[4]]


def test_a_base_that_is_dated_later_than_the_next_timeline_stands_in_for_none_of_it() -> None:
    """The clock was ahead when the first one began."""
    policy = replace(POLICY, minimum=1)
    now = datetime(2026, 11, 1, tzinfo=UTC)
    first, second = (artifact(Kind.WAL, now - timedelta(days=31, seconds=ago)) for ago in (0, 15))
    daily = artifact(Kind.DAILY, now)
    grounds = {first.id: Ground("1"), second.id: Ground("2")}
    assert kept(decide([second, first, daily], policy, now, grounds)) == [second, first, daily]
