"""A backup's copy of a database without a WAL, handed to the archive: a restore point exactly where the backup stands.

A base must stand exactly at a restore point (`sqlite/difference.py`), and the site goes on between two looks. But such
a backup is made from a copy. The archive looks at that copy as if it were the database then; and whoever makes a copy,
or looks, holds one lock, so that no look comes between a copy and its being handed over.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from portfolio_ops.errors import NotFoundError
from portfolio_ops.host.files import TEMPORARY_PREFIX, open_regular
from portfolio_ops.moment import EPOCH, MICROSECOND
from portfolio_ops.sqlite.snapshot import Snapshot

LOCK = "archive-image"
PATIENCE = timedelta(minutes=2)
"""How long to wait for that lock: a look at a database of some 100 GB takes so long."""

_NAME = "archive-image.sqlite"
_PAGE_SIZE_AT = 16
_LARGEST = 65536  # stands as 1, for it does not fit in 16 bits


@dataclass(frozen=True)
class Offered:
    """A copy.

    Attributes:
        image: Its content.
        seen: When the look began that it shows the database at, UTC.
    """

    image: Snapshot
    seen: datetime


def path_of(state: Path) -> Path:
    """Where it lies."""
    return state / _NAME


def offer(state: Path, image: Snapshot) -> None:
    """Hand a copy over; one that nobody has taken is replaced. Where that fails, the backup matters more.

    Args:
        image: Of a database without a WAL. The caller has held the lock since before it was made.
    """
    temporary = state / f"{TEMPORARY_PREFIX}{_NAME}"
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
        image.name_copy(temporary)
        temporary.replace(path_of(state))


@contextlib.contextmanager
def offered(state: Path) -> Iterator[Offered | None]:
    """What was handed over, for as long as the block runs; None where nothing was. The caller holds the lock.

    Raises:
        PortfolioOpsError: It cannot be opened.
    """
    try:
        descriptor = open_regular(path_of(state))
    except NotFoundError:
        yield None
        return
    try:
        status = os.fstat(descriptor)
        seen = EPOCH + status.st_mtime_ns // 1000 * MICROSECOND
        size = int.from_bytes(os.pread(descriptor, 2, _PAGE_SIZE_AT), "big")
        page_size = _LARGEST if size == 1 else size
        pages = status.st_size // page_size if page_size else 0
        yield Offered(Snapshot(page_size, pages, "", None, seen, descriptor), seen)
    finally:
        os.close(descriptor)


def withdraw(state: Path) -> None:
    """Let it go.

    Raises:
        OSError: The disk fails.
    """
    path_of(state).unlink(missing_ok=True)
