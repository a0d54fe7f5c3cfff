"""A timeline as a restore sees it: the increments, the bases that lie within it, and what is reached from them.

Replaying an increment from its start up to a cut, on a base anywhere between that start and that cut, gives the state
at the cut: a page that changed before the base has in the increment the content that it has in the base. So a base need
not lie where an increment begins.

That is not so without a WAL. An increment then has what differs between its states, not what was written meanwhile: a
page that was changed and changed back is not in it. There a base lies only where it stands exactly at one of the
states, by a position that names its content (`sqlite/difference.py`).

Coarser increments may lie beside the finer ones that they were made of. What follows on what is told by the positions
and hashes in their heads, never by names.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from portfolio_ops.config import Site
from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.increment import RAW, Increment, gap
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.store import catalogue
from portfolio_ops.store import timeline as timelines
from portfolio_ops.store.artifact import Artifact
from portfolio_ops.store.records import forget_all_but
from portfolio_ops.store.timeline import Timeline

Pieces = tuple[tuple[Increment, Cut], ...]
"""What is replayed on a base: increments in order, each from its start up to a cut."""

_NO_WAL = bytes(8).hex()
_LATE = timedelta(seconds=2)
"""A backup is dated when its WAL was looked through: that much later than its content."""

_FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Base:
    """A whole database that was taken while the timeline lasted.

    Attributes:
        places: The increments in which it lies, and of each the first cut that is not before it.
    """

    artifact: Artifact
    position: Position
    places: dict[Path, int]


class History:
    """One timeline, and its bases.

    Attributes:
        timeline: As it was read.
        bases: Oldest first.
        by_content: Whether its positions are names of content, as a backup proves that stands at one: there was no WAL.
    """

    def __init__(self, timeline: Timeline, artifacts: Sequence[Artifact]) -> None:
        self.timeline = timeline
        self.increments = tuple(each for each in timeline.increments if each.cuts)
        self._begin_at: dict[Position, list[Increment]] = defaultdict(list)
        self._by_salts: dict[str, list[tuple[Increment, range]]] = defaultdict(list)
        for increment in self.increments:
            self._begin_at[increment.cuts[0].since].append(increment)
            for salts, those in increment.cuts.generations():
                self._by_salts[salts].append((increment, those))
        positions = [(artifact, position_of(artifact)) for artifact in artifacts]
        self.by_content = any(
            position in self._begin_at or position.salts in self._by_salts
            for artifact, position in positions
            if position is not None and _is_named(artifact)
        )
        self.bases = tuple(
            Base(
                artifact,
                position,
                self._places(position, artifact.taken, exactly=self.by_content or _is_named(artifact)),
            )
            for artifact, position in positions
            if position is not None
        )

    @property
    def founding(self) -> tuple[Base, ...]:
        """The bases with which its moments begin, oldest first; where none is archived yet, those of its beginning."""
        if self.increments or not self.bases:
            return tuple(base for base in self.bases if base.places)
        return tuple(base for base in self.bases if base.position == self.bases[0].position)

    def following(self, increment: Increment) -> list[Increment]:
        """The increments that go on where this one ends."""
        found = self._begin_at[increment.cuts[-1].position]
        return [each for each in found if each.path != increment.path and not gap(increment, each)]

    @cached_property
    def reached(self) -> dict[Path, int]:
        """For each increment that can be used, its first cut that is reached from a base."""
        reached: dict[Path, int] = {}
        for base in self.bases:
            for path, index in base.places.items():
                reached[path] = min(index, reached.get(path, index))
        pending = [each for each in self.increments if each.path in reached]
        while pending:
            for each in self.following(pending.pop()):
                if reached.get(each.path) != 0:
                    reached[each.path] = 0
                    pending.append(each)
        return reached

    def way(self, base: Base, increment: Increment, cut: Cut) -> Pieces | None:
        """What leads from a base to a cut, in as few increments as there can be; None where nothing does."""
        if base.places.get(increment.path, len(increment.cuts)) <= increment.cuts.index(cut):
            return () if base.position == cut.position else ((increment, cut),)
        ways: list[Pieces] = [((increment, cut),)]
        seen = {increment.path}
        while ways:
            shorter, ways = ways, []
            for way in shorter:
                for before in self.before(way[0][0]):
                    longer = ((before, before.cuts[-1]), *way)
                    if before.path in base.places:
                        return longer
                    if before.path not in seen:
                        seen.add(before.path)
                        ways.append(longer)
        return None

    def before(self, increment: Increment) -> list[Increment]:
        """The increments that end where this one goes on."""
        return self._before.get(increment.path, [])

    @cached_property
    def _before(self) -> dict[Path, list[Increment]]:
        before: dict[Path, list[Increment]] = defaultdict(list)
        for increment in self.increments:
            for each in self.following(increment):
                before[each.path].append(increment)
        return before

    def _places(self, position: Position, taken: datetime, *, exactly: bool) -> dict[Path, int]:
        """Where a base lies.

        What was merged tells of some positions only: in it, the time alone has to do. Not so where a base must stand at
        a restore point `exactly`, or is of no use; nor where its position is that of another time, because the clock
        had gone back when it was dated.
        """
        known = list(self._places_known(position, taken))
        places = {} if exactly else dict(self._places_by_time(taken, [increment for increment, _ in known]))
        return places | {increment.path: index for increment, index in known}

    def _places_by_time(self, taken: datetime, known: Sequence[Increment]) -> Iterator[tuple[Path, int]]:
        for increment in self.increments:
            if increment.head.resolution == RAW or increment.cuts[0].seen + _LATE > taken:
                continue
            if not known or any(_overlap(increment, each) for each in known):
                index = bisect_left(increment.cuts, taken + _LATE, key=lambda cut: cut.seen)
                if index < len(increment.cuts):
                    yield increment.path, index

    def _places_known(self, position: Position, taken: datetime) -> Iterator[tuple[Increment, int]]:
        """Where a base lies by its position; of two cuts in one increment, the earlier comes last.

        The time is asked for, too: where there is no WAL, all positions are alike. And after a power cut other commits
        may have come to stand at positions that are archived.
        """
        for increment in self._begin_at[position]:
            late = timedelta() if position.salts == _NO_WAL else _LATE
            if taken <= increment.cuts[0].seen + late:
                yield increment, 0
        for increment, those in reversed(self._by_salts[position.salts]):
            for index in reversed(those):
                cut = increment.cuts[index]
                since = cut.since.frame if cut.since.salts == position.salts else 0
                within = since <= position.frame <= cut.position.frame
                if within and self._in_time(taken, increment, index + (cut.position == position)):
                    yield increment, index

    def _in_time(self, taken: datetime, increment: Increment, index: int) -> bool:
        """Whether a backup can have been taken before the cut of this number was; it may be the first one behind."""
        after = [increment.cuts[index]] if index < len(increment.cuts) else []
        after = after or [each.cuts[0] for each in self.following(increment)]
        return not after or taken <= after[0].seen + _LATE


def _overlap(one: Increment, other: Increment) -> bool:
    return one.cuts[0].seen <= other.cuts[-1].seen and other.cuts[0].seen <= one.cuts[-1].seen


def _is_named(artifact: Artifact) -> bool:
    """Whether a backup is of a database without a WAL, and its position a name for its content."""
    return str(artifact.metadata.details.get("journal_mode", "wal")) != "wal"


def position_of(artifact: Artifact) -> Position | None:
    """Where in the history of its WAL a backup stands; None where that is not known."""
    stated = artifact.metadata.details.get("position")
    try:
        return Position(str(stated["salts"]), int(stated["frame"])) if stated else None
    except (KeyError, TypeError, ValueError):
        return None


def histories(site: Site, artifacts: Sequence[Artifact], *, remembered: bool = False) -> list[History]:
    """Every timeline, in the order of `timeline.own`. A backup belongs to the one that was the last when it was taken.

    It says which. Backups of versions that did not are told by their time.

    Args:
        remembered: Take records from the site's memory where it has them; else all are read from the disk.
    """
    names = timelines.own(site.backups, site.name)
    if remembered:
        forget_all_but(site.state, names)
    return [_history(site, name, names, artifacts, site.state if remembered else None) for name in names]


def history_of(site: Site, name: str) -> History:
    """One timeline with its bases, as `histories` has it; records are taken from the site's memory."""
    artifacts = catalogue.databases(site.backups, site.name)
    return _history(site, name, timelines.own(site.backups, site.name), artifacts, site.state)


def _history(site: Site, name: str, names: Sequence[str], artifacts: Sequence[Artifact], state: Path | None) -> History:
    first = timelines.began(name)
    end = min((began for began in map(timelines.began, names) if began > first), default=_FOREVER)
    within = [each for each in artifacts if _belongs(each, name, first, end)]
    return History(timelines.read(site.backups, name, site.name, state), within)


def _belongs(artifact: Artifact, name: str, first: datetime, end: datetime) -> bool:
    stated = artifact.metadata.details.get("timeline")
    return first <= artifact.taken < end if stated is None else stated == name
