"""The site's own program: stop it, start it, ask whether it runs and whether it is well."""

import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta

from portfolio_ops.config import Backend
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.http import HttpError, get
from portfolio_ops.host.identity import as_root
from portfolio_ops.host.journal import one_line

_POLL = 0.25
_QUICK = 30.0
_REQUEST = 5.0
_STILL_RUNNING = 3.0
_SAID_MOST = 300
_READ_MOST = 1 << 20


class BackendError(PortfolioOpsError):
    """The backend could not be stopped or started, or is not well."""

    code = "BACKEND"


class UnfinishedError(BackendError):
    """A program did not end in time. What it began may go on."""


def is_known(backend: Backend) -> bool:
    """Whether it can be stopped and started."""
    return bool(backend.stop)


def is_running(backend: Backend) -> bool:
    """Whether it runs.

    Raises:
        BackendError: It cannot be asked.
    """
    done = _call(backend.status, _QUICK)
    if backend.running_service:
        if done.returncode != 0:
            raise BackendError(
                f"`{' '.join(backend.status)}` failed: {_said(done)}", suggestion="check [backend] compose and service"
            )
        return backend.running_service in done.stdout.split()
    return done.returncode == 0


def stop(backend: Backend) -> None:
    """Stop it, and wait until its program for that has ended.

    Raises:
        BackendError: It failed, or took longer than its patience.
    """
    _must(backend.stop, backend.patience, "the backend could not be stopped")


def start(backend: Backend) -> None:
    """Start it.

    Raises:
        BackendError: It failed, or took longer than its patience.
    """
    _must(backend.start, backend.patience, "the backend could not be started")


def wait_until_stopped(backend: Backend, progress: Callable[[str], None]) -> None:
    """After a stop that was not seen to end: wait for as long as its patience, until it does not run.

    Raises:
        BackendError: It cannot be asked.
    """
    deadline = time.monotonic() + backend.patience.total_seconds()
    while is_running(backend) and (left := deadline - time.monotonic()) > 0:
        progress(f"Waiting for {backend.described} to stop, as it was asked to: {math.ceil(left)} s at most")
        time.sleep(_POLL)


def wait_until_well(backend: Backend, progress: Callable[[str], None]) -> None:
    """Wait for its health URL to answer with 2xx; without one, see that it still runs after a few seconds.

    Raises:
        BackendError: It is not well within its patience.
    """
    if not backend.health:
        time.sleep(_STILL_RUNNING)
        if not is_running(backend):
            raise BackendError("the backend does not run any more, seconds after its start", suggestion=_LOOK)
        return
    deadline, answer = time.monotonic() + backend.patience.total_seconds(), "nothing yet"
    while time.monotonic() < deadline:
        try:
            get(backend.health, _REQUEST)
        except HttpError as error:
            answer = str(error)
        else:
            return
        progress(f"Waiting for {backend.health}: {answer}")
        time.sleep(_POLL)
    raise BackendError(
        f"the backend was not well within {int(backend.patience.total_seconds())} s: {backend.health}: {answer}",
        suggestion=_LOOK,
    )


_LOOK = "read the backend's own log (docker compose logs, journalctl)"


def _must(argv: tuple[str, ...], patience: timedelta, what: str) -> None:
    done = _call(argv, patience.total_seconds())
    if done.returncode != 0:
        raise BackendError(
            f"{what}: `{' '.join(argv)}` ended with {done.returncode}: {_said(done)}",
            suggestion="run that command by hand; correct [backend] in the configuration",
        )


def _call(argv: tuple[str, ...], seconds: float) -> "subprocess.CompletedProcess[str]":
    """Run one of its programs as root, in a session of its own: a Ctrl-C is ours to handle, not theirs.

    What it says goes to files: a daemon that it leaves behind may keep a pipe open for ever.
    """
    try:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, as_root():
            done = subprocess.run(  # noqa: S603  (an argument list from the configuration, which is root's)
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=seconds,
                check=False,
                start_new_session=True,
                cwd="/",
                env={**os.environ, "LC_ALL": "C"},
            )
            texts = [os.pread(file.fileno(), _READ_MOST, 0).decode(errors="replace") for file in (out, err)]
            return subprocess.CompletedProcess(argv, done.returncode, *texts)
    except subprocess.TimeoutExpired as error:
        raise UnfinishedError(
            f"`{' '.join(argv)}` did not end within {int(seconds)} s", suggestion="give it longer: [backend] patience"
        ) from error
    except OSError as error:
        raise BackendError(
            f"`{argv[0]}` cannot be run: {error.strerror}", suggestion="correct [backend] in the configuration"
        ) from error


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    words = " ".join((done.stderr.strip() or done.stdout.strip() or "it said nothing").split())
    return one_line(words[-_SAID_MOST:])
