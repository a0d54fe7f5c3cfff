"""A whole backup for the beginning of a timeline, made while the database is followed."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host import messages
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import child
from portfolio_ops.restore.history import history_of
from portfolio_ops.sqlite.lineage import TimelineEndedError
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.store import timeline
from portfolio_ops.store.artifact import Kind

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

_BYTES_PER_SECOND = 5e6
"""Bases follow each other no faster than that: some 5 % of the time that a disk takes for them."""

_PAUSES = (10.0, 60.0, 600.0)
_LOOK_AGAIN = 0.5
_ASK_AGAIN = 60.0
"""Seconds after which it is asked again whether a base that was there is there still."""


class Leads:
    """Whether a whole backup leads to the moments of a timeline: one that was made while nobody followed need not.

    Which one does is read from the archive once.

    Args:
        name: The timeline's.
        end: Gives where the timeline ends by now. Where it has no moment yet, a base stands there.
    """

    def __init__(self, site: Site, name: str, end: Callable[[], Position]) -> None:
        self._site, self._name, self._end = site, name, end
        self._path: Path | None = None

    def __call__(self) -> bool:
        """Look.

        Raises:
            TimelineEndedError: The timeline itself is gone.
        """
        if self._path is None or not self._path.exists():
            if not timeline.folder_of(self._site.backups, self._name).is_dir():
                raise TimelineEndedError(f"timeline {self._name} was removed while it was followed")
            end = self._end()
            bases = history_of(self._site, self._name).bases
            leading = [base.artifact.path for base in bases if base.places or base.position == end]
            self._path = leading[-1] if leading else None
        return self._path is not None


class Base:
    """What a timeline begins with: there already, or made as soon as it is due.

    Args:
        leads: Whether a whole backup leads to its moments.
        resumed: Whether it is gone on with.
    """

    def __init__(self, site: Site, log: Log, leads: Callable[[], bool], *, resumed: bool) -> None:
        self._site, self._log, self._leads = site, log, leads
        self._process: subprocess.Popen[bytes] | None = None
        self._folders = self._changed()
        # Nothing that there is when the timeline begins, lies in it.
        self.is_there = resumed and leads()
        self._due, self._failures = self._first_due(), 0
        self._ask_at = time.monotonic() + _ASK_AGAIN

    def _changed(self) -> list[int]:
        """When a name came into each folder of whole backups, or went, at last: none is lost without that."""
        times = []
        for kind in Kind:
            if kind.holds_database:
                try:
                    times.append((self._site.backups / kind.folder).stat().st_mtime_ns)
                except OSError:
                    times.append(0)
        return times

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
        return self._ask_at if self.is_there else self._due

    def look(self) -> None:
        """Begin it when it is due, and see whether it has ended; and whether one that was there is there still."""
        if self.is_there and time.monotonic() >= self._ask_at:
            self._ask()
        if self._process is None and not self.is_there and time.monotonic() >= self._due:
            self._process = child.begin(self._site, "archive", "base")
        if self._process is None or self._process.poll() is None:
            return
        self.is_there = self._process.returncode == 0
        self._folders, self._ask_at = self._changed(), time.monotonic() + _ASK_AGAIN
        if not self.is_there:
            pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
            self._due, self._failures = time.monotonic() + pause, self._failures + 1
            self._log.event(
                messages.ARCHIVE_FAILED,
                "The base of the timeline could not be made"
                f" (exit code {self._process.returncode}); again in {pause:.0f} s",
                suggestion=_cure(),
            )
        self._process = None

    def _ask(self) -> None:
        """See whether it was lost: what is found to be bad is put away, and retention lets others go."""
        before, self._folders = self._folders, self._changed()
        self._ask_at = time.monotonic() + _ASK_AGAIN
        if self._folders == before or self._leads():
            return
        self.is_there = False
        self._log.event(
            messages.ARCHIVE_FAILED,
            "No whole backup leads to the moments of the timeline any more: another is made",
            suggestion="nothing, unless that fails too, which is told; who removed the last one?",
        )

    def require_no_failure(self) -> None:
        """For who does not wait for another try.

        Raises:
            PortfolioOpsError: It could not be made.
        """
        if self._failures:
            raise PortfolioOpsError(
                "the base of the timeline could not be made, so none of its moments can be restored",
                suggestion=_cure(),
            )


def _cure() -> str:
    return f"why is told just before this; `{tool()} backup daily` makes one as well, or says what to do"
