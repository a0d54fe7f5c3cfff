"""Whether the archive holds what it should: every increment read back, and what is missing, and for how long it may be.

Reads only. The database and its `-shm` are opened and closed: never call this in a process that follows it. Its
locks would be dropped by it (fcntl(2), "Advisory record locking").
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import BusyError, NotFoundError
from portfolio_ops.host.timers import archive_is_off
from portfolio_ops.moment import EPOCH, MICROSECOND
from portfolio_ops.restore.history import History, histories
from portfolio_ops.restore.points import Window, damages, holes, windows_in
from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.increment_content import verify
from portfolio_ops.sqlite.look import BEHIND, change_counter_of
from portfolio_ops.sqlite.wal_index import wal_index_of
from portfolio_ops.store import catalogue, runs, timeline
from portfolio_ops.store.lock import PINNED, is_held
from portfolio_ops.store.runs import Run
from portfolio_ops.store.standing import is_untouched, remembered

_SCANS = 5
"""Ageing may replace files while they are read: it is looked so often at most."""

_NORMAL = 5.0
"""Seconds that a running archive may be behind: a flush each second, and what a seal or the disk takes."""

_PAUSE = 0.2
_BASE_WITHIN = timedelta(minutes=10)
"""A timeline that ended sooner may have had no base yet: it is a part of the hole between those beside it."""

_CLOCKS = timedelta(seconds=2)  # file times are coarser than the moments of cuts


class State(Enum):
    """Of a piece that should be there."""

    FOUND = "found"
    DELAYED = "missing-delayed"
    PENDING = "missing-pending"
    LOST = "missing-lost"
    HOLE = "hole"
    """Between two timelines; it was told when the second began."""


@dataclass(frozen=True)
class Piece:
    """A span of a timeline, and whether it is there.

    Attributes:
        end: None where it goes on until now.
        why: What is amiss, and the cure; empty where it is found.
    """

    timeline: str
    start: datetime
    end: datetime | None
    state: State
    why: str


def audit(site: Site) -> tuple[list[Piece], list[tuple[Path, str]]]:
    """What there is and what is missing, oldest first; and the files that are damaged, with what is wrong in each.

    Ageing may replace files while they are read. What is bad counts only if two looks in succession agree on it.

    Raises:
        BusyError: No two did.
    """
    before: object = None
    for _ in range(_SCANS):
        try:
            found = _read_back(site)
        except NotFoundError:
            continue
        pieces, damaged = _pieces(site, found), damages(found)
        bad = damaged, [piece for piece in pieces if piece.state is State.LOST]
        if bad in (([], []), before):
            return pieces, damaged
        before = bad
    raise BusyError(
        f"the archive changed each time that it was read, {_SCANS} times",
        suggestion=f"try again when no ageing runs: {tool()} status",
    )


def _read_back(site: Site) -> list[History]:
    """Every timeline, each increment cut off before what is damaged in it."""
    found = []
    for history in histories(site, catalogue.databases(site.backups, site.name)):
        increments = []
        for each in history.timeline.increments:
            whole = verify(each)
            increments.append(replace(whole, damaged=whole.damaged or each.damaged))
        bases = [base.artifact for base in history.bases]
        found.append(History(replace(history.timeline, increments=tuple(increments)), bases))
    return found


def _pieces(site: Site, found: Sequence[History]) -> list[Piece]:
    running, windows = is_held(site.state, PINNED), windows_in(found)
    pieces: list[Piece] = []
    for history in found:
        newest = history is found[-1]
        own = [window for window in windows if window.timeline == history.timeline.id]
        tried = _failed_base(site) if newest and running else None
        pieces += _of_timeline(history, own, tried, newest=newest, runs=running)
        if newest:
            pieces += _since(site, history, runs=running)
    by_first = {window.first: window.timeline for window in reversed(windows)}
    own_holes = {(piece.start, piece.end) for piece in pieces if piece.state is State.LOST}
    for hole in holes(windows):
        if (hole.start, hole.end) not in own_holes:
            pieces.append(Piece(by_first[hole.end], hole.start, hole.end, State.HOLE, hole.reason))
    return sorted(pieces, key=lambda piece: (piece.start, piece.timeline))


def _failed_base(site: Site) -> Run | None:
    """The last try of a base, if it failed."""
    record = runs.read(site.state, runs.BASE)
    return None if record is None else record.unmended


def _of_timeline(
    history: History, own: Sequence[Window], tried: Run | None, *, newest: bool, runs: bool
) -> list[Piece]:
    """What is there of a timeline, and what lies between and behind it.

    Args:
        tried: The last try of a base, if it failed.
    """
    name, lost = history.timeline.id, "it cannot be had again; restore a moment before or after it"
    pieces = [Piece(name, window.first, window.last, State.FOUND, "") for window in own]
    pieces += [Piece(name, hole.start, hole.end, State.LOST, f"{hole.reason}; {lost}") for hole in holes(own)]
    if not own and (history.increments or tried is not None):
        first, end = timeline.began(name), None
        if history.increments:
            first, end = history.increments[0].cuts[0].seen, history.increments[-1].cuts[-1].seen
        # A site that rests has its last moment long ago, and the base is due all the same.
        until = datetime.now(UTC) if tried is not None or end is None else end
        begins = until - min(first, timeline.began(name)) <= _BASE_WITHIN
        if newest or not begins:
            piece = Piece(name, first, end, State.LOST, "")
            pieces.append(_baseless(piece, tried, newest=newest, begins=begins, runs=runs))
    last = max((window.last for window in own), default=None)
    seen = [max(increment.cuts.moments()) for increment in history.increments]
    behind = EPOCH + max(seen) * MICROSECOND if seen else None
    if last is not None and behind is not None and behind > last:
        pieces.append(Piece(name, last, behind, State.LOST, f"no base leads to it: an increment is missing; {lost}"))
    for increment in history.timeline.increments:
        if increment.damaged:
            start = increment.cuts[-1].seen if increment.cuts else last
            start = start or datetime.fromtimestamp(increment.path.stat().st_mtime, UTC)
            pieces.append(Piece(name, start, None, State.LOST, f"{increment.path.name}: {increment.damaged}; {lost}"))
    return pieces


def _baseless(piece: Piece, tried: Run | None, *, newest: bool, begins: bool, runs: bool) -> Piece:
    """Moments to which nothing leads: those of a beginning may have no base yet; later ones have lost it."""
    state = State.LOST if not (newest and begins) else State.DELAYED if runs else State.PENDING
    why = {
        State.LOST: "no base leads there: it is gone, or none was made",
        State.DELAYED: "the base is due; look again in a minute",
        State.PENDING: "the base is still to be made; start the archive",
    }[state]
    if tried is not None:
        why = f"no base leads there: it is tried again, and the last try failed: {tried.message}"
    if newest and (state is State.LOST or tried is not None):
        why += f"; begin anew with one: {tool()} backup daily, while the archive runs"
    return replace(piece, state=state, why=why)


def _since(site: Site, history: History, *, runs: bool) -> list[Piece]:
    """Commits behind the last cut of the newest timeline; none is missed where the archive is turned off."""
    if not history.increments or (not runs and archive_is_off(site.name)):
        return []
    last = max((each.cuts[-1] for each in history.increments), key=lambda cut: cut.seen)
    index = wal_index_of(site.database)
    if index is None:
        look = _since_look if history.by_content else _since_wal
        return look(site, history.timeline.id, last, runs=runs)
    same = index.salts.hex() == last.position.salts
    archived = last.position.frame if same else 0
    held = same or is_untouched(site.state, site.database)
    if held and index.frames == archived:
        return []
    if runs and _moves(site, history.timeline.id, last):
        state, why = State.DELAYED, "the archive runs, and is about to flush it"
    elif runs:
        state = State.PENDING
        why = f"the archive runs, but archives nothing: journalctl -u portfolio-archive@{site.name}.service"
    elif held and archived < index.frames and index.backfilled < index.frames:
        state, why = State.PENDING, "the WAL still holds it; start the archive before the site checkpoints it"
    else:
        state = State.LOST
        why = (
            "the WAL holds it no longer, or may lose it at the next write; start the archive: it begins a new timeline"
        )
    return [Piece(history.timeline.id, last.seen, None, state, why)]


def _since_wal(site: Site, name: str, last: Cut, *, runs: bool) -> list[Piece]:
    """The last connection ended the WAL. What it had committed is in the main file then, which says when."""
    try:
        status = site.database.stat()
    except FileNotFoundError:
        return []
    standing = remembered(site.state)
    if standing is not None and standing.changed:  # to the nanosecond, whatever time `cp -p` sets
        whole = standing.changed == status.st_ctime_ns
    else:
        whole = datetime.fromtimestamp(status.st_mtime, UTC) <= last.seen + _CLOCKS
    if runs or whole:
        return []
    why = "the database changed, its WAL is gone; start the archive: it begins a new timeline"
    return [Piece(name, last.seen, None, State.LOST, why)]


def _since_look(site: Site, name: str, last: Cut, *, runs: bool) -> list[Piece]:
    """Changes behind the last cut where there never was a WAL: SQLite counts them in the database's header."""
    counter = change_counter_of(site.database)
    if counter is None or counter == last.position.frame:
        return []
    status = site.database.stat()
    normal = timedelta(seconds=max(_NORMAL, status.st_size * BEHIND))
    lately = max(last.seen, datetime.fromtimestamp(status.st_mtime, UTC)) + normal >= datetime.now(UTC)
    if runs and (lately or _moves(site, name, last)):
        state, why = State.DELAYED, "the archive runs, and is about to look"
    elif runs:
        state = State.PENDING
        why = f"the archive runs, but archives nothing: journalctl -u portfolio-archive@{site.name}.service"
    elif counter > last.position.frame:
        state, why = State.PENDING, "start the archive: it goes on with what has changed since"
    else:
        state, why = State.LOST, "the database is an older one; start the archive: it begins a new timeline"
    return [Piece(name, last.seen, None, state, why)]


def _moves(site: Site, name: str, last: Cut) -> bool:
    """Whether something more is archived within the normal delay."""
    ends = time.monotonic() + _NORMAL
    while time.monotonic() < ends:
        newest = timeline.newest(site.backups, name, site.name)
        if newest is not None and newest.cuts[-1].seen > last.seen:
            return True
        time.sleep(_PAUSE)
    return False
