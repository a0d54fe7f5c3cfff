"""What `archive verify` says of a whole archive, of a damaged one, and of commits that nobody has archived."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Site
from portfolio_ops.host import timers
from portfolio_ops.host.timers import ServiceState
from portfolio_ops.jobs import health
from portfolio_ops.restore import audit
from portfolio_ops.store import runs, timeline
from portfolio_ops.store.lock import ARCHIVING, PINNED, held
from portfolio_ops.store.timeline import Timeline
from tests.integration.archive.archiver import archiving
from tests.integration.archive.conftest import Operator
from tests.integration.archive.oracle import TOOL, Yard

NOTE = "INSERT INTO comments(image, body) VALUES(1, hex(randomblob(20)))"


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    try:
        yield made
    finally:
        made.end()


def verified(yard: Yard, code: int) -> list[str]:
    """The states that it tells, after checking its exit code."""
    command: list[str | Path] = [TOOL, "--config", yard.file, "--json", "archive", "verify"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    data: Any = json.loads(result.stdout)["data"]
    return [piece["state"] for piece in data["pieces"]]


def archived(yard: Yard) -> sqlite3.Connection:
    """A site that stays open, archived for a while, whose archive has ended."""
    site = sqlite3.connect(yard.database, isolation_level=None)
    yard.start_archive()
    yard.wait_for_base()
    site.execute("UPDATE counters SET n = n + 1")
    yard.until(lambda: bool(cuts(yard)), "it is archived")
    yard.end_archive()
    return site


def cuts(yard: Yard) -> list[object]:
    names = timeline.ids(yard.site.backups)
    found = timeline.read(yard.site.backups, names[-1], yard.site.name).increments if names else ()
    return [cut for increment in found for cut in increment.cuts]


def test_whole_then_pending_then_lost(yard: Yard) -> None:
    with contextlib.closing(archived(yard)) as site:
        assert verified(yard, 0) == ["found"]
        site.execute("UPDATE counters SET n = n + 1")
        assert verified(yard, 0) == ["found", "missing-pending"]
        site.execute("PRAGMA wal_checkpoint(RESTART)")
        site.execute("UPDATE counters SET n = n + 1")
        assert verified(yard, 9) == ["found", "missing-lost"]


def test_behind_a_running_archive_it_is_delayed_and_behind_one_that_hangs_pending(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0)
    yard.until(lambda: bool(cuts(yard)), "it is archived")
    assert set(verified(yard, 0)) <= {"found", "missing-delayed"}
    assert yard.archive is not None
    yard.archive.send_signal(signal.SIGSTOP)
    try:
        before = len(yard.writers[0].told)
        yard.until(lambda: len(yard.writers[0].told) > before + 3, "the site goes on")
        assert verified(yard, 0) == ["found", "missing-pending"]
    finally:
        yard.archive.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (ServiceState(enabled=False, active="inactive", said=""), False),
        (ServiceState(enabled=True, active="inactive", said=""), True),
        (ServiceState(enabled=False, active="failed", said=""), True),
        (None, True),
    ],
)
def test_an_archive_that_was_turned_off_is_no_finding(
    site: Site, operator: Operator, monkeypatch: pytest.MonkeyPatch, state: ServiceState | None, told: bool
) -> None:
    with archiving(site) as archiver:
        archiver.base()
        archiver.change(NOTE)
        archiver.writer.run(NOTE)
    later = time.time() + 60  # what is committed at the time of the last cut may be in it
    os.utime(site.database, (later, later))
    monkeypatch.setattr(timers, "service_state", lambda _: state)
    states = [piece["state"] for piece in operator.asked("archive", "verify", code=9 if told else 0)["pieces"]]
    assert ("missing-lost" in states) is told
    status = operator.asked("status", code=10)
    assert status["archive"]["off"] is not told
    assert any("the archive does not run" in finding for finding in status["findings"]) is told
    assert ("archive: turned off" in operator.call("status", code=10)[0]) is not told


def test_a_timeline_that_ended_before_its_base_was_made_is_a_hole_and_a_long_one_is_lost(
    site: Site, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for base in (True, False, True):
        with archiving(site) as archiver:
            if base:
                archiver.base()
            archiver.change(NOTE)
        time.sleep(1.1)
    states = [piece["state"] for piece in operator.asked("archive", "verify")["pieces"]]
    assert states[:3] == ["found", "hole", "found"]
    monkeypatch.setattr(audit, "_BASE_WITHIN", timedelta())
    assert "missing-lost" in {piece["state"] for piece in operator.asked("archive", "verify", code=9)["pieces"]}


MINUTE = timedelta(minutes=1)


class Baseless:
    """A timeline to which nothing leads, while the archive runs."""

    def __init__(self, site: Site, patch: pytest.MonkeyPatch) -> None:
        self.site, self.patch, self.began = site, patch, datetime.now(UTC)

    def tried(self, after: timedelta, *, ends: bool = True) -> None:
        """A try of the base that fails so long after the beginning; or that still goes on."""
        self.patch.setattr(runs, "_now", lambda: (self.began + after).isoformat(timespec="seconds"))
        runs.begin(self.site.state, "archive-base")
        if ends:
            runs.finish(self.site.state, "archive-base", succeeded=False, message="no room")

    def health(self, after: timedelta) -> tuple[str, list[str]]:
        """The state of the bases at that time, and what is found."""
        found = health.assess(self.site, self.began + after)
        [state] = [each.state for each in found.jobs if each.job.name == "archive-base"]
        return state, [each for each in found.findings if "archive-base" in each]


@pytest.fixture
def baseless(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Baseless]:
    with archiving(site) as archiver:
        made = Baseless(site, monkeypatch)
        archiver.change(NOTE)
    with (
        held(site.state, ARCHIVING, wait=timedelta(), on_wait=lambda _: None),
        held(site.state, PINNED, wait=timedelta(), on_wait=lambda _: None),
    ):
        yield made


def test_a_base_that_fails_again_and_again_is_a_finding_though_the_last_try_was_just_now(baseless: Baseless) -> None:
    baseless.tried(timedelta())
    assert baseless.health(MINUTE) == ("waiting", [])
    for minutes in range(10, 40, 10):
        baseless.tried(minutes * MINUTE)
    state, [finding] = baseless.health(31 * MINUTE)
    assert state == "failed"
    assert re.fullmatch(
        r"archive-base: no moment since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+ can be restored:"
        r" the last run failed: no room \(`portfolio-ops backup daily` makes a base as well, or says what to do\)",
        finding,
    )


def test_it_stays_one_while_it_is_tried_once_more_and_a_first_try_that_takes_long_is_none(baseless: Baseless) -> None:
    with held(baseless.site.state, "wal", wait=timedelta(), on_wait=lambda _: None):
        baseless.tried(timedelta(), ends=False)
        assert baseless.health(50 * MINUTE) == ("running", [])
        runs.finish(baseless.site.state, "archive-base", succeeded=False, message="no room")
        baseless.tried(40 * MINUTE, ends=False)
        state, [finding] = baseless.health(50 * MINUTE)
    assert state == "failed"
    assert "the last run failed: no room" in finding


def test_a_timeline_without_a_base_is_found_also_where_no_try_was_recorded(baseless: Baseless) -> None:
    assert baseless.health(29 * MINUTE) == ("waiting", [])
    state, [finding] = baseless.health(31 * MINUTE)
    assert state == "failed"
    assert "can be restored: there is none (`portfolio-ops backup daily`" in finding


def test_any_whole_backup_that_leads_there_serves_instead(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        operator.call("backup", "daily")
        archiver.change(NOTE)
    runs.begin(site.state, "archive-base")
    runs.finish(site.state, "archive-base", succeeded=False, message="no room")
    found = health.assess(site, datetime.now(UTC) + 31 * MINUTE)
    assert "archive-base" not in [each.job.name for each in found.jobs]
    assert [each for each in found.findings if "archive-base" in each] == []


def test_what_is_told_of_a_base_that_failed(
    baseless: Baseless, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "; nothing since " in operator.call("status", code=10)[0]
    [piece] = operator.asked("archive", "verify")["pieces"]
    assert (piece["state"], piece["why"]) == ("missing-delayed", "the base is due; look again in a minute")
    baseless.tried(timedelta())
    told = (
        "no base leads there: it is tried again, and the last try failed: no room;"
        f" begin anew with one: portfolio-ops --config {baseless.site.file} backup daily, while the archive runs"
    )
    [piece] = operator.asked("archive", "verify")["pieces"]
    assert (piece["state"], piece["why"]) == ("missing-delayed", told)
    monkeypatch.setattr(audit, "_BASE_WITHIN", timedelta(seconds=0.5))
    time.sleep(1)  # the site rests, and has one moment: it ended at once, and is not made good for all that
    [piece] = operator.asked("archive", "verify", code=9)["pieces"]
    assert (piece["state"], piece["why"]) == ("missing-lost", told)


def test_a_live_database_that_was_damaged_is_told_before_anything_of_it_is_archived(yard: Yard) -> None:
    """Its first base fails, and nobody writes: there is no moment yet, and there will be none."""
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0)
    yard.until(lambda: bool(cuts(yard)), "it is archived")
    yard.stop_writing(0)
    damaged = yard.folder / "damaged.sqlite"
    with contextlib.closing(sqlite3.connect(damaged)) as connection:
        connection.executescript("PRAGMA journal_mode=wal; CREATE TABLE notes(text)")
    data = bytearray(damaged.read_bytes())
    data[36:40] = (5).to_bytes(4)  # how many free pages there are, says the header
    yard.database.write_bytes(data)
    yard.until(lambda: "The base of the timeline could not be made" in yard.said(), "a base has failed")
    assert verified(yard, 0) == ["found", "missing-delayed"]

    def told(*words: str) -> str:
        command: list[str | Path] = [TOOL, "--config", yard.file, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout

    assert "the last try failed: integrity_check found" in told("archive", "verify")
    assert "the archiver runs, but no later moment can be restored yet" in told("list", "points")
    assert "archive: running, no restore point yet; nothing since " in told("status")


def test_between_two_timelines_lies_a_hole(site: Site, operator: Operator) -> None:
    for _ in range(2):
        with archiving(site) as archiver:
            archiver.base()
            archiver.change(NOTE)
        time.sleep(1.1)
    states = [piece["state"] for piece in operator.asked("archive", "verify")["pieces"]]
    assert states[:3] == ["found", "hole", "found"]


def test_a_flipped_byte_is_lost_and_left_where_it_is(yard: Yard) -> None:
    with contextlib.closing(archived(yard)):
        path = max(yard.site.backups.glob("wal/*/*.wal.zst"))  # at the full hour there are two
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)
        assert "missing-lost" in verified(yard, 9)
        assert path.read_bytes() == data


def test_a_deleted_increment_in_the_middle_is_lost(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        archiver.base()
        for _ in range(3):
            archiver.writer.run(NOTE)
            archiver.flush()
            archiver.next_file()
    assert "missing-lost" not in {piece["state"] for piece in operator.asked("archive", "verify")["pieces"]}
    sorted(site.backups.glob("wal/*/*.wal.zst"))[1].unlink()
    pieces = operator.asked("archive", "verify", code=9)["pieces"]
    assert [piece["state"] for piece in pieces].count("missing-lost") == 1


def test_a_file_that_is_replaced_while_it_is_read_is_not_lost(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with archiving(site) as archiver:
        archiver.base()
        archiver.writer.run(NOTE)
        archiver.flush()
    read = timeline.read
    looks: list[str] = []

    def vanishing(backups: Path, name: str, owner: str, state: Path | None) -> Timeline:
        assert state is None  # a proof does without what is remembered
        found = read(backups, name, owner)
        looks.append(name)
        gone = ((found.folder / "gone.wal.zst", "there is no such file"),)
        return Timeline(name, found.folder, (), gone) if len(looks) == 1 else found

    monkeypatch.setattr(timeline, "read", vanishing)
    pieces, damaged = audit.audit(site)
    assert (len(looks), damaged) == (2, [])
    assert audit.State.LOST not in {piece.state for piece in pieces}
