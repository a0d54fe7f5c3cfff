"""Seeing that galleries were added, beside the archive: rows of a table, each in the backup of one event.

What is known, and what waits for its backup, is remembered before anything is done about it. So whatever is killed
when, a row is in one event, and an event has one backup.
"""

import secrets
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, Self

import apsw

from portfolio_ops.config import Gallery, Site
from portfolio_ops.errors import PortfolioOpsError, explained
from portfolio_ops.host import messages
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import child
from portfolio_ops.sqlite import rows
from portfolio_ops.store import sightings
from portfolio_ops.store.sightings import Batch, Sightings

if TYPE_CHECKING:
    import subprocess

_QUIET = 5.0
"""Seconds without another row after which the backup begins: whoever adds one may be adding more."""

_LONGEST = 30.0  # it begins so long after the first row at the latest
_ALIVE = 1.0  # how often to see whether it has ended
_PAUSES = (10.0, 30.0, 60.0, 300.0, 600.0)
_LISTED_NAME = 200


class Source(Protocol):
    """What the archive has the database open with."""

    @property
    def inode(self) -> int:
        """The database file's."""

    @property
    def reader(self) -> apsw.Connection:
        """A connection to ask the database something."""


class Detector:
    """The rows of one table, while its database is followed. Nothing that fails here reaches the archive.

    Args:
        source: Held by the caller.
    """

    def __init__(self, site: Site, source: Source, log: Log) -> None:
        self._site, self._source, self._log = site, source, log
        self._known: Sightings | None = None
        self._begun = False
        self._process: subprocess.Popen[bytes] | None = None
        self._first = self._last = time.monotonic()  # of the rows that wait
        self._not_before = 0.0
        self._failures = 0
        self._behind = False  # a look failed, and what it would have seen may be the last change for long
        self._looked = ""
        self._told = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        child.end(self._process)

    def _remembered(self, gallery: Gallery) -> Sightings | None:
        """What was known when the archive last ended; None where that is of no use, which is told."""
        try:
            known = sightings.read(self._site.state)
        except (PortfolioOpsError, OSError) as error:
            why = (error if isinstance(error, PortfolioOpsError) else explained(error)).message
        else:
            if known is None:
                why = "nothing is remembered"
            elif known.inode != self._source.inode:
                why = "the database was replaced"
            elif (known.table, known.column) != (gallery.table, gallery.name):
                why = "another table was watched"
            else:
                return known
        self._log.event(
            messages.GALLERIES_WATCHED, f"Rows that are added to {gallery.table} from now on are events: {why}"
        )
        return None

    def look(self) -> None:
        """See what was added; for after a flush."""
        gallery, moment = self._site.gallery, datetime.now(UTC).isoformat()
        if gallery is None:
            return
        if not self._begun:
            self._known, self._begun = self._remembered(gallery), True
        marks = None if self._known is None else self._known.marks
        try:
            found = rows.look(self._source.reader, gallery.table, gallery.name, marks)
        except (PortfolioOpsError, apsw.Error) as error:
            self._tell(str(error))
            if isinstance(error, apsw.Error):
                self._behind = True
                self._not_before = time.monotonic() + _PAUSES[0]
            return
        known = self._known or Sightings(self._source.inode, gallery.table, gallery.name, ())
        now = replace(known, marks=found.marks)
        if found.added:
            now = replace(now, waiting=_joined(now.waiting, found, self._looked))
        self._behind = now != self._known and not self._keep(now)
        if not self._behind:
            self._tell("" if found.is_there else f"there is no table {gallery.table} yet")
            self._looked = moment
            if found.added:
                self._last = time.monotonic()
                self._first = self._first if known.waiting else self._last

    def due(self) -> float | None:
        """When there is something to do by the monotonic clock, even if nothing happens; None for never."""
        if self._process is not None:
            return time.monotonic() + _ALIVE
        if self._behind:
            return self._not_before
        if self._known is None or (self._known.begun is None and self._known.waiting is None):
            return None
        rest = 0.0 if self._known.begun else min(self._last + _QUIET, self._first + _LONGEST)
        return max(rest, self._not_before)

    def tend(self) -> None:
        """Begin the backup when it is due, and see whether it has ended."""
        if self._process is not None:
            if self._process.poll() is not None:
                self._ended(self._process.returncode)
            return
        due = self.due()
        if due is None or time.monotonic() < due:
            return
        if self._behind:
            self.look()
        elif self._known is not None:
            begun = replace(self._known, begun=self._known.waiting, waiting=None)
            if self._known.begun is not None or self._keep(begun):
                self._begin()

    def _begin(self) -> None:
        try:
            self._process = child.begin(self._site, "archive", "gallery")
        except OSError as error:  # no memory for a process
            self._failed(explained(error).message)

    def _ended(self, code: int) -> None:
        self._process = None
        if code:
            self._failed(f"exit code {code}")
        elif self._known is not None and self._keep(replace(self._known, begun=None)):
            self._failures = 0

    def _failed(self, why: str) -> None:
        pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        self._failures += 1
        self._not_before = time.monotonic() + pause
        self._log.event(
            messages.GALLERY_WAITS,
            f"The backup for rows that were added could not be made ({why}); again in {pause:.0f} s",
        )

    def _keep(self, known: Sightings) -> bool:
        """Remember; gives whether that was done. What is not on disk is not known, either."""
        try:
            sightings.write(self._site.state, known)
        except OSError as error:
            self._not_before = time.monotonic() + _PAUSES[0]
            self._tell(explained(error).message)
            return False
        self._known = known
        return True

    def _tell(self, trouble: str) -> None:
        """Say what is in the way, once for as long as it is."""
        if trouble and trouble != self._told:
            self._log.event(messages.GALLERIES_UNWATCHED, f"No gallery is seen to be added: {trouble}")
        self._told = trouble


def _joined(waiting: Batch | None, found: rows.Look, before: str) -> Batch:
    """Rows that were found, with those that wait already."""
    first, last = found.added[0], found.added[-1]
    names = [row.name[:_LISTED_NAME] for row in found.added]
    if waiting is not None:
        names = [*waiting.names, *names]
    return Batch(
        request=waiting.request if waiting else secrets.token_hex(8),
        first=min(waiting.first, first.mark.rowid) if waiting else first.mark.rowid,
        last=max(waiting.last, last.mark.rowid) if waiting else last.mark.rowid,
        names=tuple(names[: rows.NAMES_MOST]),
        more=found.more or len(names) > rows.NAMES_MOST or (waiting is not None and waiting.more),
        name=last.name,
        before=waiting.before if waiting else before,
    )
