"""What is longer ago has fewer moments, and these are exactly as they were, whoever dies while they are merged."""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from portfolio_ops.config import Site
from portfolio_ops.errors import BusyError, VerificationError
from portfolio_ops.host import messages
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import age
from portfolio_ops.jobs.age import age_increments
from portfolio_ops.jobs.daily import backup_daily
from portfolio_ops.restore import points
from portfolio_ops.restore.expiry import expired
from portfolio_ops.sqlite import merge
from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.store.artifact import Kind
from portfolio_ops.store.lock import held
from tests.integration.archive import archiver as helper
from tests.integration.archive.archiver import Archiver, archiving
from tests.integration.archive.conftest import Operator
from tests.integration.archive.test_moments import GROW, INSERT, INSTANT, NOTE, REWRITE, SHRINK, at
from tests.integration.archive.test_windows import flip
from tests.integration.bomb import in_child
from tests.integration.test_jobs import planted
from tests.require import require_root

TEN = datetime(2025, 10, 14, 10, tzinfo=UTC)
DAY = timedelta(days=1)
NO_WAIT = timedelta()

_BASE_AT = """
import datetime, sys
from portfolio_ops.jobs import database
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromisoformat(sys.argv[2])
database.datetime = Clock
"""


class Clock(datetime):
    """What the archiver takes for the time."""

    moment = TEN

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]  # noqa: ARG003
        return cls.moment


@dataclass
class Past:
    """An archiver of a time that is chosen: seconds since ten o'clock."""

    archive: Archiver

    def to(self, seconds: float) -> None:
        moment = TEN + timedelta(seconds=seconds)
        assert moment >= Clock.moment
        if self.archive.file is not None and (moment.date(), moment.hour) != (Clock.moment.date(), Clock.moment.hour):
            self.archive.next_file()
            self.archive.hours = 0
        Clock.moment = moment

    def change(self, seconds: float, *statements: str) -> Cut:
        self.to(seconds)
        return self.archive.change(*(statements or (NOTE,)))

    def base(self, seconds: float) -> None:
        """One that is dated a second after its content."""
        self.to(seconds)
        folder = self.archive.site.backups / "wal"
        before = set(folder.glob("base-*"))
        taken = (Clock.moment + timedelta(seconds=1)).isoformat()
        command = [sys.executable, "-c", _BASE_AT + helper._BASE, str(self.archive.site.file), taken]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        assert len(set(folder.glob("base-*")) - before) == 1


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "datetime", Clock)


@contextlib.contextmanager
def living(site: Site) -> Iterator[Past]:
    """A timeline that began a minute before ten."""
    Clock.moment = TEN - timedelta(minutes=1)
    with archiving(site) as archive:
        yield Past(archive)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[messages.Message, str]]:
    events: list[tuple[messages.Message, str]] = []
    monkeypatch.setattr(Log, "event", lambda _, message, text, **__: events.append((message, text)))
    return events


Moments = dict[Position, tuple[datetime, str]]


def reached(site: Site) -> set[Position]:
    """The states to which a restore finds a way."""
    return {
        cut.position
        for history in points.read(site)
        for increment in history.increments
        for cut in increment.cuts
        if any(history.way(base, increment, cut) is not None for base in history.bases)
    }


def last_of_windows(archive: Archiver, resolution: int) -> Moments:
    """The states that stay; each with the last moment at which it is the newest of its window, and with its hash."""
    last = {cut.seen.timestamp() // resolution: (cut, digest) for cut, digest in archive.seen}
    ends = {number: datetime.fromtimestamp((number + 1) * resolution, UTC) - INSTANT for number in last}
    newest = archive.seen[-1][0].seen
    return {cut.position: (min(ends[number], newest), digest) for number, (cut, digest) in last.items()}


def require(operator: Operator, moments: Moments, among: set[Position]) -> None:
    """Restore those that were reached before."""
    assert {position for position in moments if position in among} <= reached(operator.site)
    for position, (moment, digest) in moments.items():
        if position in among:
            assert operator.restored(*at(moment))[0] == digest, moment


def require_all_there(operator: Operator, archive: Archiver) -> None:
    """Whatever can be restored still, boundaries that were kept too, is what it was."""
    digests = {cut.position: digest for cut, digest in archive.seen}
    for position in reached(operator.site):
        [seen] = {cut.seen for cut, _ in archive.seen if cut.position == position}
        assert operator.restored(*at(seen))[0] == digests[position], seen


def names(archive: Archiver) -> list[str]:
    return [path.name.removesuffix(".wal.zst").partition("T")[2] or path.name for path in archive.files()]


def resolutions(operator: Operator) -> list[int]:
    return [window["resolution_seconds"] for window in operator.asked("list", "points")["windows"]]


def random_history(past: Past, chooser: Random, bases: list[float]) -> None:
    """Three hours of some minutes each, generations that end at any time, and bases at the moments that are given."""
    due = sorted(bases)
    for hour, minute in itertools.product(range(3), (0, 1, 58, 59)):
        for second in sorted(chooser.sample([1, 20, 40, 58, 59.5], chooser.randint(1, 4))):
            now = hour * 3600 + minute * 60 + second
            steps = chooser.choices([INSERT, NOTE, GROW, REWRITE, SHRINK], [4, 4, 1, 2, 1], k=2)
            while due and due[0] <= now:
                past.archive.writer.run(NOTE)
                past.base(due.pop(0))
            past.change(now, *steps, NOTE)
            if chooser.random() < 0.5:
                past.archive.seal()
    past.change(86400, NOTE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "bases"),
    [
        (1, [-30]),  # the timeline's first, and no other
        (2, [30]),  # the first lies within a window, and what is before it is not reached
        (3, [-30, 3600 + 30, 2 * 3600 + 58 * 60 + 30]),
        (4, [58.7]),  # by its date it may be of this minute or the next
        (5, [3599, 2 * 3600 + 60.5]),  # of this hour or the next; just behind the end of a minute
        (6, [3600.5, 3600 + 59.2]),
    ],
)
def test_every_moment_that_stays_is_as_it_was(site: Site, operator: Operator, seed: int, bases: list[float]) -> None:
    with living(site) as past:
        random_history(past, Random(seed), bases)
    archive = past.archive
    before = reached(site)
    assert len(before) > 8
    age_increments(site, TEN + 3 * DAY, wait=NO_WAIT)
    assert names(archive) == ["10Z.minutes", "11Z.minutes", "12Z.minutes", "10Z"]
    require(operator, last_of_windows(archive, 60), before)
    require_all_there(operator, archive)
    assert resolutions(operator) == [60, 1]
    age_increments(site, TEN + 9 * DAY, wait=NO_WAIT)
    assert names(archive) == ["2025-10-14.hours.wal.zst", "10Z"]
    require(operator, last_of_windows(archive, 3600), before)
    require_all_there(operator, archive)
    assert resolutions(operator) == [3600, 1]


def two_hours(site: Site, *, first: float = -30) -> Archiver:
    """Two hours of three minutes with two flushes each, generations of three flushes, and a third hour to go on."""
    with living(site) as past:
        past.base(first)
        for number, (hour, minute, second) in enumerate(itertools.product((0, 1), (0, 1, 2), (10, 50))):
            past.change(hour * 3600 + minute * 60 + second, NOTE, REWRITE)
            if number == 7:
                past.base(hour * 3600 + minute * 60 + second + 1)
            if number % 3 == 1:
                past.archive.seal()
        past.change(2 * 3600)
    return past.archive


def test_what_is_not_of_age_stays_and_the_newest_file_always(site: Site, operator: Operator) -> None:
    archive = two_hours(site)
    ends = [archive.seen[number][0].seen for number in (5, 11, 12)]
    for now, found in [
        (ends[0] + DAY, ["10Z", "11Z", "12Z"]),
        (ends[0] + DAY + INSTANT, ["10Z.minutes", "11Z", "12Z"]),
        (ends[1] + DAY, ["10Z.minutes", "11Z", "12Z"]),
        (ends[2] + 30 * DAY, ["10Z.minutes", "11Z.minutes", "12Z"]),
    ]:
        age_increments(site, now, wait=NO_WAIT)
        assert names(archive) == found
        require_all_there(operator, archive)


def test_of_a_day_no_minute_goes_before_all_of_them_may(site: Site, operator: Operator) -> None:
    archive = two_hours(site)
    Clock.moment = TEN + DAY
    with archiving(site) as later:  # another timeline, so that all of the first may go
        later.base()
    midnight = TEN.replace(hour=0) + DAY
    age_increments(site, midnight + 7 * DAY - INSTANT, wait=NO_WAIT)
    assert names(archive) == ["10Z.minutes", "11Z.minutes", "12Z.minutes"]
    age_increments(site, midnight + 7 * DAY, wait=NO_WAIT)
    assert names(archive) == ["2025-10-14.hours.wal.zst"]
    require(operator, last_of_windows(archive, 3600), {cut.position for cut, _ in archive.seen})


def test_what_is_before_a_base_goes_when_the_base_is_past_its_time_not_when_its_day_is(site: Site) -> None:
    hour, day = 3600, 86400
    with living(site) as past:
        past.base(-30)
        past.change(0)
        for number in (0, 1, 2):
            past.change(day + number * hour)
        past.base(day + 2 * hour + 1800)
        past.change(day + 3 * hour)
        past.change(2 * day)
    age_increments(site, TEN + 20 * DAY, wait=NO_WAIT)
    assert names(past.archive) == ["2025-10-14.hours.wal.zst", "2025-10-15.hours.wal.zst", "10Z"]
    base = TEN + timedelta(seconds=day + 2 * hour + 1801)
    for limit, gone in ((base - INSTANT, []), (base, ["2025-10-14.hours.wal.zst"])):
        assert [each.path.name for each in expired(points.read(site), DAY, limit + DAY)] == gone


def test_nothing_is_touched_while_a_restore_or_a_base_is_being_made(site: Site) -> None:
    archive = two_hours(site)
    found = names(archive)
    with held(site.state, "wal", wait=NO_WAIT, on_wait=lambda _: None), pytest.raises(BusyError):
        age_increments(site, TEN + 9 * DAY, wait=NO_WAIT)
    assert names(archive) == found


def test_a_restore_that_begins_does_not_wait_for_all_merges(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = two_hours(site)
    real, locks = age._merge, contextlib.ExitStack()

    def and_a_restore_begins(*arguments: Any) -> None:
        real(*arguments)
        locks.enter_context(held(site.state, "restore", wait=NO_WAIT, on_wait=lambda _: None))

    with locks, monkeypatch.context() as patch:
        patch.setattr(age, "_merge", and_a_restore_begins)
        age_increments(site, TEN + 9 * DAY, wait=NO_WAIT)
        assert names(archive) == ["10Z.minutes", "11Z", "12Z"]
    with monkeypatch.context() as patch:
        patch.setattr(age, "_LONGEST", 0.0)
        age_increments(site, TEN + 9 * DAY, wait=NO_WAIT)
        assert names(archive) == ["10Z.minutes", "11Z", "12Z"]
    age_increments(site, TEN + 9 * DAY, wait=NO_WAIT)
    assert names(archive) == ["10Z.minutes", "11Z.minutes", "12Z"]


def test_a_damaged_file_stays_as_it_is(site: Site, told: list[tuple[messages.Message, str]]) -> None:
    archive = two_hours(site)
    path = archive.files()[0]
    for byte in (archive.seen[2][0].end + 30, archive.seen[3][0].end - 20):  # a record, and pages
        flip(path, byte)
        damaged, before = path.read_bytes(), reached(site)
        told.clear()
        age_increments(site, TEN + 3 * DAY, wait=NO_WAIT)
        failed = [text for message, text in told if message is messages.MERGE_FAILED]
        assert len(failed) == 1
        assert str(path) in failed[0]
        assert path.read_bytes() == damaged
        assert names(archive) == ["10Z", "11Z.minutes", "12Z"]
        assert [position for position in last_of_windows(archive, 60) if position in before - reached(site)] == []
        assert list((site.backups / "wal").glob(".tmp-*")) == []
        flip(path, byte)
    age_increments(site, TEN + 3 * DAY, wait=NO_WAIT)
    assert names(archive) == ["10Z.minutes", "11Z.minutes", "12Z"]


def test_a_file_that_is_torn_before_another_stays(site: Site, told: list[tuple[messages.Message, str]]) -> None:
    archive = two_hours(site)
    path = archive.files()[0]
    os.truncate(path, path.stat().st_size - 1)
    age_increments(site, TEN + 3 * DAY, wait=NO_WAIT)
    assert names(archive) == ["10Z", "11Z.minutes", "12Z"]
    assert [message for message, _ in told].count(messages.MERGE_FAILED) == 1


def test_a_day_with_a_gap_stays(site: Site, told: list[tuple[messages.Message, str]]) -> None:
    with living(site) as past:
        past.base(-30)
        for hour in (0, 1, 2, 24):
            past.change(hour * 3600)
    past.archive.files()[1].unlink()
    age_increments(site, TEN + 9 * DAY, wait=NO_WAIT)
    assert names(past.archive) == ["10Z.minutes", "12Z.minutes", "10Z"]
    assert [message for message, _ in told].count(messages.MERGE_FAILED) == 1


def test_without_room_nothing_is_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch, told: list[tuple[messages.Message, str]]
) -> None:
    require_root("merges on a full disk")
    archive = two_hours(site)
    before, wal = reached(site), site.backups / "wal"
    kept = site.backups.with_name("kept")
    wal.rename(kept)
    wal.mkdir()
    used = sum(path.stat().st_size + 4096 for path in kept.rglob("*"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={used + 12288}", "tmpfs", str(wal)], check=True)
    try:
        shutil.copytree(kept, wal, dirs_exist_ok=True)
        for words in ("bytes free", "No space"):  # checked first; and where the check was wrong
            told.clear()
            age_increments(site, TEN + 3 * DAY, wait=NO_WAIT)
            assert [message for message, _ in told] == [messages.MERGE_FAILED]
            assert words in told[0][1] or (words == "No space" and "full" in told[0][1])
            assert names(archive) == ["10Z", "11Z", "12Z"]
            assert list(wal.glob(".tmp-*")) == []
            assert reached(site) == before
            monkeypatch.setattr(age, "require_space", lambda *_: None)
    finally:
        subprocess.run(["umount", str(wal)], check=True)


def test_a_merge_that_is_not_equal_costs_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, told: list[tuple[messages.Message, str]]
) -> None:
    archive = two_hours(site)

    def refuse(*_: object) -> None:
        raise VerificationError("not equal")

    monkeypatch.setattr(merge, "prove_equal", refuse)
    age_increments(site, TEN + 3 * DAY, wait=NO_WAIT)
    assert names(archive) == ["10Z", "11Z", "12Z"]
    assert [message for message, _ in told] == [messages.MERGE_FAILED] * 2


def test_a_merged_file_of_others_takes_no_source_with_it(site: Site, told: list[tuple[messages.Message, str]]) -> None:
    """What stands under the name already is proved, too."""
    archive = two_hours(site)
    [raw, *_] = archive.files()
    saved = raw.read_bytes()
    age_increments(site, TEN + 3 * DAY, wait=NO_WAIT)
    [target, *_] = archive.files()
    raw.write_bytes(saved)
    good = target.read_bytes()
    for wrong in (good[:-20] + bytes([good[-20] ^ 1]) + good[-19:], good + b"\1", good[:-1]):
        target.write_bytes(wrong)
        told.clear()
        age_increments(site, TEN + 3 * DAY, wait=NO_WAIT)
        assert raw.exists()
        assert [message for message, _ in told] == [messages.MERGE_FAILED]


def test_a_merged_file_in_which_a_base_has_no_place_takes_no_source_with_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, told: list[tuple[messages.Message, str]]
) -> None:
    with living(site) as past:
        past.base(-30)
        past.change(10)
        past.archive.writer.run(NOTE)
        past.base(20)
        for second in (30, 50, 3600):
            past.change(second)
    [raw, _] = past.archive.files()
    saved = raw.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(age, "_behind_bases", lambda _: set())
        age_increments(site, TEN + 3 * DAY, wait=NO_WAIT)
    assert names(past.archive) == ["10Z.minutes", "11Z"]
    raw.write_bytes(saved)
    told.clear()
    age_increments(site, TEN + 3 * DAY, wait=NO_WAIT)
    assert raw.exists()
    assert [message for message, _ in told] == [messages.MERGE_FAILED]


_MODULES = ("jobs/age.py", "sqlite/merge.py")


def test_whoever_dies_meanwhile_loses_nothing(site: Site, operator: Operator) -> None:
    """At any event the moments that stay are reached; and the next run comes to the same end."""
    archive = two_hours(site)
    Clock.moment = TEN + DAY
    with archiving(site) as later:
        later.base()
    wal, saved = site.backups / "wal", site.backups.with_name("saved")
    wal.rename(saved)
    for days, resolution in ((3, 60), (9, 3600)):
        moments = last_of_windows(archive, resolution).keys()

        def ageing(now: datetime = TEN + days * DAY) -> None:
            age_increments(site, now, wait=NO_WAIT)

        shutil.copytree(saved, wal)
        events = in_child(ageing, 0, _MODULES)
        goal = [(path.name, path.stat().st_size) for path in archive.files()]
        assert len(goal) == (3 if days == 3 else 1)
        found = set()
        for fuse in range(1, events, max(1, events // 60)):
            shutil.rmtree(wal)
            shutil.copytree(saved, wal)
            assert in_child(ageing, fuse, _MODULES) == 0
            found.add(tuple(names(archive)))
            assert moments <= reached(site), fuse
            ageing()
            assert [(path.name, path.stat().st_size) for path in archive.files()] == goal
            assert list(wal.glob(".tmp-*")) == []
            assert moments <= reached(site)
        assert len(found) > 2
        require(operator, last_of_windows(archive, resolution), set(moments))
        shutil.rmtree(wal)


def test_a_day_of_which_sources_are_gone_already_is_finished(site: Site, operator: Operator) -> None:
    archive = two_hours(site)
    Clock.moment = TEN + DAY
    with archiving(site) as later:
        later.base()
    age_increments(site, TEN + 3 * DAY, wait=NO_WAIT)
    minutes = {path: path.read_bytes() for path in archive.files()}
    age_increments(site, TEN + 9 * DAY, wait=NO_WAIT)
    for left in range(1, len(minutes) + 1):
        for path in list(minutes)[-left:]:
            path.write_bytes(minutes[path])
        age_increments(site, TEN + 9 * DAY, wait=NO_WAIT)
        assert names(archive) == ["2025-10-14.hours.wal.zst"]
    require(operator, last_of_windows(archive, 3600), {cut.position for cut, _ in archive.seen})


def test_where_it_fails_the_daily_backup_is_none_the_worse(
    site: Site, monkeypatch: pytest.MonkeyPatch, told: list[tuple[messages.Message, str]]
) -> None:
    archive = two_hours(site)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    planted(site, Kind.DAILY, 2 * DAY, "portfolio-of-late")  # else the clock seems to have leapt
    monkeypatch.setattr("portfolio_ops.jobs.daily.prune_increments", lambda *_, **__: [])
    monkeypatch.setattr(age, "_publish", fail)
    [made] = backup_daily(site, wait=NO_WAIT).made
    assert made.path.exists()
    assert names(archive) == ["10Z", "11Z", "12Z"]
    assert [message for message, _ in told].count(messages.MERGE_FAILED) == 1
    monkeypatch.undo()
    monkeypatch.setattr("portfolio_ops.jobs.daily.prune_increments", lambda *_, **__: [])
    backup_daily(site, wait=NO_WAIT)
    assert names(archive) == ["10Z.minutes", "11Z.minutes", "12Z"]
