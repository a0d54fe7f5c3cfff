"""Telling people: a scheduled run has failed for good, or is well again. A dead receiver fails nothing but itself.

systemd calls this after a job's last try (OnFailure=) and, where somebody wants to know, after a success (OnSuccess=)
and at a start (Wants=). It runs in a unit of its own, so that no job ever waits for a receiver. Runs by hand tell
nobody.
"""

import json
import smtplib
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from portfolio_ops.config import Alert
from portfolio_ops.errors import ConfigurationError
from portfolio_ops.host import credentials, messages
from portfolio_ops.host.files import write_atomically
from portfolio_ops.host.http import HttpError, is_url, post, within
from portfolio_ops.host.journal import Log, one_line

FAILED, RECOVERED, STARTED, SUCCEEDED = "failed", "recovered", "started", "succeeded"

_REMIND_AFTER = timedelta(hours=24)
# If nobody answers, mail takes 70 s (by sendmail, then by the server), each other receiver 40 s: all four fit into the
# TimeoutStartSec= of the units, so that none is cut off.
_PAUSES = (0.0, 2.0, 8.0)
_SECONDS = 10.0
_SENDMAIL = "/usr/sbin/sendmail"
_MAIL_SERVER = ("127.0.0.1", 25)


@dataclass(frozen=True)
class Word:
    """What is told.

    Attributes:
        event: `failed`, `recovered`, `started` or `succeeded`.
        since: When it failed first; empty for a first failure.
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


@dataclass(frozen=True)
class _Memory:
    """What is remembered of a unit that has failed.

    Attributes:
        since: When it failed first.
        told: When somebody was told of it last; None if nobody could be.
        well: Whether it is well again, and nobody could be told of that.
    """

    since: str
    told: datetime | None
    well: bool


def tell(alert: Alert, state: Path | None, event: str, unit: str, message: str) -> list[str]:
    """Tell everybody who wants to know.

    A failure is told once, and again a day later if it lasts; a recovery once. What reached nobody is told with the
    next run. The ping hears of every run, since it judges by itself what is late.

    Args:
        alert: Who wants to know.
        state: Where is remembered what was told; None remembers nothing.
        event: `failed`, `succeeded` or `started`, as systemd says.

    Returns:
        The receivers that could not be reached, each with the reason.
    """
    memory, word = _remembered(state, unit), Word(event, unit, message, "")
    unreached = _each({"ping": lambda: _ping(alert, word)} if alert.ping else {})
    if event == FAILED:
        unreached += _tell_failure(alert, state, word, memory)
    elif event == SUCCEEDED and memory is not None:
        unreached += _tell_recovery(alert, state, replace(word, event=RECOVERED, since=memory.since), memory)
    return unreached


def _tell_failure(alert: Alert, state: Path | None, word: Word, memory: _Memory | None) -> list[str]:
    now = datetime.now(UTC)
    if memory is None or memory.well:
        memory = _Memory(now.isoformat(timespec="seconds"), None, well=False)
    elif memory.told is not None and timedelta() <= now - memory.told < _REMIND_AFTER:
        return []
    else:
        word = replace(word, since=memory.since)
    unreached, anybody = _tell_receivers(alert, word)
    _remember(state, word.unit, replace(memory, told=now) if anybody else memory)
    return unreached


def _tell_recovery(alert: Alert, state: Path | None, word: Word, memory: _Memory) -> list[str]:
    unreached, anybody = _tell_receivers(alert, word)
    if anybody:
        _forget(state, word.unit)
    else:
        _remember(state, word.unit, replace(memory, well=True))
    if not memory.well:
        Log(site=word.site, job=word.job).event(
            messages.RECOVERED, f"{word.unit} is well again, after failures since {word.since}", unit=word.unit
        )
    return unreached


def _tell_receivers(alert: Alert, word: Word) -> tuple[list[str], bool]:
    """Tell the receivers; who was not reached, and whether anybody was, or nobody wants to be."""
    ways = _receivers(alert, word)
    unreached = _each(ways)
    return unreached, not ways or len(unreached) < len(ways)


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
            except Exception as error:  # noqa: BLE001  (whatever is wrong with one, the others are told)
                why = _why(error)
            else:
                why = ""
                break
        if why:
            unreached.append(f"{name}: {why}")
    return unreached


def _why(error: Exception) -> str:
    """Why somebody was not reached. Only texts that hold nothing of a secret: arguments of programs may be one too."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"it ended with {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return "timed out"
    if isinstance(error, OSError | HttpError | smtplib.SMTPException | ConfigurationError):
        return str(error) or type(error).__name__
    return type(error).__name__


def _ping(alert: Alert, word: Word) -> None:
    """Healthchecks' way: the URL itself for a success, /start and /fail behind it (<https://healthchecks.io/docs/>)."""
    url = urllib.parse.urlsplit(_revealed(alert.ping).replace("{job}", word.job))
    path = url.path.rstrip("/") + {STARTED: "/start", FAILED: "/fail"}.get(word.event, "")
    post(url._replace(path=path).geturl(), word.message.encode(), "text/plain; charset=utf-8", _SECONDS)


def _post(url: str, body: bytes, content_type: str) -> None:
    post(_revealed(url), body, content_type, _SECONDS)


def _revealed(value: str) -> str:
    """A URL, or the secret one that it names (systemd.exec(5), LoadCredential=).

    Raises:
        ConfigurationError: There is no such credential, or it is no URL. The secret is not shown.
    """
    who, url = "it", value
    if value.startswith(credentials.PREFIX):
        name = value.removeprefix(credentials.PREFIX)
        who, url = f"the credential {name}", credentials.secret(name)
    if not is_url(url):
        raise ConfigurationError([f"{who} is not a URL of http or https, and nothing besides"])
    return url


def _mail(address: str, word: Word) -> None:
    """By the host's sendmail; where that needs rights that the sandbox does not give, by the host's mail server."""
    mail = EmailMessage()
    try:
        mail["To"] = address
    except ValueError:
        raise ConfigurationError(["it is not an address"]) from None
    mail["From"] = f"portfolio-ops@{socket.gethostname()}"
    mail["Subject"] = f"[{word.site}] {word.job} {word.event}"
    mail["Auto-Submitted"] = "auto-generated"
    facts = {key: value for key, value in word.document().items() if key not in {"text", "content"}}
    mail.set_content("\n".join(f"{key}: {value}" for key, value in facts.items()))
    try:
        _run((_SENDMAIL, "-i", "-t"), mail.as_bytes())
    except (OSError, subprocess.SubprocessError):
        within(_SECONDS, lambda: _by_the_mail_server(mail))


def _by_the_mail_server(mail: EmailMessage) -> None:
    with smtplib.SMTP(*_MAIL_SERVER, timeout=_SECONDS) as server:
        server.send_message(mail)


def _run(argv: tuple[str, ...], text: bytes) -> None:
    subprocess.run(  # noqa: S603  (an argument list from the configuration, which is root's)
        argv, input=text, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_SECONDS, check=True
    )


def _remembered(state: Path | None, unit: str) -> _Memory | None:
    if state is None:
        return None
    try:
        document = json.loads(_path(state, unit).read_bytes())
        told = document["told"]
        return _Memory(
            str(document["since"]),
            None if told is None else datetime.fromisoformat(told).astimezone(UTC),
            well=bool(document.get("well")),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(state: Path | None, unit: str, memory: _Memory) -> None:
    if state is not None:
        told = None if memory.told is None else memory.told.isoformat()
        document = {"since": memory.since, "told": told, "well": memory.well}
        write_atomically(_path(state, unit), json.dumps(document).encode())


def _forget(state: Path | None, unit: str) -> None:
    if state is not None:
        _path(state, unit).unlink(missing_ok=True)


def _path(state: Path, unit: str) -> Path:
    return state / f"{unit.replace('/', '-')}.json"
