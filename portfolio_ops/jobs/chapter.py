"""The files of one timeline as they are written: one for each hour."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.files import free_bytes, reserve_bytes
from portfolio_ops.host.journal import unhurried
from portfolio_ops.moment import local
from portfolio_ops.sqlite.increment import RAW, Head, Link
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from portfolio_ops.sqlite.lineage import TimelineEndedError
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.store import timeline

_STEPS_BACK = timedelta(seconds=2)
"""What a time server may take a clock back by: time stands still for so long then."""

_EXPANDS = 8
"""How much more there may be to check in a file than it has bytes: what compresses better is done faster."""


class Chapter:
    """The file of the hour, and the next one when that is over.

    Args:
        last: When the last flush was seen; None where there is none.
        based: When the backup was taken that the first flush is to be replayed on, where there is one.
    """

    def __init__(
        self,
        site: Site,
        name: str,
        page_size: int,
        link: Link | None,
        last: datetime | None,
        *,
        based: datetime | None = None,
    ) -> None:
        self._site, self._name, self._page_size, self._link = site, name, page_size, link
        began = min(timeline.began(name), datetime.now(UTC))
        self._earliest = began if based is None else max(began, based)
        self._writer: IncrementWriter | None = None
        self._hour = ""
        self.last = last

    def append(
        self,
        pages: Iterator[tuple[int, bytes]],
        database_pages: int,
        since: Position,
        position: Position,
        seen: datetime,
        *,
        durable: bool,
    ) -> bytes:
        """Add a flush, durable at once or after the next `sync`; gives the hash that names it.

        Raises:
            TimelineEndedError: The clock went back: moments would no longer be in order. Or the file was lost.
            OSError: The disk is full or fails.
            RefusedError: The disk has come to the site's reserve.
        """
        before = self.last or self._earliest
        if seen < before:
            if before - seen > _STEPS_BACK:
                words = f"the clock went back from {local(before)} to {local(seen)}"
                raise TimelineEndedError(words, in_order=True)
            seen = before
        writer = self._writer_of(seen)
        self.require_named(seen)
        require_room(self._site.backups)
        cut = writer.append(pages, database_pages, since, position, seen, durable=durable)
        self.last, self._link = seen, writer.link
        return cut.chain

    def _writer_of(self, seen: datetime) -> IncrementWriter:
        name = timeline.name_of(seen)
        if self._writer is None or name != self._hour:
            self.close()
            path = timeline.folder_of(self._site.backups, self._name) / name
            if path.exists():
                with unhurried(path.stat().st_size * _EXPANDS):
                    self._writer = IncrementWriter.resume(path)
            else:
                head = Head(self._site.name, self._name, self._page_size, RAW, self._link)
                self._writer = IncrementWriter.create(path, head)
            self._hour = name
        return self._writer

    def require_named(self, now: datetime) -> None:
        """Check that the file of the hour is found under its name. One whose hour is over may be merged, or let go.

        Raises:
            TimelineEndedError: It is not, as after an rm, or where a folder of backups was copied over this one.
        """
        if self._writer is not None and self._hour == timeline.name_of(now):
            try:
                self._writer.require_named()
            except TimelineEndedError as error:
                raise TimelineEndedError(f"{error.message}, and with it the moments that are in no copy") from error

    def sync(self) -> None:
        """Make durable what is not yet.

        Raises:
            OSError: The disk fails.
        """
        if self._writer is not None:
            self._writer.sync()

    def close(self) -> None:
        """Let go of the file, once all of it is durable.

        Raises:
            OSError: The disk fails.
        """
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with contextlib.closing(writer):
                writer.sync()


def require_room(backups: Path) -> None:
    """Check that the site's reserve on the disk is left.

    Raises:
        PortfolioOpsError: It is not.
    """
    if free_bytes(backups) < reserve_bytes(backups):
        raise PortfolioOpsError(
            f"the disk of {backups} has come to the reserve that is left to the site",
            suggestion=f"free some space: `{tool()} prune --explain` shows what may go, with --yes it deletes that;"
            " or shorten [retention]. The archive goes on by itself then, with a fresh base",
        )
