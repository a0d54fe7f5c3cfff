"""Where messages go: the journal where it listens, else stderr with priorities; progress to the service manager."""

import os
import socket
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.host import journal, messages
from portfolio_ops.host.journal import Log, notify, one_line, unhurried


@pytest.fixture
def no_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(journal, "_JOURNAL_SOCKET", tmp_path / "none")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, dict[str, Any]]]:
    """What is handed to python3-systemd, which a test cannot make listen."""
    (tmp_path / "socket").touch()
    monkeypatch.setattr(journal, "_JOURNAL_SOCKET", tmp_path / "socket")
    entries: list[tuple[str, dict[str, Any]]] = []
    module = types.ModuleType("systemd")
    module.journal = types.SimpleNamespace(send=lambda text, **fields: entries.append((text, fields)))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "systemd", module)
    return entries


@pytest.mark.usefixtures("no_journal")
def test_without_a_journal_stderr_gets_the_line_with_its_priority(capsys: pytest.CaptureFixture[str]) -> None:
    assert Log(site="shop", job="x").event(messages.JOB_FAILED, "it\nfailed\x1b[0m", error="FAILED")
    captured = capsys.readouterr()
    assert captured.err == "<3>it\\u000afailed\\u001b[0m\n"
    assert captured.out == ""


def test_the_journal_gets_typed_fields_and_stderr_nothing(
    sent: list[tuple[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(site="shop", job="backup-daily")
    assert not log.event(
        messages.PRUNED, "gone", artifact="a\nMESSAGE=forged", bytes=7
    )  # who reads stderr does not know
    [(text, fields)] = sent
    assert text == "gone"
    assert fields == {
        "MESSAGE_ID": messages.PRUNED.id,
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "portfolio-ops",
        "PORTFOLIO_SITE": "shop",
        "PORTFOLIO_JOB": "backup-daily",
        "PORTFOLIO_ARTIFACT": "a\\u000aMESSAGE=forged",
        "PORTFOLIO_BYTES": "7",
    }
    assert capsys.readouterr().err == ""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where a service manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


@pytest.mark.usefixtures("no_journal")
def test_progress_reaches_the_service_manager_at_most_twice_a_second(manager: socket.socket) -> None:
    log = Log(site="shop", job="x")
    for number in range(50):
        log.progress(f"{number} %")
    assert manager.recv(1000) == b"STATUS=0 %"
    with pytest.raises(BlockingIOError):
        manager.recv(1000)
    log.event(messages.PRUNED, "done")
    assert manager.recv(1000) == b"STATUS=done"


def test_the_watchdog_waits_longer_for_what_takes_longer_and_then_as_before(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unhurried(1 << 40):
        pass  # nobody watches
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    with unhurried(4 << 20):
        pass  # nothing to speak of
    with pytest.raises(BlockingIOError):
        manager.recv(1000)
    with unhurried(400_000_000):
        assert manager.recv(1000) == b"WATCHDOG_USEC=160000000"
    assert manager.recv(1000) == b"WATCHDOG_USEC=60000000"


def test_a_service_manager_that_went_away_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("STATUS=x")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("STATUS=x")


def test_stderr_is_the_journals_only_if_it_is_that_very_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "stderr").open("w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert journal.stderr_is_journal()
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        assert not journal.stderr_is_journal()
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not journal.stderr_is_journal()


def test_letters_of_any_script_are_shown_as_they_are() -> None:
    assert one_line("Été 冬 😀 \u202e") == "Été 冬 😀 \\u202e"
