"""The archive: a daemon that follows the database, gives way to restores, and goes on by itself after any trouble."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType

import apsw

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import BusyError, NotFoundError, PortfolioOpsError, explained
from portfolio_ops.host import messages
from portfolio_ops.host.inotify import Watch
from portfolio_ops.host.journal import Log, notify
from portfolio_ops.jobs.database import back_up
from portfolio_ops.jobs.follow import Follower
from portfolio_ops.jobs.follow_pages import PageFollower
from portfolio_ops.jobs.following import Orders
from portfolio_ops.jobs.run import BASE, Outcome, run_job, waiting
from portfolio_ops.sqlite.connection import explained as explained_by_sqlite
from portfolio_ops.sqlite.lineage import TimelineEndedError
from portfolio_ops.sqlite.look import has_wal, opened
from portfolio_ops.sqlite.pin import pinned
from portfolio_ops.sqlite.place import located
from portfolio_ops.sqlite.tail import DamagedWalError
from portfolio_ops.store import runs, timeline
from portfolio_ops.store.ended import Ended, note
from portfolio_ops.store.lock import ARCHIVING, EXCHANGE, PINNED, held, holder_of, is_held

_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_POLL = 0.2
_ENDS_AT_ONCE = 3
"""How many timelines in a row may end within a minute, before that is a fault that lasts."""


class StateReplacedError(PortfolioOpsError):
    """The lock that keeps a second archive out is no longer where that one would look for it."""

    code = "STATE_REPLACED"


def archive(site: Site, *, once: bool, wait: timedelta) -> None:
    """Follow the database until SIGTERM or SIGINT; or, if `once`, archive what is committed now.

    Raises:
        BusyError: Another one runs for longer than `wait`.
        StateReplacedError: Another could begin.
        PortfolioOpsError: If `once`: it failed. Otherwise it is told, and tried again.
    """
    log, orders = Log(site=site.name, job="archive"), Orders()
    with (
        held(site.state, ARCHIVING, wait=wait, on_wait=waiting(log, "the archive")) as alone,
        Watch() as watch,
        _stopping(orders, watch),
    ):
        orders.give_way = lambda: _must_give_way(site, alone)
        notify("READY=1")
        failures, failed, ends, ended = 0, "", 0, ""
        while not orders.stop:
            began = time.monotonic()
            try:
                _pass(site, log, watch, orders, ended, once=once)
                failures = 0
                if once or orders.stop:
                    runs.finish(site.state, ARCHIVING, succeeded=True, message="stopped")
                    return
            except (TimelineEndedError, DamagedWalError) as error:
                ended = _ended(site, log, error)
                ends = ends + 1 if time.monotonic() - began < _PAUSES[-1] else 0
                if once and ends > _ENDS_AT_ONCE:
                    raise
                if ends:
                    _rest(watch, orders, _PAUSES[max(0, min(ends - _ENDS_AT_ONCE, len(_PAUSES) - 1))])
            except StateReplacedError:
                raise
            except (PortfolioOpsError, OSError, apsw.Error) as error:
                failure = _ours(error, site)
                if once:
                    raise failure from error
                if failure.code != failed or time.monotonic() - began > _PAUSES[-1]:
                    failures, failed = 0, failure.code
                _tell(site, log, failure, failures)
                missing = Path(os.path.realpath(site.database)) if isinstance(failure, NotFoundError) else None
                _rest(watch, orders, _PAUSES[min(failures, len(_PAUSES) - 1)], missing)
                failures += 1


def archive_once(site: Site, *, wait: timedelta) -> None:
    """Archive what is committed now; beside one that runs there is nothing to do, and to wait for a service has no end.

    Raises:
        BusyError: One runs, and longer than `wait`.
        PortfolioOpsError: As `archive`.
    """
    if not wait and is_held(site.state, ARCHIVING):
        process = holder_of(site.state, ARCHIVING)
        raise BusyError(
            f"the site is archived already, by {f'process {process}' if process else 'another process'}",
            suggestion=f"what is committed is archived by that one: see {tool()} status;"
            " or wait until it ends with --wait 10m",
        )
    archive(site, once=True, wait=wait)


def _must_give_way(site: Site, alone: Callable[[], bool]) -> bool:
    """Whether a restore waits to exchange the database.

    Raises:
        StateReplacedError: Nothing keeps others out any more.
    """
    if not alone():
        raise StateReplacedError(
            f"{site.state} was replaced while the archive ran",
            suggestion=f"systemd starts it again; by hand: {tool()} archive run. Copy backups before you deploy",
        )
    return is_held(site.state, EXCHANGE)


def make_base(site: Site, *, wait: timedelta) -> Outcome:
    """Make, verify and publish `wal/base-....sqlite.zst`: what a timeline begins with.

    Raises:
        PortfolioOpsError: Nothing was published.
    """
    return run_job(site, BASE, lambda task: [back_up(task, "base-%Y-%m-%d-%H%M%S", {})], wait=wait)


def _pass(site: Site, log: Log, watch: Watch, orders: Orders, ended: str, *, once: bool) -> None:
    """From opening the database to closing it: until told to stop, or until a restore waits."""
    while orders.give_way() and not orders.stop:
        _rest(watch, orders, _POLL)
    watch.add(located(site.database).parent)
    watch.add(site.state)
    with held(site.state, PINNED, wait=timedelta(), on_wait=lambda _: None), contextlib.ExitStack() as hold:
        follower: Follower | PageFollower
        if has_wal(site.database):
            pin = hold.enter_context(pinned(site.database))
            runs.begin(site.state, ARCHIVING)
            follower = Follower(site, pin, log, watch, orders, ended=ended)
        else:
            looker = hold.enter_context(opened(site.database, site.state))
            runs.begin(site.state, ARCHIVING)
            follower = PageFollower(site, looker, log, watch, orders, ended=ended)
        follower.run(once=once)


def _ended(site: Site, log: Log, error: TimelineEndedError | DamagedWalError) -> str:
    """Tell that the newest timeline ended, and note it for a person if neither the site nor a clock did it.

    Gives its name. The next begins as well where that cannot be noted.
    """
    kind = messages.TIMELINE_ENDED if isinstance(error, TimelineEndedError) else messages.WAL_DAMAGED
    log.event(kind, f"The timeline ended: {error.message}", suggestion=error.suggestion)
    if not (isinstance(error, TimelineEndedError) and error.in_order):
        with contextlib.suppress(OSError):
            note(site.state, Ended(datetime.now(UTC), error.message))
    return next(reversed(timeline.own(site.backups, site.name)), "")


def _tell(site: Site, log: Log, failure: PortfolioOpsError, failures: int) -> None:
    """A failure that lasts is told when it begins, and then each time the pause has become longer."""
    with contextlib.suppress(OSError):  # a full disk may be the failure
        runs.begin(site.state, ARCHIVING)
        runs.finish(site.state, ARCHIVING, succeeded=False, message=failure.message)
    notify(f"STATUS=Not archiving: {failure.message}")
    if failures < len(_PAUSES):
        log.event(
            messages.ARCHIVE_FAILED,
            f"Nothing is archived: {failure.message}",
            error=failure.code,
            suggestion=failure.suggestion,
        )


def _rest(watch: Watch, orders: Orders, seconds: float, missing: Path | None = None) -> None:
    """A pause, ended by an order to stop; or by the coming of a file that was missing."""
    deadline = time.monotonic() + seconds
    while not orders.stop and (left := deadline - time.monotonic()) > 0:
        notify("WATCHDOG=1")
        if missing in watch.wait(min(left, 1.0)):
            return
        if left > _POLL:
            time.sleep(_POLL)  # the site's writes would wake us all the time


def _ours(error: PortfolioOpsError | OSError | apsw.Error, site: Site) -> PortfolioOpsError:
    if isinstance(error, PortfolioOpsError):
        return error
    return explained(error) if isinstance(error, OSError) else explained_by_sqlite(error, site.database)


@contextlib.contextmanager
def _stopping(orders: Orders, watch: Watch) -> Iterator[None]:
    """SIGTERM and SIGINT end it with everything archived, instead of unwinding."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (signal(2)'s signature)
        orders.stop = True
        watch.interrupt()

    before: dict[int, Callable[..., object] | int | None] = {
        number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
