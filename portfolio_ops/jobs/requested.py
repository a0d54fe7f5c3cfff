"""Backups that were asked for: by a file in `run/triggers/`, or by the API, which puts one there."""

import contextlib
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError, foreseen
from portfolio_ops.host import messages
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs.daily import backup_daily
from portfolio_ops.jobs.gallery import backup_asked
from portfolio_ops.jobs.run import GALLERY, make_folders
from portfolio_ops.store import inlet, requests, runs
from portfolio_ops.store.artifact import Artifact
from portfolio_ops.store.lock import held
from portfolio_ops.store.requests import Answer, Request

_LOCK = "requests"
_REST = 4.0
"""A backup on an event is followed by a rest, so many times as long: without end, they take a fifth of the time."""

_REST_MOST = 60.0


def make_requested(site: Site, *, wait: timedelta) -> list[Artifact]:
    """Make the backups that wait to be made, and those that are asked for meanwhile. Nobody's request is lost.

    Requests that wait at the same time share one backup: it holds what each of them wanted to be kept. One that fails
    goes on waiting, for the next call.

    Args:
        wait: How long to wait for another run, of this or of a job that it does.

    Raises:
        PortfolioOpsError: A backup could not be made; the others were.
    """
    log = Log(site=site.name, job="requests")
    made: list[Artifact] = []
    make_folders(site)
    with held(site.state, _LOCK, wait=wait, on_wait=lambda _: None):
        requests.forget_old(site.state)
        while True:
            _take(site, log)
            waiting = requests.waiting(site.state)
            if not waiting:
                return made
            failures = [*_dailies(site, waiting, made, wait), *_galleries(site, waiting, made, wait)]
            if failures:
                raise failures[0]


def _take(site: Site, log: Log) -> None:
    """Empty the folder, so that whoever watches it for systemd comes to rest."""
    for refused in inlet.drain(site.root, lambda request: requests.keep(site.state, request)):
        log.event(
            messages.TRIGGER_REFUSED,
            f"{refused.name} asks for no backup: {refused.reason}",
            file=str(refused.path),
            suggestion=f"see {refused.path.parent}; correct it, and move it into {inlet.TRIGGERS} again",
        )


def _dailies(site: Site, waiting: Sequence[Request], made: list[Artifact], wait: timedelta) -> list[PortfolioOpsError]:
    asked = [request for request in waiting if request.wants == requests.DAILY]
    return _answered(site, asked, lambda: backup_daily(site, wait=wait).made[0], made) if asked else []


def _galleries(
    site: Site, waiting: Sequence[Request], made: list[Artifact], wait: timedelta
) -> list[PortfolioOpsError]:
    batch = requests.next_batch(site.state, waiting)
    if batch is None:
        return []
    _rest(site)
    return _answered(site, batch.requests, lambda: backup_asked(site, batch, wait=wait), made)


def _answered(
    site: Site, asked: Sequence[Request], make: Callable[[], Artifact], made: list[Artifact]
) -> list[PortfolioOpsError]:
    """Make a backup, and tell all who asked for it what became of it; gives what failed."""
    try:
        artifact = make()
    except Exception as error:
        if (failure := foreseen(error)) is None:
            raise
        with contextlib.suppress(OSError):  # a full disk may be the failure
            for request in asked:
                requests.end(site.state, request, Answer(requests.FAILED, error=failure.message, code=failure.code))
        return [failure]
    made.append(artifact)
    for request in asked:
        requests.end(site.state, request, Answer(requests.DONE, artifact.path.name, artifact.id, artifact.bytes))
    return []


def _rest(site: Site) -> None:
    """Let some time pass since the last event's backup. Whoever asks without end shall not have the disk to himself."""
    record = runs.read(site.state, GALLERY.name)
    if record is None or not record.latest.ended:
        return
    began, ended = (datetime.fromisoformat(each) for each in (record.latest.started, record.latest.ended))
    rest = min(_REST * (ended - began).total_seconds(), _REST_MOST) - (datetime.now(UTC) - ended).total_seconds()
    time.sleep(min(max(0.0, rest), _REST_MOST))
