"""Requests by files: what is taken, what is put aside, and that each is made once whoever is killed when."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portfolio_ops.config import Site
from portfolio_ops.errors import NotFoundError, PortfolioOpsError, RefusedError
from portfolio_ops.jobs import requested
from portfolio_ops.jobs.requested import make_requested
from portfolio_ops.jobs.run import make_folders
from portfolio_ops.restore.plan import choose_event
from portfolio_ops.store import catalogue, inlet, requests, runs
from portfolio_ops.store.artifact import Artifact, Kind
from tests.integration.bomb import EVERY

WAIT = timedelta(minutes=1)


@pytest.fixture
def triggers(site: Site) -> Path:
    folder = site.root / "run/triggers"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requested, "_REST", 0.0)


def events(site: Site) -> list[Artifact]:
    return list(catalogue.scan(site.backups, site.name, [Kind.EVENT]).artifacts)


def names(site: Site) -> list[str]:
    return sorted(name for event in events(site) for name in event.metadata.details["names"])


def drop(folder: Path, name: str, content: bytes = b"") -> None:
    """As it should be done: written under a hidden name, then renamed."""
    (folder / ".new").write_bytes(content)
    (folder / ".new").rename(folder / name)


@pytest.mark.parametrize(
    ("file", "content", "gallery"),
    [
        ("winter light", b"", "winter light"),
        ("winter", b"\n", "winter"),
        ("any", b'{"galleryName": "Winter light"}', "Winter light"),
        ("named by its file", b"{}", "named by its file"),
        ("x", '{"galleryName": "Zimní světlo"}'.encode(), "Zimní světlo"),
    ],
)
def test_a_file_makes_one_event(site: Site, triggers: Path, file: str, content: bytes, gallery: str) -> None:
    drop(triggers, file, content)
    [made] = make_requested(site, wait=WAIT)
    assert [each.id for each in events(site)] == [made.id]
    assert made.metadata.details["name"] == gallery
    assert choose_event(site, gallery).id == made.id
    assert not list(triggers.iterdir())
    assert make_requested(site, wait=WAIT) == []


def test_a_daily_backup_may_be_asked_for_too(site: Site, triggers: Path) -> None:
    drop(triggers, "x", b'{"backup": "daily"}')
    [made] = make_requested(site, wait=WAIT)
    assert made.metadata.kind is Kind.DAILY


def test_what_is_still_being_written_is_left(site: Site, triggers: Path) -> None:
    (triggers / ".half").write_bytes(b'{"gall')
    assert make_requested(site, wait=WAIT) == []
    assert (triggers / ".half").exists()


def test_what_a_killed_api_left_half_written_goes_and_nobody_elses(site: Site, triggers: Path) -> None:
    old, young, other = (f".request-{'a' * 32}", f".request-{'b' * 32}", ".theirs")
    for name in (old, young, other):
        (triggers / name).touch()
    for name in (old, other):
        os.utime(triggers / name, (0, 0))
    make_requested(site, wait=WAIT)
    assert sorted(path.name for path in triggers.iterdir()) == [young, other]


def test_a_burst_loses_nobody_and_shares_backups(site: Site, triggers: Path) -> None:
    for number in range(250):
        drop(triggers, f"gallery {number}")
    made = make_requested(site, wait=WAIT)
    assert names(site) == sorted(f"gallery {number}" for number in range(250))
    assert len(made) == 3
    assert choose_event(site, "gallery 7").id in {each.id for each in made}
    assert not list(triggers.iterdir())
    assert requests.waiting(site.state) == []


def test_more_than_are_taken_at_once_are_all_taken(site: Site, triggers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inlet, "_AT_ONCE", 5)
    for number in range(12):
        drop(triggers, f"gallery {number}")
    make_requested(site, wait=WAIT)
    assert names(site) == sorted(f"gallery {number}" for number in range(12))


def test_what_is_exchanged_while_it_is_taken_is_seen_the_next_time(site: Site, triggers: Path) -> None:
    """As whoever owns the folder may do between any two steps of ours."""
    for name in ("gone", "changed", "kept"):
        drop(triggers, name)

    def take(request: requests.Request) -> None:
        if request.name == "gone":
            (triggers / "gone").unlink()
        if request.name == "changed":
            (triggers / "changed").unlink()
            (triggers / "changed").mkdir()

    assert inlet.drain(site.root, take) == []
    assert [path.name for path in triggers.iterdir()] == ["changed"]
    assert [refused.name for refused in inlet.drain(site.root, take)] == ["changed"]


def _bad(folder: Path, kind: str) -> None:
    path = folder / "bad"
    match kind:
        case "link":
            path.symlink_to("/etc/passwd")
        case "link to a folder":
            path.symlink_to("/etc")
        case "dangling":
            path.symlink_to("nowhere")
        case "fifo":
            os.mkfifo(path)
        case "folder":
            (path / "in it").mkdir(parents=True)
        case "socket":
            socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))
        case "device":
            os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
        case "sparse":
            os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40)
        case other:
            path.write_bytes(other.encode("latin-1"))


@pytest.mark.parametrize(
    "kind",
    [
        *("link", "link to a folder", "dangling", "fifo", "folder", "socket", "device", "sparse"),
        *(
            "no json",
            "[]",
            "7",
            '{"galleryName": 7}',
            '{"galleryName": ""}',
            '{"backup": "everything"}',
            "\xff\xfe\x00",
        ),
        *("[" * 60_000, '{"galleryName": "' + "x" * 10_001 + '"}', '{"galleryName": "\\ud800"}', "x" * 70_000),
        '{"backup": []}',
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the socket's file is what matters
def test_what_is_no_request_is_put_aside_with_its_reason(
    site: Site, triggers: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    _bad(triggers, kind)
    drop(triggers, "good")
    os_before = set(Path("/etc").iterdir())
    [made] = make_requested(site, wait=WAIT)
    assert made.metadata.details["names"] == ["good"]
    assert not list(triggers.iterdir())
    failed = sorted(each.name for each in (site.root / "run/failed").iterdir())
    assert [name.split("-", 1)[1] for name in failed] == ["bad", "bad.reason"]
    reason = (site.root / "run/failed" / failed[1]).read_text().strip()
    assert len(reason) < 300
    assert f"bad asks for no backup: {reason}" in capfd.readouterr().err
    assert set(Path("/etc").iterdir()) == os_before


def test_a_file_that_may_not_be_read_is_put_aside(site: Site, triggers: Path) -> None:
    """As root one may; so by a name that cannot be Unicode instead, and by a name of the greatest length."""
    (triggers / os.fsdecode(b"\xff\xfe")).touch()
    (triggers / ("y" * 255)).write_text("no json")
    assert make_requested(site, wait=WAIT) == []
    assert not list(triggers.iterdir())
    assert len(list((site.root / "run/failed").glob("*.reason"))) == 2


@pytest.mark.parametrize("which", ["run", "run/triggers"])
def test_a_link_in_the_place_of_a_folder_is_not_followed(
    site: Site, triggers: Path, tmp_path: Path, which: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "triggers").mkdir(parents=True)
    (elsewhere / "mine").write_text("not yours")
    (elsewhere / "triggers/mine").write_text("not yours")
    shutil.rmtree(site.root / which)
    (site.root / which).symlink_to(elsewhere)
    with pytest.raises(RefusedError, match="is not a folder"):
        make_requested(site, wait=WAIT)
    assert (elsewhere / "mine").exists()
    assert (elsewhere / "triggers/mine").exists()
    assert triggers.name


def test_failed_as_a_link_is_not_written_through(site: Site, triggers: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (site.root / "run/failed").symlink_to(elsewhere)
    drop(triggers, "bad", b"no json")
    with pytest.raises(RefusedError, match="run/failed is not a folder"):
        make_requested(site, wait=WAIT)
    assert not list(elsewhere.iterdir())
    assert (triggers / "bad").exists()


def test_no_folder_is_told_with_its_cure(site: Site) -> None:
    with pytest.raises(NotFoundError, match="run/triggers"):
        make_requested(site, wait=WAIT)


def test_what_fails_waits_and_is_made_once_it_can_be(site: Site, triggers: Path) -> None:
    aside = site.database.rename(site.database.with_suffix(".aside"))
    drop(triggers, "one")
    with pytest.raises(PortfolioOpsError):
        make_requested(site, wait=WAIT)
    assert not list(triggers.iterdir())  # its watcher must come to rest
    drop(triggers, "two")
    with pytest.raises(PortfolioOpsError):
        make_requested(site, wait=WAIT)
    aside.rename(site.database)
    make_requested(site, wait=WAIT)
    assert names(site) == ["one", "two"]


def test_one_kind_that_fails_does_not_stop_the_other(site: Site, triggers: Path) -> None:
    (site.backups / "daily").parent.mkdir(exist_ok=True)
    (site.backups / "daily").write_text("in the way")
    drop(triggers, "a", b'{"backup": "daily"}')
    drop(triggers, "b")
    with pytest.raises(RefusedError, match="daily"):
        make_requested(site, wait=WAIT)
    assert names(site) == ["b"]
    (site.backups / "daily").unlink()
    make_requested(site, wait=WAIT)
    assert len(catalogue.scan(site.backups, site.name, [Kind.DAILY]).artifacts) == 1


_KILLED = """
import os, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from portfolio_ops import config
from portfolio_ops.jobs import requested
left = int(sys.argv[2])

def trace(event, arguments):
    global left
    # Whatever changes a file's name or content.
    written = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if written or event in {"os.rename", "os.remove", "os.mkdir"}:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)

requested._REST = 0.0
site = config.load(Path(sys.argv[1]))
sys.addaudithook(trace)
requested.make_requested(site, wait=timedelta(seconds=30))
"""


def test_killed_at_any_step_each_is_made_once(site: Site, triggers: Path) -> None:
    asked, steps = 0, 0
    while True:
        for name in ("a", "b"):
            drop(triggers, f"{name}{steps}")
            asked += 1
        command = [sys.executable, "-c", _KILLED, str(site.file), str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        make_requested(site, wait=WAIT)
        assert len(names(site)) == len(set(names(site))) == asked, steps
        assert not list(triggers.iterdir())
        assert requests.waiting(site.state) == []
        if done.returncode == 0:
            break
        steps += EVERY
    assert steps > 20


def test_a_request_that_was_done_is_not_made_again(site: Site, triggers: Path) -> None:
    """A power cut may bring a file back that was deleted, with the same time and number."""
    drop(triggers, "winter")
    held = triggers.parent / "held"
    os.link(triggers / "winter", held)
    make_requested(site, wait=WAIT)
    os.link(held, triggers / "winter")
    assert make_requested(site, wait=WAIT) == []
    assert names(site) == ["winter"]


def test_what_became_of_a_request_is_kept_for_a_day(site: Site, triggers: Path) -> None:
    drop(triggers, "x", json.dumps({"request": "ab" * 16, "galleryName": "winter"}).encode())
    [made] = make_requested(site, wait=WAIT)
    assert requests.answer_to(site.state, "ab" * 16) == requests.Answer("done", made.path.name, made.id, made.bytes)
    path = site.state / "requests/ended" / f"{'ab' * 16}.json"
    os.utime(path, (0, 0))
    make_requested(site, wait=WAIT)
    assert requests.answer_to(site.state, "ab" * 16) is None


def test_events_without_end_leave_the_disk_time(site: Site, triggers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(requested, "_REST", 4.0)
    monkeypatch.setattr("time.sleep", slept.append)
    make_folders(site)
    now = datetime.now(UTC)
    long = runs.Run(runs.SUCCEEDED, (now - timedelta(seconds=10)).isoformat(), now.isoformat(), 1, "")
    runs._write(site.state, "backup-gallery", runs.Record(long, long))
    drop(triggers, "winter")
    assert len(make_requested(site, wait=WAIT)) == 1
    assert len(slept) == 1
    assert 30 < slept[0] <= 40


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda children: (
            st.lists(children) | st.dictionaries(st.sampled_from(["galleryName", "backup", "request", "x"]), children)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_content_is_taken_or_put_aside(site: Site, triggers: Path, content: bytes) -> None:
    drop(triggers, "file", content)
    taken: list[Any] = []
    refused = inlet.drain(site.root, taken.append)
    assert not list(triggers.iterdir())
    assert len(taken) + len(refused) == 1
    for request in taken:
        assert requests.is_id(request.id)
        assert request.wants in {"gallery", "daily"}
        assert requests.fault_of(request.name) == "" or request.wants == "daily"
