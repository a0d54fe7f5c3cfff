"""A whole backup for the beginning of a timeline, made while the database is followed."""

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host import messages
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import child
from portfolio_ops.store import catalogue, timeline

if TYPE_CHECKING:
    import subprocess

_BYTES_PER_SECOND = 5e6
"""Bases follow each other no faster than that: some 5 % of the time that a disk takes for them."""

_PAUSES = (10.0, 60.0, 600.0)
_LOOK_AGAIN = 0.5


class Base:
    """What a timeline begins with: there already, or made as soon as it is due.

    Args:
        since: When the timeline began.
        resumed: Whether it is gone on with.
    """

    def __init__(self, site: Site, log: Log, since: datetime, *, resumed: bool) -> None:
        self._site, self._log = site, log
        self._process: subprocess.Popen[bytes] | None = None
        newest = catalogue.newest_database(catalogue.scan(site.backups, site.name))
        # Whatever was taken since the timeline began, lies in it; nothing that there is when it begins.
        self.is_there = resumed and newest is not None and newest.taken >= since
        self._due, self._failures = self._first_due(), 0

    def _first_due(self) -> float:
        """Now; but a service that is started again and again does not fill the disk with bases."""
        newest = timeline.newest_base(self._site.backups, self._site.name)
        if newest is None:
            return 0.0
        apart = timedelta(seconds=newest.metadata.content.bytes / _BYTES_PER_SECOND)
        wait = (newest.taken + apart - datetime.now(UTC)).total_seconds()
        return time.monotonic() + min(max(0.0, wait), apart.total_seconds())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        child.end(self._process)

    def next_look(self, now: float) -> float:
        """When to look again, as of time.monotonic(3)."""
        if self._process is not None:
            return now + _LOOK_AGAIN
        return float("inf") if self.is_there else self._due

    def look(self) -> None:
        """Begin it when it is due, and see whether it has ended."""
        if self._process is None and not self.is_there and time.monotonic() >= self._due:
            self._process = child.begin(self._site, "archive", "base")
        if self._process is None or self._process.poll() is None:
            return
        self.is_there = self._process.returncode == 0
        if not self.is_there:
            pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
            self._due, self._failures = time.monotonic() + pause, self._failures + 1
            self._log.event(
                messages.ARCHIVE_FAILED,
                "The base of the timeline could not be made"
                f" (exit code {self._process.returncode}); again in {pause:.0f} s",
            )
        self._process = None

    def require_no_failure(self) -> None:
        """For who does not wait for another try.

        Raises:
            PortfolioOpsError: It could not be made.
        """
        if self._failures:
            raise PortfolioOpsError(
                "the base of the timeline could not be made, so none of its moments can be restored",
                suggestion="look what it said above; `portfolio-ops backup daily` makes one as well",
            )
