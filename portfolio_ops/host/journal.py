"""What happens, told once: to the journal where there is one, to a person at a terminal, else to stderr.

- Under systemd, or wherever journald listens: a native entry with typed fields. Not also on stderr if that is the
  journal's own stream ($JOURNAL_STREAM, systemd.exec(5)): a unit would log twice.
- At a terminal: the line too.
- Without a journal: stderr, with `<N>` priority prefixes (sd-daemon(3)) if it is not a terminal.

stdout is never used: it belongs to results.
"""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from portfolio_ops.host.messages import Message

_IDENTIFIER = "portfolio-ops"
_JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
_PROGRESS_SECONDS = 0.5
_SLOWEST = 4.0
"""Bytes per microsecond: what a poor disk and half a core make of it when pages are checked, packed and copied."""


class Log:
    """Reports of one job of one site."""

    def __init__(self, *, site: str, job: str) -> None:
        self._site, self._job = site, job
        self._progress_at = 0.0
        self._progress_shown = False

    def event(self, kind: Message, text: str, **fields: str | float) -> bool:
        """Report something that happened.

        Args:
            kind: What it is; gives the entry its id and priority.
            text: One readable line. What of it is not printable (names from outside) is shown escaped.
            fields: Become PORTFOLIO_<NAME>= in the journal.

        Returns:
            Whether who reads stderr has it now: it stands there, or that stream is the journal itself.
        """
        line = one_line(text)
        sent = _send(kind, line, {"site": self._site, "job": self._job, **fields})
        notify(f"STATUS={line}")
        self._clear_progress()
        if sys.stderr.isatty():
            print(line, file=sys.stderr)
            return True
        if not sent:
            print(f"<{kind.priority}>{line}", file=sys.stderr, flush=True)
            return True
        return stderr_is_journal()

    def progress(self, text: str) -> None:
        """Say how far a job is, at most twice a second: to systemd (`STATUS=`), and on a terminal."""
        now = time.monotonic()
        if now - self._progress_at < _PROGRESS_SECONDS:
            return
        self._progress_at = now
        notify(f"STATUS={one_line(text)}")
        if sys.stderr.isatty():
            print(f"\r\x1b[K{one_line(text)}", end="", file=sys.stderr, flush=True)
            self._progress_shown = True

    def _clear_progress(self) -> None:
        if self._progress_shown:
            print("\r\x1b[K", end="", file=sys.stderr)
            self._progress_shown = False


def stderr_is_journal() -> bool:
    """Whether what is written to stderr lands in the journal by itself ($JOURNAL_STREAM, systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not device:
        return False
    status = os.fstat(sys.stderr.fileno())
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def one_line(text: str) -> str:
    """Text that cannot forge a second entry or move a cursor: what is not printable is escaped."""
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)


def _send(kind: Message, line: str, fields: dict[str, Any]) -> bool:
    """Send a native entry; whether it went."""
    if not _JOURNAL_SOCKET.exists():
        return False
    try:
        from systemd import journal  # noqa: PLC0415  (costs 10 ms, and is not installed everywhere)
    except ImportError:
        return False
    typed = {f"PORTFOLIO_{name.upper()}": one_line(str(value)) for name, value in fields.items()}
    try:
        journal.send(line, MESSAGE_ID=kind.id, PRIORITY=str(kind.priority), SYSLOG_IDENTIFIER=_IDENTIFIER, **typed)
    except OSError:
        return False
    return True


def notify(state: str) -> None:
    """Tell the service manager (sd_notify(3)); without one, nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.connect("\0" + address[1:] if address.startswith("@") else address)
            connection.sendall(state.encode())
        except OSError:
            # Progress is a courtesy: a service manager that has gone away must not fail a backup.
            return


@contextlib.contextmanager
def unhurried(work: int) -> Iterator[None]:
    """While the block runs, the watchdog gives it time for so many bytes; afterwards as much as before.

    A hang is still found, only later. A commit of gigabytes would otherwise end the service each time that it is tried.
    See WATCHDOG_USEC= in sd_notify(3).
    """
    usual = int(os.environ.get("WATCHDOG_USEC", "0"))
    if not usual or work / _SLOWEST < usual / 10:  # nobody watches, or nothing to speak of
        yield
        return
    notify(f"WATCHDOG_USEC={usual + int(work / _SLOWEST)}")
    try:
        yield
    finally:
        notify(f"WATCHDOG_USEC={usual}")
