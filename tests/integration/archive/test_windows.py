"""What is outside of what was archived is refused, and said; what is inside comes back."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.moment import exact
from portfolio_ops.sqlite.increment import scan
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from portfolio_ops.sqlite.merge import merge
from portfolio_ops.store.artifact import read_artifact
from portfolio_ops.store.lock import PINNED, held
from tests.integration.archive.archiver import Archiver, archiving
from tests.integration.archive.conftest import Operator
from tests.integration.archive.test_moments import GROW, INSTANT, NOTE, at


def backed_up(site: Site, *words: str) -> None:
    """A backup by the tool, in a process of its own."""
    code = "from portfolio_ops.cli.main import main; main()"
    command = [sys.executable, "-c", code, "--config", str(site.file), "backup", *words]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def archiver_runs(site: Site) -> Iterator[None]:
    site.state.mkdir(parents=True, exist_ok=True)
    with held(site.state, PINNED, wait=timedelta(), on_wait=lambda _: None):
        yield


def require_all(operator: Operator, archiver: Archiver, first: int = 0, end: int | None = None) -> None:
    for cut, digest in archiver.seen[first:end]:
        assert operator.restored(*at(cut.seen))[0] == digest


def test_two_timelines_and_the_hole_between_them(site: Site, operator: Operator) -> None:
    with archiving(site) as one:
        one.base()
        one.change(NOTE)
        one.change(GROW)
    time.sleep(1.1)  # timelines are told apart by the second
    with archiving(site) as two:
        two.writer.run(GROW)
        two.base()
        two.change(NOTE)
    require_all(operator, one)
    require_all(operator, two)
    data = operator.asked("list", "points")
    assert [window["timeline"] for window in data["windows"]] == [one.name, two.name]
    assert "the timeline ended" in data["windows"][0]["ends"]
    [hole] = data["holes"]
    assert hole["start"] == exact(one.seen[-1][0].seen)
    assert hole["end"] == data["windows"][1]["first"]
    words = operator.refused(*at(datetime.fromisoformat(hole["end"]) - INSTANT))
    assert "lies in a hole" in words
    assert f"--at {hole['start']}" in words
    assert hole["end"] in words
    assert operator.restored("--at", hole["start"])[0] == one.seen[-1][1]
    shown, _ = operator.call("list", "points")
    assert f"hole from {one.seen[-1][0].seen.astimezone():%Y-%m-%d}" in shown


def test_behind_the_last_point(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        archiver.base()
        last = archiver.change(NOTE)
    words = operator.refused("--at", "now")
    assert "no archiver runs" in words
    assert f"--at {exact(last.seen)}" in words


@pytest.mark.usefixtures("archiver_runs")
def test_behind_the_last_point_while_the_archiver_runs(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        archiver.base()
        archiver.change(NOTE)
    assert operator.restored("--at", "now")[0] == archiver.seen[-1][1]
    assert operator.asked("list", "points")["archiver_runs"]
    assert "in the future" in operator.refused(*at(datetime.now(UTC) + timedelta(hours=1)))


@pytest.mark.usefixtures("archiver_runs")
def test_the_last_point_of_another_timeline_is_not_the_present(site: Site, operator: Operator) -> None:
    with archiving(site) as one:
        one.base()
        one.change(NOTE)
    time.sleep(1.1)
    with archiving(site) as two:
        two.change(NOTE)
    assert "the timeline ended" in operator.refused("--at", "now")
    require_all(operator, one)


@pytest.mark.usefixtures("archiver_runs")
def test_the_present_is_that_of_the_newest_timeline(site: Site, operator: Operator) -> None:
    for _ in range(2):
        time.sleep(1.1)
        with archiving(site) as archiver:
            archiver.base()
            archiver.change(NOTE)
    assert operator.restored("--at", "now")[0] == archiver.seen[-1][1]


def test_a_timeline_in_which_nothing_changed_while_it_was_followed(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        base = archiver.base()
    subprocess.run(
        [sys.executable, "-c", "import sqlite3,sys; sqlite3.connect(sys.argv[1]).execute('VACUUM')", site.database],
        check=True,
    )
    backed_up(site, "daily")
    [window] = operator.asked("list", "points")["windows"]
    assert window["first"] == window["last"] == exact(read_artifact(base).taken)


def test_coarser_increments_beside_finer_ones(site: Site, operator: Operator, tmp_path: Path) -> None:
    archiver = three_files(site, base_in_the_last=False)
    files = [scan(path) for path in archiver.files()]
    head = replace(files[0].head, resolution=3600)
    with IncrementWriter.create(archiver.folder / "2000-01-01.wal.zst", head) as writer:
        merged = merge(files[:2], writer, tmp_path)
    files[0].path.unlink()
    data = operator.asked("list", "points")
    assert [(each["resolution_seconds"], each["points"]) for each in data["windows"]] == [(3600, 2), (1, 3)]
    assert data["holes"] == []
    for number in (3, 4, 5):
        digest, plan = operator.restored(*at(archiver.seen[number][0].seen))
        assert digest == archiver.seen[number][1]
        assert plan["moment"]["increments"][0] == str(merged.path)


def test_without_an_archive(site: Site, operator: Operator) -> None:
    backed_up(site, "daily")
    assert "portfolio-archive@shop.service" in operator.refused("--at", "now")
    assert operator.asked("list", "points")["windows"] == []


def test_without_a_base(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        archiver.change(NOTE)
    assert "no moment that can be restored" in operator.refused(*at(archiver.seen[0][0].seen))


def test_what_came_before_the_first_base(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        archiver.change(NOTE)
        archiver.change(NOTE)
        archiver.base()
        archiver.change(NOTE)
    assert "before all of them" in operator.refused(*at(archiver.seen[0][0].seen))
    [window] = operator.asked("list", "points")["windows"]
    assert window["first"] == exact(archiver.seen[1][0].seen)
    assert operator.asked("list")["problems"] == []
    require_all(operator, archiver, 1)


def test_a_daily_of_an_archiver_that_had_stopped_is_no_base(site: Site, operator: Operator) -> None:
    """It stands where the timeline began by its position, for there was no WAL at either time."""
    with archiving(site) as archiver:
        archiver.base()
        archiver.change(GROW)
        archiver.change(GROW, "DELETE FROM images WHERE id % 2")
    subprocess.run(
        [sys.executable, "-c", "import sqlite3,sys; sqlite3.connect(sys.argv[1]).execute('VACUUM')", site.database],
        check=True,
    )
    backed_up(site, "daily")
    require_all(operator, archiver)
    for artifact in operator.asked("list", "daily")["artifacts"]:
        details = operator.asked("show", artifact["id"])["details"]
        assert details["position"] == {"salts": "00" * 8, "frame": 0}


# --- damage ---


def three_files(site: Site, *, base_in_the_last: bool) -> Archiver:
    with archiving(site) as archiver:
        archiver.base()
        for number in range(6):
            archiver.change(NOTE, NOTE)
            if base_in_the_last and number == 4:
                archiver.base()
            if number in {1, 3}:
                archiver.next_file()
    return archiver


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_a_record_damaged_in_the_middle(site: Site, operator: Operator) -> None:
    archiver = three_files(site, base_in_the_last=False)
    flip(archiver.files()[1], archiver.seen[2][0].end + 30)
    require_all(operator, archiver, 0, 3)
    words = operator.refused(*at(archiver.seen[5][0].seen))
    assert archiver.files()[1].name in words
    assert "damaged" in words
    assert f"--at {exact(archiver.seen[2][0].seen)}" in words
    [window] = operator.asked("list", "points", code=10)["windows"]
    assert window["points"] == 4
    _, err = operator.call("list", "points", code=10)
    assert archiver.files()[1].name in err


def test_a_later_base_brings_back_what_is_behind_the_damage(site: Site, operator: Operator) -> None:
    archiver = three_files(site, base_in_the_last=True)
    flip(archiver.files()[1], archiver.seen[2][0].end + 30)
    require_all(operator, archiver, 0, 3)
    require_all(operator, archiver, 4)
    data = operator.asked("list", "points", code=10)
    [hole] = data["holes"]
    assert "damaged" in hole["reason"]
    assert "damaged" in operator.refused(*at(archiver.seen[3][0].seen))


def test_a_file_that_is_missing(site: Site, operator: Operator) -> None:
    archiver = three_files(site, base_in_the_last=True)
    archiver.files()[1].unlink()
    require_all(operator, archiver, 0, 2)
    require_all(operator, archiver, 4)
    [hole] = operator.asked("list", "points")["holes"]
    assert "does not go on where" in hole["reason"]


def test_a_file_whose_head_is_damaged(site: Site, operator: Operator) -> None:
    archiver = three_files(site, base_in_the_last=True)
    flip(archiver.files()[1], 60)
    require_all(operator, archiver, 0, 2)
    require_all(operator, archiver, 4)
    [hole] = operator.asked("list", "points", code=10)["holes"]
    assert "the head of" in hole["reason"]


@pytest.mark.usefixtures("archiver_runs")
def test_behind_damage_nothing_is_the_present(site: Site, operator: Operator) -> None:
    archiver = three_files(site, base_in_the_last=False)
    flip(archiver.files()[2], archiver.seen[4][0].end + 30)
    require_all(operator, archiver, 0, 5)
    assert "damaged" in operator.refused("--at", "now")


def test_pages_that_are_damaged_are_found_as_they_are_read(site: Site, operator: Operator) -> None:
    archiver = three_files(site, base_in_the_last=True)
    flip(archiver.files()[1], archiver.seen[3][0].end - 20)
    require_all(operator, archiver, 0, 3)
    require_all(operator, archiver, 4)
    words = operator.refused(*at(archiver.seen[3][0].seen), code=9)
    assert "is damaged" in words
    assert f"--at {exact(archiver.seen[2][0].seen)}" in words


def test_the_first_flush_of_a_later_file_is_damaged(site: Site, operator: Operator) -> None:
    archiver = three_files(site, base_in_the_last=False)
    flip(archiver.files()[2], archiver.seen[4][0].end - 20)
    words = operator.refused(*at(archiver.seen[5][0].seen), code=9)
    assert f"--at {exact(archiver.seen[3][0].seen)}" in words


def test_a_torn_tail(site: Site, operator: Operator) -> None:
    archiver = three_files(site, base_in_the_last=False)
    path = archiver.files()[-1]
    os.truncate(path, path.stat().st_size - 1)
    require_all(operator, archiver, 0, 5)
    [window] = operator.asked("list", "points")["windows"]
    assert window["last"] == exact(archiver.seen[4][0].seen)
    assert "no archiver runs" in operator.refused(*at(archiver.seen[5][0].seen))


def test_a_base_that_is_damaged(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        archiver.base()
        archiver.change(NOTE)
        archiver.writer.run(GROW)
        newer = archiver.base()
        archiver.change(NOTE)
    flip(newer, 5000)
    assert newer.name in operator.refused(*at(archiver.seen[1][0].seen), code=9)
    operator.call("verify", "--all", code=9)
    require_all(operator, archiver)


# --- before an event ---


def test_before_an_event(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        archiver.base()
        archiver.change(NOTE)
        archiver.change(NOTE)
        backed_up(site, "gallery", "Winter light")
        archiver.change(GROW)
        backed_up(site, "gallery", "Twice")
        backed_up(site, "gallery", "Twice")
        archiver.change(NOTE)
    [event, twice, _] = operator.asked("list", "event")["artifacts"]
    for words in ("Winter light", event["id"], event["id"][:6], Path(event["file"]).name):
        digest, plan = operator.restored("--before", words)
        assert digest == archiver.seen[1][1]
        assert plan["moment"]["found"] == exact(archiver.seen[1][0].seen)
    assert "several events" in operator.refused("--before", "Twice", code=2)
    assert operator.restored("--before", twice["id"])[0] == archiver.seen[2][1]
    operator.refused("--before", "Summer")
    data = operator.asked("list", "points")
    assert [each["name"] for each in data["events"]] == ["Winter light", "Twice", "Twice"]
    assert "Winter light" in operator.call("list", "points")[0]


def test_one_way_to_say_what_is_restored(operator: Operator) -> None:
    assert "--at and --before" in operator.refused("--at", "now", "--before", "x", code=2)
    assert "an artifact and --at" in operator.refused("latest", "--at", "now", code=2)
    assert "is no time" in operator.refused("--at", "noon", code=2)
