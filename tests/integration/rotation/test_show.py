"""Reading a log as if it had never been rotated."""

import os
import re
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Site
from portfolio_ops.errors import NotFoundError, UsageError
from portfolio_ops.logs.live import LiveLog
from portfolio_ops.logs.read import LogReader, Period, choose, matching_lines
from tests.integration.test_jobs import asked, call


def read(yard: Any, period: Period | None = None) -> tuple[bytes, list[str]]:
    warnings: list[str] = []
    reader = LogReader(yard.site, "logs/backend.log", period or Period(), warnings.append)
    return b"".join(reader.chunks()), warnings


@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_archives_and_live_file_are_one_stream(kind: str, yard_on: Callable[..., Any]) -> None:
    yard = yard_on(kind)
    written = b""
    for number in range(5):
        written += yard.append(b"%d of some length\n" % number * 700)
        yard.rotate()
    written += yard.append(b"not archived yet\nhalf a li")
    assert read(yard) == (written, [])


def test_lines_stay_in_order_where_the_clock_went_back(
    yard_on: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    yard = yard_on("ext4")
    written = yard.append(b"before\n" * 2000)
    yard.rotate()

    class Slow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr("portfolio_ops.logs.rotate.datetime", Slow)
    written += yard.append(b"after\n" * 2000)
    yard.rotate()
    written += yard.append(b"live\n")
    assert read(yard) == (written, [])


def test_a_period_chooses_whole_pieces(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("ext4")
    yard.append(b"old\n" * 2000)
    yard.rotate()
    middle = datetime.now(UTC)
    yard.append(b"new\n" * 2000)
    yard.rotate()
    yard.append(b"live\n")
    assert read(yard, Period(since=middle)) == (b"new\n" * 2000 + b"live\n", [])
    assert read(yard, Period(until=middle - timedelta(seconds=0)))[0].startswith(b"old\n" * 2000)


def test_a_missing_archive_is_said(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("ext4")
    for number in range(3):
        yard.append(b"%d\n" % number * 3000)
        yard.rotate()
    yard.archives()[1].path.unlink()
    data, [warning] = read(yard)
    assert data == b"0\n" * 3000 + b"2\n" * 3000
    assert "6,000 bytes before" in warning


@pytest.mark.parametrize("rotated", [0, 1])
def test_what_is_rotated_between_the_archives_and_the_live_file_is_shown(
    rotated: int, yard_on: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    yard = yard_on("ext4")
    written = b""
    for number in range(rotated):
        written += yard.append(b"early %d\n" % number * 1000)
        yard.rotate()
    written += yard.append(b"late\n" * 2000)

    def opened(*arguments: Any) -> LiveLog:
        yard.rotate()
        return LiveLog(*arguments)

    monkeypatch.setattr("portfolio_ops.logs.read.LiveLog", opened)
    assert read(yard) == (written, [])


def test_reading_while_rotations_go_on_shows_each_byte_once(
    yard_on: Callable[..., Any], writers: Callable[..., Any], numbered_lines: Callable[[bytes], dict[str, list[int]]]
) -> None:
    yard = yard_on("ext4")
    running = writers(yard.log, "ab")
    stop = threading.Event()

    def rotate() -> None:
        while not stop.is_set():
            yard.rotate()

    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        for _ in range(15):
            data, warnings = read(yard)
            whole = data[: data.rfind(b"\n") + 1]
            if whole:
                for numbers in numbered_lines(whole).values():
                    assert numbers == list(range(len(numbers)))
            assert warnings == []
    finally:
        stop.set()
        thread.join()
        running.stop()


def test_lines_are_found_across_chunks() -> None:
    chunks = [b"one\ntw", b"o\nth", b"ree\nfour"]
    assert list(matching_lines(chunks, re.compile(b"[wu]"))) == [b"two\n", b"four"]


def test_a_log_is_named_by_path_name_or_stem(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("ext4", logs=("logs/backend.log", "logs/worker.log"))
    assert choose(yard.site, "worker") == "logs/worker.log"
    assert choose(yard.site, "logs/backend.log") == "logs/backend.log"
    with pytest.raises(UsageError):
        choose(yard.site, None)
    with pytest.raises(NotFoundError):
        choose(yard.site, "nothing")


def test_a_period_that_is_the_wrong_way_round_is_refused(site: Site) -> None:
    [error] = asked(site, "logs", "show", "--since", "2026-11-30T12:00:00Z", "--until", "2026-11-30T07:00:00Z", code=2)[
        "errors"
    ]
    assert "--since 2026-11-30 " in error["message"]
    assert "(2026-11-30T12:00:00Z)" in error["message"]
    assert "(2026-11-30T07:00:00Z)" in error["message"]
    call(site, "logs", "show", "--since", "2026-11-30T12:00:00Z", "--until", "2026-11-30T12:00:00Z")


def test_when_the_archive_before_was_taken_is_a_time_or_null(site: Site) -> None:
    call(site, "logs", "rotate")
    with site.logs[0].open("a") as file:
        file.write("a new line\n")
    call(site, "logs", "rotate")
    one, other = asked(site, "logs", "show")["data"]["archives"]
    assert (one["since"], other["since"]) == (None, one["taken"])


def test_archives_of_one_day_are_read_in_order_by_hand(site: Site) -> None:
    written = site.logs[0].read_text()
    for number in range(3):
        call(site, "logs", "rotate")
        with site.logs[0].open("a") as file:
            file.write(f"line {number}\n")
        written += f"line {number}\n"
    call(site, "logs", "rotate")
    for path in (site.backups / "logs-archive").iterdir():
        os.utime(path, (0, 0))  # as after a copy that keeps no times
    page = (Path(__file__).parents[3] / "docs/how-to/restore-by-hand.md").read_text()
    [command] = re.findall(r"^## Logs$.*?^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    command = command.replace("tail -n 3", "cat")
    done = subprocess.run(["sh", "-euc", command], cwd=site.root, capture_output=True, text=True, check=True)
    assert done.stdout == written
