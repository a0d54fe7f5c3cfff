"""A day of a site's life in the archive, in minutes: what the daemon does at each flush, with a clock that is moved on.

    python -m benchmarks.day CONFIG COMMITS

The commits are spread over 24 hours, one for each flush. A base is made first, then each commit is read from the WAL,
verified and appended by the product's own parts, to a file for each hour. Only the waiting is left out, and that each
flush is made durable by itself. It says when the day began and ended.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import apsw

from benchmarks.bench import TOOL, run
from benchmarks.site import transactions
from portfolio_ops import config
from portfolio_ops.config import Site
from portfolio_ops.jobs.chapter import Chapter
from portfolio_ops.sqlite.pin import pinned
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.tail import Tail
from portfolio_ops.sqlite.wal_index import WalIndex
from portfolio_ops.store import timeline

if TYPE_CHECKING:
    from apsw import Bindings

DAY = timedelta(days=1)
_SEAL_FRAMES = 900  # about as jobs/pace.py: a little before 1,000
_BUDGET = 0.5


class Clock:
    """What the flushes take for the time."""

    def __init__(self, now: datetime) -> None:
        self.now = now


def archived(tail: Tail, chapter: Chapter, clock: Clock) -> Callable[[WalIndex], None]:
    """What brings the WAL's new commits into the archive."""

    def archive(index: WalIndex) -> None:
        with tail.changes(index) as changes:
            if changes is not None:
                chapter.append(
                    changes.pages(),
                    changes.database_pages,
                    changes.since,
                    changes.position,
                    clock.now,
                    durable=False,
                )

    return archive


def live(site: Site, commits: int) -> tuple[datetime, datetime]:
    """Let the site commit for a day, and archive it.

    Returns:
        When the day began and ended.
    """
    with pinned(site.database) as pin, contextlib.closing(apsw.Connection(str(site.database))) as connection:
        index = pin.look()
        name = timeline.new_id(datetime.now(UTC))
        timeline.folder_of(site.backups, name).mkdir(parents=True)
        tail = Tail(pin, Position(index.salts.hex(), index.frames))
        tail.begin()
        run([TOOL, "--config", site.file, "archive", "base"])
        clock = Clock(datetime.now(UTC))
        began = clock.now
        connection.pragma("synchronous", "normal")
        with contextlib.closing(Chapter(site, name, pin.page_size, None, None)) as chapter:
            archive = archived(tail, chapter, clock)
            for transaction in transactions(commits):
                clock.now += DAY / commits
                with connection:
                    for statement, values in transaction:
                        connection.execute(statement, cast("Bindings", values))  # numbers and text
                index = pin.look()
                archive(index)
                index = pin.advance(index)
                if index.frames >= _SEAL_FRAMES:
                    pin.seal(archive, _BUDGET)
            chapter.sync()
        return began, clock.now


if __name__ == "__main__":
    first, last = live(config.load(Path(sys.argv[1])), int(sys.argv[2]))
    print(json.dumps([first.isoformat(), last.isoformat()]))
