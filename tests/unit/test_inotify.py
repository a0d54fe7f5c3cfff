"""Being woken by changes, and what a pause costs those who make them."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from portfolio_ops.host.inotify import Watch


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    (tmp_path / "data").mkdir()
    with Watch() as made:
        made.add(tmp_path / "data")
        yield made


def watched(watch: Watch) -> int:
    """How many folders the kernel watches for it (proc(5), fdinfo)."""
    return Path(f"/proc/self/fdinfo/{watch._descriptor}").read_text().count("inotify wd:")


def test_a_change_wakes_and_is_named(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "data/file").write_text("x")
    assert watch.wait(10) == {tmp_path / "data/file"}
    assert watch.wait(0) == set()


def test_nothing_is_watched_in_a_pause_and_all_of_it_afterwards(watch: Watch, tmp_path: Path) -> None:
    pausing = threading.Thread(target=watch.pause, args=(60,))
    pausing.start()
    deadline = time.monotonic() + 10
    while watched(watch) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert watched(watch) == 0
    (tmp_path / "data/meanwhile").write_text("x")
    watch.interrupt()
    pausing.join()
    assert watched(watch) == 1
    assert watch.wait(0) == set()
    (tmp_path / "data/then").write_text("x")
    assert watch.wait(10) == {tmp_path / "data/then"}


def test_a_folder_that_goes_in_a_pause(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    watch.add(tmp_path / "other")
    (tmp_path / "data").rmdir()
    watch.pause(0)
    (tmp_path / "other/file").write_text("x")
    assert watch.wait(10) == {tmp_path / "other/file"}


def test_the_closing_of_a_file_ends_a_pause_and_a_wait(watch: Watch, tmp_path: Path) -> None:
    file = tmp_path / "data/file"
    file.write_text("x")
    watch.wait(0)
    assert watch.closing(file), "it may have been closed before it was watched"
    assert not watch.closing(file)
    with file.open("a") as opened:
        opened.write("y")
        opened.flush()
        assert watch.pause(0.01) == set(), "it was written, not closed"
    assert not watch.closing(file)
    assert watch.pause(60) == {file}, "what came before the pause counts"
    file.open("a").close()
    assert watch.wait(60) == {file}
    assert not watch.closing(None)
    file.open("a").close()
    assert watch.pause(0.01) == set()


def test_a_closed_file_that_was_made_anew(watch: Watch, tmp_path: Path) -> None:
    file = tmp_path / "data/file"
    file.write_text("x")
    assert watch.closing(file)
    file.unlink()
    file.write_text("x")
    assert watch.closing(file)
    watch.wait(0)
    file.open("a").close()
    assert watch.pause(60) == {file}
