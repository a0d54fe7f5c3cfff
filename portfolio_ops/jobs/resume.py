"""Where an archive may go on: with the newest timeline, if it can be proved that nothing passed since."""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.restore.history import history_of
from portfolio_ops.sqlite.increment import Link
from portfolio_ops.sqlite.pin import Pin
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.tail import Tail
from portfolio_ops.sqlite.wal_index import WalIndex
from portfolio_ops.store import timeline
from portfolio_ops.store.standing import Standing, remembered


@dataclass(frozen=True)
class Resumed:
    """A timeline that is gone on with, from where it ended."""

    name: str
    tail: Tail
    end: "End"


def resumable(site: Site, index: WalIndex, pin: Pin) -> Resumed | None:
    """Where the newest timeline ended, if the WAL still holds all that came since.

    It does if the main file was not changed since all that was archived was in it, and nothing else: no generation of
    the WAL can have ended meanwhile. If it was changed although it was at rest, it is another.

    It also does with the same salts, and not fewer frames. The last archived frame must be the same to its checksum.
    After a power cut, a database whose `synchronous` is NORMAL may have lost commits that are archived, and made others
    in their place. What is remembered of it is not synced: it outlives a killed daemon, and where a power cut takes it,
    a new timeline is right.

    What came since must be held, too. Where all of it is in the main file already, the site's next write begins the WAL
    anew, before we have read it perhaps.
    """
    names = timeline.own(site.backups, site.name)
    if not names:
        return None
    memory = remembered(site.state)
    end = None if memory is None else _end(site, names[-1], pin.page_size, memory)
    if memory is None or end is None or (memory.chain, memory.position) != (end.chain, end.position):
        return None
    if memory.changed and memory.changed != pin.changed:
        return None
    if pin.may_end and index.frames > (end.position.frame if end.position.salts == index.salts.hex() else 0):
        return None
    tail = Tail(pin, end.position)
    if end.position.salts == index.salts.hex() and end.position.frame:
        try:
            tail.begin()
        except PortfolioOpsError:
            return None
        same = end.position.frame <= index.frames and tail.checksum == memory.checksum
    else:
        # What the site makes durable of its file is the content. Where it empties the WAL, its time comes before that.
        same = bool(memory.changed) and (memory.is_of_this_boot or not index.frames)
    return Resumed(names[-1], tail, end) if same else None


@dataclass(frozen=True)
class End:
    """Where a timeline ended, as far as it is archived."""

    position: Position
    chain: bytes
    link: Link | None = None
    seen: datetime | None = None
    based: datetime | None = None


def _end(site: Site, name: str, page_size: int, memory: Standing) -> End | None:
    """The end of a timeline; one in which nothing was seen to be committed ends where it began, as is remembered."""
    last = timeline.newest(site.backups, name, site.name)
    if last is not None:
        cut = last.cuts[-1]
        usable = not last.damaged and last.head.page_size == page_size
        return End(cut.position, cut.chain, last.link, cut.seen) if usable else None
    if any(timeline.folder_of(site.backups, name).iterdir()):
        return None
    return End(memory.position, beginning(name), based=_based(site, name, memory.position))


def _based(site: Site, name: str, position: Position) -> datetime | None:
    """When the last backup was taken of a timeline's first generation; None where there is none."""
    bases = history_of(site, name).bases
    return max((base.artifact.taken for base in bases if base.position.salts == position.salts), default=None)


def beginning(name: str) -> bytes:
    """Stands for the beginning of a timeline, as the hash of a flush does for its end."""
    return hashlib.sha256(name.encode()).digest()
