"""What following a database is, whether it has a WAL or not: a timeline that begins, rests, orders, and stalls told."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from portfolio_ops.config import Site
from portfolio_ops.host import messages
from portfolio_ops.host.files import fsync_directory
from portfolio_ops.host.inotify import Watch
from portfolio_ops.host.journal import Log, notify
from portfolio_ops.store import timeline

EVERY = 1.0
"""Seconds between two flushes at least: the resolution of what can be restored."""

ALIVE = 20.0
"""Seconds of a rest at most: a third of the unit's WatchdogSec=."""


@dataclass
class Orders:
    """What a follower is told while it runs."""

    stop: bool = False
    """End, with everything archived that is committed by then."""

    give_way: Callable[[], bool] = lambda: False
    """Whether a restore waits to exchange the database: the same then."""


def begin_timeline(site: Site, log: Log) -> str:
    """Begin a timeline, durably, once the database was looked at: what is taken from now on, lies in it."""
    name = timeline.following_id(site.backups, datetime.now(UTC))
    folder = timeline.folder_of(site.backups, name)
    folder.mkdir(mode=0o750, parents=True)
    fsync_directory(folder.parent)
    log.event(messages.TIMELINE_BEGUN, f"Timeline {name} begins", timeline=name)
    return name


class Rest:
    """Waiting for a change, while the service manager hears that all is well, and where it is.

    Args:
        names: The files of which a change is waited for.

    Attributes:
        is_closed: Whether the last rest was ended by the closing of a file.
    """

    def __init__(self, watch: Watch, names: set[Path]) -> None:
        self._watch, self._names, self._told, self.is_closed = watch, names, "", False

    def take(self, seconds: float, status: str, *, dirty: bool, closing: Path | None = None) -> bool:
        """Rest, and give whether there was a change: until then; where it is `dirty` already, all of the time.

        Args:
            closing: The closing of this file ends it as well. It does not rest if that was not listened for before: it
                may have been closed by now.
        """
        notify("WATCHDOG=1")
        if status != self._told:
            notify(f"STATUS={status}")
            self._told = status
        self.is_closed = False
        if self._watch.closing(closing):
            return dirty
        # A busy site would wake us at each of its writes, to tell what we know.
        changed = self._watch.pause(seconds) if dirty else self._watch.wait(seconds)
        self.is_closed = closing in changed
        return dirty or not self._names.isdisjoint(changed)


class Stalls:
    """For how long the site's writers were held off; told when it is longer than the budget, and than ever before."""

    def __init__(self, site: Site, log: Log) -> None:
        self._budget, self._log, self._longest = site.archive.stall_budget.total_seconds(), log, 0.0

    def tell(self, seconds: float, why: str = "") -> None:
        """A stall came to an end."""
        if seconds > max(self._budget, self._longest):
            self._log.event(
                messages.WRITERS_HELD,
                f"The site's writers were held for {seconds * 1000:.0f} ms{why}; the budget is"
                f" {self._budget * 1000:.0f} ms",
                stall=round(seconds, 4),
            )
        self._longest = max(self._longest, seconds)
