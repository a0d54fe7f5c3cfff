"""Telling people: a scheduled run has failed for good, or is well again. A dead receiver fails nothing but itself.

systemd calls this after a job's last try (OnFailure=) and, where somebody wants to know, after a success (OnSuccess=)
and at a start (Wants=). It runs in a unit of its own, so that no job ever waits for a receiver. Runs by hand tell
nobody.
"""

import json
import os
import smtplib
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from portfolio_ops.config import Alert
from portfolio_ops.errors import ConfigurationError
from portfolio_ops.host import messages
from portfolio_ops.host.files import write_atomically
from portfolio_ops.host.http import HttpError, post
from portfolio_ops.host.journal import Log, one_line

FAILED, RECOVERED, STARTED, SUCCEEDED = "failed", "recovered", "started", "succeeded"

_REMIND_AFTER = timedelta(hours=24)
_PAUSES = (0.0, 2.0, 8.0)
_SECONDS = 10.0
_CREDENTIAL = "credential:"
_SENDMAIL = "/usr/sbin/sendmail"
_MAIL_SERVER = ("127.0.0.1", 25)


@dataclass(frozen=True)
class Word:
    """What is told.

    Attributes:
        event: `failed`, `recovered`, `started` or `succeeded`.
        since: When it failed first; empty unless it is `recovered` or has been told before.
    """

    event: str
    unit: str
    message: str
    since: str

    @property
    def site(self) -> str:
        """The site's name."""
        return self.unit.partition("@")[2].rpartition(".")[0]

    @property
    def job(self) -> str:
        """The job's name, as in `portfolio-<job>@<site>.service`."""
        return self.unit.partition("@")[0].removeprefix("portfolio-")

    @property
    def line(self) -> str:
        """It in one line."""
        since = f" (since {self.since})" if self.since else ""
        return one_line(f"{self.site}: {self.job} {self.event}{since}: {self.message}")

    def document(self) -> dict[str, Any]:
        """It for programs. `text` and `content` are what chat services show."""
        return {
            "event": self.event,
            "site": self.site,
            "job": self.job,
            "unit": self.unit,
            "host": socket.gethostname(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "since": self.since,
            "message": self.message,
            "text": self.line,
            "content": self.line,
        }


def tell(alert: Alert, state: Path | None, event: str, unit: str, message: str) -> list[str]:
    """Tell everybody who wants to know.

    A failure is told once, and again a day later if it lasts; a recovery once, if a failure was told. The ping hears of
    every run, since it judges by itself what is late.

    Args:
        alert: Who wants to know.
        state: Where is remembered what was told; None remembers nothing.
        event: `failed`, `succeeded` or `started`, as systemd says.

    Returns:
        The receivers that could not be reached, each with the reason.
    """
    since, told = _remembered(state, unit)
    now = datetime.now(UTC)
    unreached = _each({"ping": lambda: _ping(alert, Word(event, unit, message, ""))} if alert.ping else {})
    if event == FAILED and (told is None or now - told >= _REMIND_AFTER):
        unreached += _each(_receivers(alert, Word(FAILED, unit, message, since)))
        _remember(state, unit, since or now.isoformat(timespec="seconds"), now)
    elif event == SUCCEEDED and since:
        word = Word(RECOVERED, unit, message, since)
        unreached += _each(_receivers(alert, word))
        _forget(state, unit)
        Log(site=word.site, job=word.job).event(
            messages.RECOVERED, f"{unit} is well again, after failures since {since}", unit=unit
        )
    return unreached


def _receivers(alert: Alert, word: Word) -> dict[str, Callable[[], None]]:
    ways: dict[str, Callable[[], None]] = {}
    if alert.webhook:
        ways["webhook"] = lambda: _post(alert.webhook, json.dumps(word.document()).encode(), "application/json")
    if alert.mail:
        ways["mail"] = lambda: _mail(alert.mail, word)
    if alert.command:
        ways["command"] = lambda: _run(alert.command, json.dumps(word.document()).encode())
    return ways


def _each(ways: dict[str, Callable[[], None]]) -> list[str]:
    """Try each receiver, again after a pause; one that cannot be reached keeps no other from being told."""
    unreached = []
    for name, way in ways.items():
        why = ""
        for pause in _PAUSES:
            time.sleep(pause)
            try:
                way()
            except (OSError, HttpError, smtplib.SMTPException, subprocess.SubprocessError, ConfigurationError) as error:
                why = str(error) or type(error).__name__
            else:
                why = ""
                break
        if why:
            unreached.append(f"{name}: {why}")
    return unreached


def _ping(alert: Alert, word: Word) -> None:
    """Healthchecks' way: the URL itself for a success, /start and /fail behind it (<https://healthchecks.io/docs/>)."""
    base = _revealed(alert.ping).replace("{job}", word.job).rstrip("/")
    ending = {STARTED: "/start", FAILED: "/fail"}.get(word.event, "")
    post(base + ending, word.message.encode(), "text/plain; charset=utf-8", _SECONDS)


def _post(url: str, body: bytes, content_type: str) -> None:
    post(_revealed(url), body, content_type, _SECONDS)


def _revealed(value: str) -> str:
    """A value, or the secret that it names (systemd.exec(5), LoadCredential=).

    Raises:
        ConfigurationError: There is no such credential.
    """
    if not value.startswith(_CREDENTIAL):
        return value
    name, folder = value.removeprefix(_CREDENTIAL), os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        raise ConfigurationError([f"there are no credentials here, {name} is one"])
    try:
        return (Path(folder) / name).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError([f"the credential {name} cannot be read: {error.strerror}"]) from error


def _mail(address: str, word: Word) -> None:
    """By the host's sendmail; where that needs rights that the sandbox does not give, by the host's mail server."""
    mail = EmailMessage()
    mail["To"], mail["From"] = address, f"portfolio-ops@{socket.gethostname()}"
    mail["Subject"] = f"[{word.site}] {word.job} {word.event}"
    mail["Auto-Submitted"] = "auto-generated"
    facts = {key: value for key, value in word.document().items() if key not in {"text", "content"}}
    mail.set_content("\n".join(f"{key}: {value}" for key, value in facts.items()))
    try:
        _run((_SENDMAIL, "-i", "-t"), mail.as_bytes())
    except (OSError, subprocess.SubprocessError):
        with smtplib.SMTP(*_MAIL_SERVER, timeout=_SECONDS) as server:
            server.send_message(mail)


def _run(argv: tuple[str, ...], text: bytes) -> None:
    subprocess.run(  # noqa: S603  (an argument list from the configuration, which is root's)
        argv, input=text, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_SECONDS, check=True
    )


def _remembered(state: Path | None, unit: str) -> tuple[str, datetime | None]:
    """Since when it has failed, and when that was told last."""
    try:
        document = json.loads(_path(state, unit).read_bytes()) if state is not None else {}
        return str(document["since"]), datetime.fromisoformat(document["told"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", None


def _remember(state: Path | None, unit: str, since: str, told: datetime) -> None:
    if state is not None:
        write_atomically(_path(state, unit), json.dumps({"since": since, "told": told.isoformat()}).encode())


def _forget(state: Path | None, unit: str) -> None:
    if state is not None:
        _path(state, unit).unlink(missing_ok=True)


def _path(state: Path, unit: str) -> Path:
    return state / f"{unit.replace('/', '-')}.json"
