"""Telling people, with receivers that really listen, fail and hang."""

import http.server
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Alert
from portfolio_ops.jobs import alert as alerts
from portfolio_ops.jobs.alert import FAILED, STARTED, SUCCEEDED, tell

UNIT = "portfolio-backup-daily@shop.service"
NOBODY = Alert("", "", (), "")
TOOL = Path(sys.executable).with_name("portfolio-ops")


class Receiver:
    """An HTTP server that keeps what it is sent, and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def events(self) -> list[str]:
        return [json.loads(body)["event"] for path, body in self.got if path == "/hook"]

    def paths(self) -> list[str]:
        return [path for path, _ in self.got]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(alerts, "_PAUSES", (0.0, 0.0, 0.0))
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def both(receiver: Receiver) -> Alert:
    return replace(NOBODY, webhook=f"{receiver.url}/hook", ping=f"{receiver.url}/ping/{{job}}")


def test_a_failure_is_told_once_and_a_recovery_once(receiver: Receiver, both: Alert, tmp_path: Path) -> None:
    for event in (SUCCEEDED, FAILED, FAILED, FAILED, SUCCEEDED, SUCCEEDED, FAILED):
        assert tell(both, tmp_path, event, UNIT, "words") == []
    assert receiver.events() == ["failed", "recovered", "failed"]
    hook = json.loads(next(body for path, body in receiver.got if path == "/hook"))
    assert (hook["site"], hook["job"], hook["unit"], hook["message"]) == ("shop", "backup-daily", UNIT, "words")
    assert hook["text"] == hook["content"] == "shop: backup-daily failed: words"


def test_a_failure_that_lasts_is_told_again_after_a_day(receiver: Receiver, both: Alert, tmp_path: Path) -> None:
    tell(both, tmp_path, FAILED, UNIT, "words")
    [memory] = tmp_path.iterdir()
    document = json.loads(memory.read_text())
    document["told"] = (datetime.now(UTC) - timedelta(hours=25)).isoformat()
    memory.write_text(json.dumps(document))
    tell(both, tmp_path, FAILED, UNIT, "words")
    tell(both, tmp_path, FAILED, UNIT, "words")
    assert receiver.events() == ["failed", "failed"]
    assert (
        json.loads(receiver.got[-2][1] if receiver.paths()[-2] == "/hook" else receiver.got[-1][1] or b"{}") is not None
    )
    assert "since" in str(receiver.got)


def test_units_are_remembered_apart(receiver: Receiver, both: Alert, tmp_path: Path) -> None:
    tell(both, tmp_path, FAILED, UNIT, "words")
    tell(both, tmp_path, FAILED, UNIT.replace("daily", "social"), "words")
    tell(both, tmp_path, SUCCEEDED, UNIT, "")
    assert receiver.events() == ["failed", "failed", "recovered"]


def test_the_monitor_hears_of_every_run(receiver: Receiver, both: Alert, tmp_path: Path) -> None:
    for event in (STARTED, FAILED, STARTED, SUCCEEDED):
        tell(both, tmp_path, event, UNIT, "words")
    pings = [path for path in receiver.paths() if path != "/hook"]
    assert pings == [f"/ping/backup-daily{end}" for end in ("/start", "/fail", "/start", "")]


def test_a_receiver_is_tried_three_times_and_keeps_no_other_from_being_told(receiver: Receiver, both: Alert) -> None:
    receiver.answers = [500, 503]
    assert tell(replace(both, ping=""), None, FAILED, UNIT, "words") == []
    assert len(receiver.got) == 3
    dead = replace(both, webhook="http://127.0.0.1:9/hook")
    [why] = tell(dead, None, FAILED, UNIT, "words")
    assert why.startswith("webhook: ")
    assert receiver.paths()[-1] == "/ping/backup-daily/fail"


def test_a_receiver_that_never_answers_is_left(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    monkeypatch.setattr(alerts, "_SECONDS", 0.3)
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as silent:  # accepts nothing
        began = time.monotonic()
        url = f"http://127.0.0.1:{silent.server_address[1]}/hook"
        [why] = tell(replace(NOBODY, webhook=url), None, FAILED, UNIT, "words")
    assert "timed out" in why
    assert time.monotonic() - began < 5
    assert receiver.got == []


def test_secrets_come_from_credentials(
    receiver: Receiver, both: Alert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = replace(both, webhook="credential:chat", ping="")
    assert "there are no credentials here" in tell(hidden, None, FAILED, UNIT, "words")[0]
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert "cannot be read" in tell(hidden, None, FAILED, UNIT, "words")[0]
    (tmp_path / "chat").write_text(f"{receiver.url}/hook\n")
    assert tell(hidden, None, FAILED, UNIT, "words") == []
    assert receiver.events() == ["failed"]


def test_a_command_gets_the_object(receiver: Receiver, tmp_path: Path) -> None:
    target = tmp_path / "told"
    program = replace(NOBODY, command=("tee", str(target)))
    assert tell(program, None, FAILED, UNIT, "; rm -rf $(x)") == []
    assert json.loads(target.read_text())["message"] == "; rm -rf $(x)"
    assert tell(replace(NOBODY, command=("false",)), None, FAILED, UNIT, "x") != []
    assert tell(replace(NOBODY, command=("/no/such/program",)), None, FAILED, UNIT, "x") != []
    assert receiver.got == []


def test_mail_goes_by_sendmail_or_else_by_the_mail_server(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, target = tmp_path / "sendmail", tmp_path / "mail"
    program.write_text(f"#!/bin/sh\ncat > {target}\n")
    program.chmod(0o755)
    monkeypatch.setattr(alerts, "_SENDMAIL", str(program))
    mail = replace(NOBODY, mail="owner@example.org")
    assert tell(mail, None, FAILED, UNIT, "words\nBcc: evil@example.org") == []
    text = target.read_text()
    assert "To: owner@example.org" in text
    assert "Subject: [shop] backup-daily failed" in text
    assert "\nBcc:" not in text.partition("\n\n")[0]

    monkeypatch.setattr(alerts, "_SENDMAIL", "/no/such/sendmail")
    with Post() as post:
        monkeypatch.setattr(alerts, "_MAIL_SERVER", post.server_address)
        threading.Thread(target=post.handle_request, daemon=True).start()
        assert tell(mail, None, FAILED, UNIT, "words") == []
        assert "Subject: [shop] backup-daily failed" in post.mail
    assert receiver.got == []


class Post(socketserver.TCPServer):
    """A mail server that takes one mail (RFC 5321)."""

    def __init__(self) -> None:
        self.mail = ""
        super().__init__(("127.0.0.1", 0), _Dialogue)


class _Dialogue(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.mail = b"".join(lines).decode()  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
            if word == b"QUIT":
                return


def command(site_file: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [TOOL, "--json", "alert", *words],
        env={**os.environ, "PORTFOLIO_OPS_CONFIG": str(site_file), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_tells_the_journal_whatever_the_configuration(tmp_path: Path) -> None:
    done = command(tmp_path / "none.toml", UNIT, MONITOR_SERVICE_RESULT="exit-code", MONITOR_EXIT_STATUS="7")
    assert done.returncode == 0, done.stderr
    assert "failed for good: exit-code, exit status 7" in done.stderr
    data: dict[str, Any] = json.loads(done.stdout)["data"]
    assert data["event"] == "failed"
    for words, result, event in (
        (["--start"], "", "started"),
        (["--success"], "success", "succeeded"),
        (["--success"], "exit-code", None),  # between two tries
    ):
        done = command(tmp_path / "x", *words, UNIT, MONITOR_SERVICE_RESULT=result)
        assert json.loads(done.stdout)["data"]["event"] == event
        assert "failed for good" not in done.stderr
