"""Telling people, with receivers that really listen, fail and hang."""

import http.server
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops import config
from portfolio_ops.cli import main
from portfolio_ops.config import Alert
from portfolio_ops.host.http import HttpError, get, post
from portfolio_ops.jobs import alert as alerts
from portfolio_ops.jobs.alert import FAILED, STARTED, SUCCEEDED, tell

UNIT = "portfolio-backup-daily@shop.service"
NOBODY = Alert("", "", (), "")
TOOL = Path(sys.executable).with_name("portfolio-ops")
UNITS = Path(__file__).parents[2] / "systemd"


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
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def hooks(self) -> list[dict[str, str]]:
        return [json.loads(body) for path, body in self.got if path == "/hook"]

    def events(self) -> list[str]:
        return [hook["event"] for hook in self.hooks()]

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
    first, second = receiver.hooks()
    assert first["since"] == ""
    assert second["since"] == document["since"] != ""
    assert second["text"] == f"shop: backup-daily failed (since {document['since']}): words"


def test_a_failure_that_was_told_in_the_future_is_told(receiver: Receiver, both: Alert, tmp_path: Path) -> None:
    tell(both, tmp_path, FAILED, UNIT, "words")
    [memory] = tmp_path.iterdir()
    document = json.loads(memory.read_text())
    document["told"] = (datetime.now(UTC) + timedelta(days=900)).isoformat()
    memory.write_text(json.dumps(document))
    for _ in range(3):
        tell(both, tmp_path, FAILED, UNIT, "words")
    assert receiver.events() == ["failed", "failed"]


DOWN = [500, 500, 500]


def test_a_failure_that_reached_nobody_is_told_with_the_next(
    receiver: Receiver, both: Alert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = replace(both, ping="")
    receiver.answers = list(DOWN)
    assert len(tell(hook, tmp_path, FAILED, UNIT, "first")) == 1
    receiver.got.clear()
    [memory] = tmp_path.iterdir()
    since = json.loads(memory.read_text())["since"]
    monkeypatch.setattr(alerts, "datetime", Later)
    for event in (FAILED, FAILED, SUCCEEDED, SUCCEEDED):
        assert tell(hook, tmp_path, event, UNIT, "words") == []
    assert [(hook["event"], hook["since"]) for hook in receiver.hooks()] == [("failed", since), ("recovered", since)]
    assert datetime.now(UTC) - datetime.fromisoformat(since) < timedelta(minutes=1)


class Later(datetime):
    """An hour later."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.now(tz) + timedelta(hours=1)


def test_a_reminder_that_reached_nobody_is_told_with_the_next(receiver: Receiver, both: Alert, tmp_path: Path) -> None:
    hook = replace(both, ping="")
    tell(hook, tmp_path, FAILED, UNIT, "words")
    [memory] = tmp_path.iterdir()
    document = json.loads(memory.read_text())
    document["told"] = (datetime.now(UTC) - timedelta(hours=25)).isoformat()
    memory.write_text(json.dumps(document))
    receiver.answers = list(DOWN)
    tell(hook, tmp_path, FAILED, UNIT, "words")
    receiver.got.clear()
    for _ in range(2):
        tell(hook, tmp_path, FAILED, UNIT, "words")
    assert [hook["since"] for hook in receiver.hooks()] == [document["since"]]


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a run puts into the journal."""
    lines: list[str] = []

    class Recorder:
        def __init__(self, **_: str) -> None:
            pass

        def event(self, _: object, text: str, **__: str) -> None:
            lines.append(text)

    monkeypatch.setattr(alerts, "Log", Recorder)
    return lines


def test_a_recovery_that_reached_nobody_is_told_with_the_next_success(
    receiver: Receiver, both: Alert, tmp_path: Path, journal: list[str]
) -> None:
    hook = replace(both, ping="")
    tell(hook, tmp_path, FAILED, UNIT, "words")
    since = json.loads(next(tmp_path.iterdir()).read_text())["since"]
    receiver.answers = [*DOWN, *DOWN]
    for _ in range(2):
        assert len(tell(hook, tmp_path, SUCCEEDED, UNIT, "")) == 1
    receiver.got.clear()
    for _ in range(2):
        assert tell(hook, tmp_path, SUCCEEDED, UNIT, "") == []
    assert [(hook["event"], hook["since"]) for hook in receiver.hooks()] == [("recovered", since)]
    assert journal == [f"{UNIT} is well again, after failures since {since}"]
    assert list(tmp_path.iterdir()) == []


def test_a_failure_after_a_recovery_that_reached_nobody_is_a_new_one(
    receiver: Receiver, both: Alert, tmp_path: Path, journal: list[str]
) -> None:
    hook = replace(both, ping="")
    tell(hook, tmp_path, FAILED, UNIT, "words")
    receiver.answers = list(DOWN)
    tell(hook, tmp_path, SUCCEEDED, UNIT, "")
    receiver.got.clear()
    for event in (FAILED, FAILED, SUCCEEDED):
        tell(hook, tmp_path, event, UNIT, "words")
    assert receiver.events() == ["failed", "recovered"]
    assert receiver.hooks()[0]["since"] == ""
    assert len(journal) == 2


def test_one_receiver_that_was_reached_is_enough(receiver: Receiver, both: Alert, tmp_path: Path) -> None:
    half = replace(both, ping="", command=("false",))
    for event in (FAILED, FAILED, SUCCEEDED, SUCCEEDED):
        tell(half, tmp_path, event, UNIT, "words")
    assert receiver.events() == ["failed", "recovered"]
    # The monitor is no receiver: that it heard of a failure tells nobody what failed.
    receiver.answers = [200, *DOWN]
    tell(both, tmp_path, FAILED, UNIT, "words")
    receiver.got.clear()
    tell(both, tmp_path, FAILED, UNIT, "words")
    assert receiver.events() == ["failed"]


def test_where_nobody_wants_to_know_all_is_remembered_as_told(
    receiver: Receiver, both: Alert, tmp_path: Path, journal: list[str]
) -> None:
    assert tell(NOBODY, tmp_path, FAILED, UNIT, "words") == []
    assert tell(both, tmp_path, FAILED, UNIT, "words") == []
    assert receiver.events() == []
    assert tell(NOBODY, tmp_path, SUCCEEDED, UNIT, "words") == []
    assert list(tmp_path.iterdir()) == []
    assert len(journal) == 1


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


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("/ping/{job}?create=1&rid=a/b", "/ping/backup-daily/fail?create=1&rid=a/b"),
        ("/ping/{job}/?create=1", "/ping/backup-daily/fail?create=1"),
        ("/ping/{job}/", "/ping/backup-daily/fail"),
        ("", "/fail"),
        ("?key=1", "/fail?key=1"),
    ],
)
def test_the_ending_of_a_ping_is_behind_its_path(receiver: Receiver, url: str, asked: str) -> None:
    assert tell(replace(NOBODY, ping=receiver.url + url), None, FAILED, UNIT, "words") == []
    assert receiver.paths() == [asked]


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


class Dripper(socketserver.ThreadingTCPServer):
    """Answers with one byte in a while, which is soon enough for any limit of a read."""

    daemon_threads = True

    def __init__(self, beginning: bytes) -> None:
        self.beginning = beginning
        super().__init__(("127.0.0.1", 0), _Drops)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Drops(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            self.request.sendall(self.server.beginning)  # type: ignore[attr-defined]
            for _ in range(120):
                self.request.sendall(b"x")
                time.sleep(0.05)
        except OSError:
            return


def minutes(unit: str) -> float:
    """The TimeoutStartSec= of a unit, in seconds."""
    [limit] = [line for line in (UNITS / unit).read_text().splitlines() if line.startswith("TimeoutStartSec=")]
    return 60 * float(limit.partition("=")[2].removesuffix("min"))


@pytest.mark.slow
def test_all_receivers_together_take_less_time_than_their_unit_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty times as fast as it is, with receivers that are as slow as they can be."""
    limit = min(minutes(f"portfolio-{name}@.service") for name in ("alert", "well", "ping"))
    monkeypatch.setattr(alerts, "_PAUSES", tuple(pause / 30 for pause in alerts._PAUSES))
    monkeypatch.setattr(alerts, "_SECONDS", alerts._SECONDS / 30)
    sendmail = tmp_path / "sendmail"
    sendmail.write_text("#!/bin/sh\nexec sleep 60\n")
    sendmail.chmod(0o755)
    monkeypatch.setattr(alerts, "_SENDMAIL", str(sendmail))
    with Dripper(b"HTTP/1.1 200 OK\r\nX: ") as web, Dripper(b"220-") as server:
        monkeypatch.setattr(alerts, "_MAIL_SERVER", server.server_address)
        url = f"http://127.0.0.1:{web.server_address[1]}/"
        began = time.monotonic()
        unreached = tell(Alert(url, "owner@example.org", ("sleep", "60"), url), None, FAILED, UNIT, "words")
        took = time.monotonic() - began
    assert unreached == [f"{name}: timed out" for name in ("ping", "webhook", "mail", "command")]
    assert took * 30 < limit


def test_a_receiver_that_drips_keeps_no_other_from_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    monkeypatch.setattr(alerts, "_SECONDS", 0.3)
    began = time.monotonic()
    with Dripper(b"HTTP/1.1 200 OK\r\nX: ") as web:
        url = f"http://127.0.0.1:{web.server_address[1]}/"
        unreached = tell(Alert(url, "", ("tee", str(tmp_path / "told")), url), None, FAILED, UNIT, "words")
    assert unreached == ["ping: timed out", "webhook: timed out"]
    assert json.loads((tmp_path / "told").read_text())["event"] == "failed"
    assert time.monotonic() - began < 5
    assert receiver.got == []


def test_a_name_that_is_looked_up_for_ever_is_left(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    monkeypatch.setattr(alerts, "_SECONDS", 0.3)
    gone = threading.Event()

    def lookup(*_: object) -> None:
        gone.wait(10)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    began = time.monotonic()
    assert tell(replace(NOBODY, webhook="http://receiver/"), None, FAILED, UNIT, "x") == ["webhook: timed out"]
    gone.set()
    assert time.monotonic() - began < 5
    assert receiver.got == []


BAD = {
    "no scheme": b"hooks.example.com/services/SECRETTOKEN",
    "empty": b"",
    "a line end alone": b"\n",
    "not text": b"https://hooks.example.com/SECRET\xff",
    "half an address": b"http://[::1/SECRET",
    "a space": b"https://hooks.example.com/services/SECRET TOKEN",
    "two lines": b"https://hooks.example.com/services/SECRET\nTOKEN",
    "a control character": b"https://hooks.example.com/services/SECRET\0TOKEN",
    "no host": b"https:///SECRET",
    "no port": b"http://127.0.0.1:SECRET/TOKEN",
    "a file": b"file:///etc/passwd?SECRET",
    "ftp": b"ftp://127.0.0.1/SECRET",
    "data": b"data:,SECRET",
    "not ASCII": "http://127.0.0.1:9/SECRET/\u00fc".encode(),
    "dead": b"http://127.0.0.1:9/SECRET",
    "with a password": b"http://SECRET:TOKEN@127.0.0.1:9/",
    "no such host": b"http://SECRET.invalid/TOKEN",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_secret_is_not_shown_and_silences_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver, name: str
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "chat").write_bytes(BAD[name])
    alert = Alert("credential:chat", "", ("tee", str(tmp_path / "told")), "credential:chat")
    unreached = tell(alert, None, FAILED, UNIT, "words")
    assert [why.partition(": ")[0] for why in unreached] == ["ping", "webhook"]
    shown = " ".join(unreached)
    assert not [word for word in ("SECRET", "TOKEN", "example", "passwd", "//127") if word in shown], shown
    if name not in {"dead", "with a password", "not ASCII", "no such host"}:
        assert shown.count("the credential chat is not") == 2
    assert json.loads((tmp_path / "told").read_text())["event"] == "failed"
    assert receiver.got == []


def test_a_url_of_the_configuration_is_not_shown_either(receiver: Receiver) -> None:
    [why] = tell(replace(NOBODY, webhook="http://[::1/SECRET"), None, FAILED, UNIT, "words")
    assert why == "webhook: it is not a URL of http or https, and nothing besides"
    assert receiver.got == []


class Raw(socketserver.TCPServer):
    """Answers everything with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/services/SECRET"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Answer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(65536)
        self.request.sendall(self.server.answer)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 /services/SECRET is unknown\r\n\r\n", "answered 404 Not Found"),
        (b"HTTP/1.1 799 /services/SECRET is unknown\r\n\r\n", "answered 799"),
        (b"/services/SECRET what?\r\n\r\n", "BadStatusLine"),
        (b"", "RemoteDisconnected"),
    ],
)
def test_what_the_other_side_says_of_the_url_is_not_shown(receiver: Receiver, answer: bytes, words: str) -> None:
    with Raw(answer) as server:
        assert tell(replace(NOBODY, webhook=server.url), None, FAILED, UNIT, "words") == [f"webhook: {words}"]
    assert receiver.got == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1:9/x", "data:,x"])
@pytest.mark.parametrize("call", [lambda url: get(url, 2), lambda url: post(url, b"x", "text/plain", 2)])
def test_nothing_but_http_is_an_answer(receiver: Receiver, call: Callable[[str], None], target: str) -> None:
    with pytest.raises(HttpError) as found:
        call(target)
    assert target not in str(found.value)
    with Raw(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n".encode()) as server, pytest.raises(HttpError) as found:
        call(server.url)
    assert target not in str(found.value)
    assert receiver.got == []


def test_a_redirect_is_followed_by_who_asks_and_not_by_who_tells(receiver: Receiver) -> None:
    with (
        Raw(b"HTTP/1.1 204 No Content\r\n\r\n") as well,
        Raw(f"HTTP/1.1 302 Found\r\nLocation: {well.url}\r\n\r\n".encode()) as elsewhere,
    ):
        get(elsewhere.url, 2)
        assert tell(replace(NOBODY, webhook=elsewhere.url), None, FAILED, UNIT, "x") == ["webhook: answered 302 Found"]
    assert receiver.got == []


def test_an_answer_is_one_before_its_body_has_come(receiver: Receiver) -> None:
    with Dripper(b"HTTP/1.1 200 OK\r\n\r\n") as server:
        get(f"http://127.0.0.1:{server.server_address[1]}/", 1)
    assert receiver.got == []


def test_an_address_with_a_line_end_silences_nobody(tmp_path: Path, receiver: Receiver) -> None:
    alert = Alert("", "owner@example.org\nBcc: evil@example.org", ("tee", str(tmp_path / "told")), "")
    assert tell(alert, None, FAILED, UNIT, "words") == ["mail: it is not an address"]
    assert json.loads((tmp_path / "told").read_text())["event"] == "failed"
    assert receiver.got == []


def test_no_fault_of_one_receiver_reaches_another(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("SECRET")

    monkeypatch.setattr(urllib.request, "Request", broken)
    alert = Alert(f"{receiver.url}/hook", "", ("tee", str(tmp_path / "told")), f"{receiver.url}/ping")
    assert tell(alert, None, FAILED, UNIT, "words") == ["ping: RuntimeError", "webhook: RuntimeError"]
    assert json.loads((tmp_path / "told").read_text())["event"] == "failed"


def test_the_arguments_of_a_command_are_not_shown(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "_SECONDS", 0.2)
    for argv, words in ((("sh", "-c", "exit 3 # SECRET"), "it ended with 3"), (("sleep", "60", "0"), "timed out")):
        assert tell(replace(NOBODY, command=argv), None, FAILED, UNIT, "x") == [f"command: {words}"]
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


def test_what_nobody_could_be_told_for_a_fault_of_the_configuration_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, told = tmp_path / "shop.toml", tmp_path / "told"
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(config, "DIRECTORY", tmp_path)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    file.write_text("[site\n")
    assert main.run(["alert", UNIT]) == 0
    file.write_text(f'[site]\nroot = "{tmp_path}"\n[alert]\ncommand = ["tee", "{told}"]\n')
    assert main.run(["alert", UNIT]) == 0
    assert json.loads(told.read_text())["event"] == "failed"
    file.write_text("[site\n")
    monkeypatch.setenv("MONITOR_SERVICE_RESULT", "success")
    assert main.run(["alert", "--success", UNIT]) == 0
    assert len(list((tmp_path / "state").iterdir())) == 1
