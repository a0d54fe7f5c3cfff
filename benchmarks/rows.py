"""What benchmarks find: rows with a verdict, and curves. Of every figure it holds that less is better."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

MET, MISSED, NO_AIM = "met", "missed", "no aim"
OURS = "ours"


@dataclass(frozen=True)
class Figure:
    """What was measured of one contender.

    Attributes:
        who: Its name.
        values: One for each round.
    """

    who: str
    values: tuple[float, ...]

    @classmethod
    def of(cls, who: str, values: Sequence[float]) -> Self:
        """A figure of values that are floats from here on."""
        return cls(who, tuple(map(float, values)))

    @property
    def median(self) -> float:
        """The middle of all rounds."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Aim:
    """What a row is to reach.

    Attributes:
        words: As people read it.
        most: The largest value that is still good: of ours, or of ours divided by the peer's.
        ratio: Whether it is divided.
        below: Whether the value must be less than `most`.
        worst: Whether the worst round is judged, not the median.
    """

    words: str
    most: float
    ratio: bool = True
    below: bool = False
    worst: bool = False


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        work: The row of the design's table, or what else is measured.
        measured: What exactly, and of how much.
        unit: Of all values.
        peer: Whom ours is held against; None for an aim without a peer.
        aim: None where there is none.
        note: What a reader must know so as not to be misled.
    """

    work: str
    measured: str
    unit: str
    ours: Figure
    peer: Figure | None = None
    aim: Aim | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours divided by the peer's, of medians."""
        return self.ours.median / self.peer.median if self.peer is not None and self.peer.median else None

    @property
    def verdict(self) -> str:
        """Whether the aim is reached. A ratio that cannot be computed reaches none."""
        if self.aim is None:
            return NO_AIM
        value: float | None = max(self.ours.values) if self.aim.worst else self.ours.median
        if self.aim.ratio:
            value = self.ratio
        if value is None:
            return MISSED
        return MET if value < self.aim.most or (value == self.aim.most and not self.aim.below) else MISSED

    @property
    def peer_is_better(self) -> bool:
        """Whether somebody else does it with less. A peer called `ours, ...` is ourselves under other conditions."""
        if self.peer is None or self.peer.who.startswith(OURS):
            return False
        return self.peer.median < self.ours.median

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """From what `dataclasses.asdict` and JSON made of it."""
        peer, aim = found["peer"], found["aim"]
        return cls(
            found["work"],
            found["measured"],
            found["unit"],
            Figure.of(**found["ours"]),
            None if peer is None else Figure.of(**peer),
            None if aim is None else Aim(**aim),
            found["note"],
        )


@dataclass(frozen=True)
class Point:
    """Where a line goes through: the values of all rounds at one place."""

    x: float
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of all rounds."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Line:
    """One contender's points, from left to right."""

    who: str
    points: tuple[Point, ...]

    @classmethod
    def of(cls, who: str, points: Mapping[float, Sequence[float]]) -> Self:
        """A line through the values that were measured at each place."""
        return cls(who, tuple(Point(float(x), tuple(map(float, points[x]))) for x in sorted(points)))


@dataclass(frozen=True)
class Curve:
    """How a cost grows.

    Attributes:
        name: Of its plot, in words that can be a file's name.
        title: What is shown.
        x, y: What the axes say.
        log_y: Whether equal steps upwards are equal factors; to the right they always are.
        note: As of a row.
    """

    name: str
    title: str
    x: str
    y: str
    lines: tuple[Line, ...]
    log_y: bool = True
    note: str = ""

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """From what `dataclasses.asdict` and JSON made of it."""
        lines = tuple(
            Line(line["who"], tuple(Point(point["x"], tuple(point["values"])) for point in line["points"]))
            for line in found["lines"]
        )
        return cls(found["name"], found["title"], found["x"], found["y"], lines, found["log_y"], found["note"])


@dataclass(frozen=True)
class Measured:
    """All that one benchmark found."""

    rows: tuple[Row, ...] = ()
    curves: tuple[Curve, ...] = ()


def number(value: float) -> str:
    """Three figures that count, and never a power of ten."""
    if value == 0:
        return "0"
    text = f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
