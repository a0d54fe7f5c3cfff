"""Which moments can be restored, and how to get to one of them."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import NotFoundError
from portfolio_ops.moment import EPOCH, MICROSECOND, describe_moment, exact
from portfolio_ops.restore.history import History, Pieces, histories
from portfolio_ops.sqlite.cuts import Cut, Cuts
from portfolio_ops.sqlite.increment import Increment, gap
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Artifact
from portfolio_ops.store.lock import PINNED, is_held
from portfolio_ops.store.timeline import Timeline

_WINDOWS_TOLD = 3


@dataclass(frozen=True)
class Window:
    """A span of time of which every moment can be restored, as near as its cuts are.

    Attributes:
        history: The timeline that it is of.
        resolution: Of its cuts, in seconds.
        first: The first moment that can be restored.
        last: The last one.
        points: How many states can be restored.
        ends: Why nothing can be restored behind it, in words; empty if it is the end of the newest timeline.
        base: The backup with which it begins, unless it goes on from another window.
        parts: The increments in order, of each the cuts that are reached.
    """

    history: History
    resolution: int
    first: datetime
    last: datetime
    points: int
    ends: str
    base: Artifact | None
    parts: tuple[tuple[Increment, Cuts], ...]

    @property
    def timeline(self) -> str:
        """The name of its timeline."""
        return self.history.timeline.id

    def cut_of(self, when: datetime) -> tuple[Increment, Cut] | None:
        """The last cut that is not later than a moment."""
        limit = (when - EPOCH) // MICROSECOND
        for increment, cuts in reversed(self.parts):
            moments = cuts.moments()
            for index in reversed(range(len(moments))):
                if moments[index] <= limit:
                    return increment, cuts[index]
        return None


@dataclass(frozen=True)
class Hole:
    """A time of which nothing can be restored, between the last moment before it and the first one after it."""

    start: datetime
    end: datetime
    reason: str


@dataclass(frozen=True)
class MomentPlan:
    """How to get to a moment.

    Attributes:
        when: The moment that is wanted.
        timeline: The history that it is of.
        base: The backup to begin with.
        pieces: What is replayed on it, in this order.
        cut: The restore point; None if that is the base itself.
    """

    when: datetime
    timeline: str
    base: Artifact
    pieces: Pieces
    cut: Cut | None

    @property
    def found(self) -> datetime:
        """The moment of the restore point."""
        return self.base.taken if self.cut is None else self.cut.seen


def read(site: Site) -> list[History]:
    """Every timeline of a site, the one that is gone on with last."""
    return histories(site, catalogue.databases(site.backups, site.name), remembered=True)


def damages(found: Sequence[History]) -> list[tuple[Path, str]]:
    """The files in which something is wrong, and what."""
    wrong: list[tuple[Path, str]] = []
    for history in found:
        wrong += history.timeline.problems
        wrong += [(each.path, f"{each.path}: {each.damaged}") for each in history.timeline.increments if each.damaged]
    return wrong


def windows(site: Site) -> list[Window]:
    """What can be restored, oldest first. Where coarser increments lie beside finer ones, windows overlap."""
    return windows_in(read(site))


def windows_in(found: Sequence[History]) -> list[Window]:
    """What can be restored from timelines, as `windows`."""
    result = [window for history in found for window in _windows_of(history, newest=history is found[-1])]
    return sorted(result, key=lambda window: (window.first, window.timeline))


def holes(found: Sequence[Window]) -> list[Hole]:
    """The times between windows of which nothing can be restored.

    Args:
        found: As `windows` gives them.
    """
    result = []
    for index, window in enumerate(found[1:], 1):
        before = max(found[:index], key=lambda each: each.last)
        if window.first > before.last:
            result.append(Hole(before.last, window.first, before.ends or "nothing was archived"))
    return result


def last_before(found: Sequence[Window], when: datetime) -> datetime | None:
    """The last moment that can be restored and is not later than another; None where there is none.

    Args:
        found: As `windows` gives them.
    """
    moments = []
    for window in found:
        if window.first <= when:
            cut = window.cut_of(when)
            moments.append(window.first if cut is None else cut[1].seen)
    return max(moments, default=None)


def plan_moment(site: Site, when: datetime) -> MomentPlan:
    """The way to the last restore point that is not later than a moment.

    Raises:
        NotFoundError: There is none, or what was then is not known.
    """
    return plan_moment_in(windows(site), site, when)


def plan_moment_in(found: Sequence[Window], site: Site, when: datetime) -> MomentPlan:
    """The way to a moment, as `plan_moment`, of windows that were read already."""
    if not found:
        raise NotFoundError(
            f"the archive of {site.name} holds no moment that can be restored",
            suggestion=f"let portfolio-archive@{site.name}.service run; whole backups: {tool()} list",
        )
    last = max(found, key=lambda window: (window.timeline, window.last))
    around = [window for window in found if window.first <= when <= window.last]
    if not around and last.last < when <= datetime.now(UTC) and not last.ends and is_held(site.state, PINNED):
        around = [last]
    if not around:
        raise _outside(site, found, last, when)
    return max((_plan(window, when) for window in around), key=lambda plan: (plan.timeline, plan.found))


def _plan(window: Window, when: datetime) -> MomentPlan:
    """The way to the last restore point of a window that is not later than a moment within it."""
    goal = window.cut_of(when)
    if goal is None:
        if window.base is None:
            raise AssertionError("a window that begins with nothing")
        return MomentPlan(when, window.timeline, window.base, (), None)
    for base in reversed(window.history.bases):
        pieces = window.history.way(base, *goal)
        if pieces is not None:
            return MomentPlan(when, window.timeline, base.artifact, pieces, goal[1])
    raise AssertionError("a cut of a window that no base reaches")


def _outside(site: Site, found: Sequence[Window], last: Window, when: datetime) -> NotFoundError:
    """Why a moment cannot be restored, and which are near it."""
    earlier = [window.last for window in found if window.last < when]
    before = f"the last moment before it: --at {exact(max(earlier))}" if earlier else ""
    for hole in holes(found):
        if hole.start < when < hole.end:
            why = f"it lies in a hole from {describe_moment(hole.start)} to {describe_moment(hole.end)} ({hole.reason})"
            return _not_found(found, when, why, before)
    if not earlier:
        first = min(window.first for window in found)
        return _not_found(found, when, "it lies before all of them", f"the first moment: --at {exact(first)}")
    if when > datetime.now(UTC):
        return _not_found(found, when, "it lies in the future", before)
    why = last.ends or "no archiver runs that would have seen a later one"
    if not last.ends and is_held(site.state, PINNED):
        why = "it lies behind all of them"
    return _not_found(found, when, why, before)


def _not_found(found: Sequence[Window], when: datetime, why: str, suggestion: str) -> NotFoundError:
    told = [f"{describe_moment(each.first)} to {describe_moment(each.last)}" for each in found[-_WINDOWS_TOLD:]]
    more = f", and {len(found) - len(told)} windows before" if len(found) > len(told) else ""
    return NotFoundError(
        f"there is no restore point for {describe_moment(when)}: {why}. Restorable: {'; '.join(told)}{more}",
        suggestion=f"{suggestion}; all of them: {tool()} list points",
    )


def _windows_of(history: History, *, newest: bool) -> Iterator[Window]:
    """The windows of one timeline."""
    if not history.increments:
        if history.bases:
            yield _only_base(history, newest=newest)
        return
    by_resolution = sorted(history.increments, key=lambda each: (-each.head.resolution, each.path.name))
    for _, group in itertools.groupby(by_resolution, key=lambda each: each.head.resolution):
        increments = list(group)
        chain: list[Increment] = []
        for increment, after in itertools.zip_longest(increments, increments[1:]):
            if increment.path not in history.reached:
                continue
            chain.append(increment)
            if after is None or after.path not in history.reached or gap(increment, after):
                yield _window(history, chain, _end(history.timeline, increment, after, newest=newest))
                chain = []


def _only_base(history: History, *, newest: bool) -> Window:
    """The window of a timeline in which nothing was seen to change: its beginning.

    The first backup is it. A later one may have been made when nobody followed the database any more.
    """
    base = history.bases[0].artifact
    ends = _end(history.timeline, None, None, newest=newest)
    return Window(history, 1, base.taken, base.taken, 1, ends, base, ())


def _window(history: History, chain: Sequence[Increment], ends: str) -> Window:
    first = chain[0]
    index = history.reached[first.path]
    parts = [(first, first.cuts[index:]), *((each, each.cuts) for each in chain[1:])]
    earlier = [each for each in history.before(first) if each.path in history.reached]
    bases = [each.artifact for each in history.bases if each.places.get(first.path) == index]
    base = bases[0] if bases and not (earlier and index == 0) else None
    if base is None:
        parts.insert(0, (earlier[0], earlier[0].cuts[-1:]))
    begins = parts[0][1][0].seen
    alone = base is not None and base.taken < begins
    begins = min(base.taken, begins) if base is not None else begins
    last = EPOCH + max(max(cuts.moments()) for _, cuts in parts) * MICROSECOND
    points = sum(len(cuts) for _, cuts in parts) + alone
    return Window(history, first.head.resolution, begins, last, points, ends, base, tuple(parts))


def _end(timeline: Timeline, last: Increment | None, after: Increment | None, *, newest: bool) -> str:
    """Why a window ends, in words; empty at the end of the newest timeline."""
    if last is not None and last.damaged:
        return f"{last.path.name} is damaged: {last.damaged}"
    for path, reason in timeline.problems:
        if (last is None or path.name > last.path.name) and (after is None or path.name < after.path.name):
            return reason
    if last is not None and after is not None:
        return gap(last, after)
    return (
        ""
        if newest
        else "the timeline ended: the database was replaced or changed its journal mode, or nobody had followed it"
    )
