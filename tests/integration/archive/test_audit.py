"""What `archive verify` says of a whole archive, of a damaged one, and of commits that nobody has archived."""

import contextlib
import json
import os
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


def test_a_base_that_failed_is_a_finding_only_if_it_lasts_and_nothing_serves_instead(
    site: Site, operator: Operator
) -> None:
    with archiving(site) as archiver:
        archiver.base()
    time.sleep(1.1)
    runs.begin(site.state, "archive-base")
    runs.finish(site.state, "archive-base", succeeded=False, message="no room")
    now = datetime.now(UTC)

    def found(later: timedelta) -> list[str]:
        return [each for each in health.assess(site, now + later).findings if "archive-base" in each]

    assert found(timedelta()) == []
    assert found(timedelta(minutes=31)) == ["archive-base: the last run failed: no room"]
    operator.call("backup", "daily")
    assert found(timedelta(minutes=31)) == []


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
