"""A curve as a picture that reads in light and in dark: a plot of lines, with ticks, a legend and a title."""

import math
from collections.abc import Callable, Iterable, Sequence
from xml.sax.saxutils import escape

from benchmarks.rows import Curve, Line, number

_WIDTH, _HEIGHT = 680, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 20, 72, 56
_COLOURS = ("#0a7cc4", "#d1600a", "#1a8f5f", "#a7509c", "#8a7a10")
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; font-size: 15px; }
.axis { stroke: #57606a; } .grid { stroke: #57606a; opacity: 0.2; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .axis, .grid { stroke: #9198a1; } }
"""
_MOST_TICKS = 6

Scale = Callable[[float], float]


def plot(curve: Curve) -> str:
    """The picture. Where a place has several rounds, a bar goes from the least to the most."""
    points = [point for line in curve.lines for point in line.points]
    values = [value for point in points for value in point.values]
    places = sorted({point.x for point in points})
    logarithmic = curve.log_y and min(values) > 0
    ticks = log_ticks(min(values), max(values)) if logarithmic else linear_ticks(max(values))
    across = _log(places[0], places[-1], _LEFT + 24, _WIDTH - _RIGHT - 24)
    upwards = (_log if logarithmic else _linear)(ticks[0], ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    description = f"{curve.y} against {curve.x}: {', '.join(line.who for line in curve.lines)}"
    middle, centre = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="title description"'
    turned = f'transform="translate(18 {centre:.0f}) rotate(-90)" text-anchor="middle"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f'<title id="title">{escape(curve.title)}</title>',
        f'<desc id="description">{escape(description)}</desc>',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="{_LEFT}" y="22">{escape(curve.title)}</text>',
        *_axes(places, ticks, across, upwards),
        f'<text x="{middle:.0f}" y="{_HEIGHT - 14}" text-anchor="middle">{escape(curve.x)}</text>',
        f"<text {turned}>{escape(curve.y)}</text>",
    ]
    left = float(_LEFT)
    for index, line in enumerate(curve.lines):
        parts += [*_drawn(line, index, across, upwards), *_legend(line.who, index, left)]
        left += 34 + 7.2 * len(line.who)
    return "\n".join([*parts, "</svg>"]) + "\n"


def log_ticks(least: float, most: float) -> list[float]:
    """Powers of ten around the values; of a short span, their twofold and fivefold too."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    steps = (1.0,) if high - low >= 4 else (1.0, 2.0, 5.0)
    ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    first = max(index for index, tick in enumerate(ticks) if tick <= least * (1 + 1e-9))
    last = min(index for index, tick in enumerate(ticks) if tick >= most * (1 - 1e-9))
    return ticks[first : max(last, first + 1) + 1]


def linear_ticks(most: float) -> list[float]:
    """From nought, in steps of 1, 2 or 5 times a power of ten."""
    if most <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(most / _MOST_TICKS))
    step = next(factor * power for factor in (1, 2, 5, 10) if most / (factor * power) <= _MOST_TICKS)
    return [step * count for count in range(math.ceil(most / step * (1 - 1e-9)) + 1)]


def _linear(first: float, last: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - first) / ((last - first) or 1.0) * (end - start)


def _log(first: float, last: float, start: float, end: float) -> Scale:
    inner = _linear(math.log10(first), math.log10(last), start, end)
    return lambda value: inner(math.log10(value))


def _axes(places: Sequence[float], ticks: Sequence[float], across: Scale, upwards: Scale) -> Iterable[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for tick in ticks:
        y = upwards(tick)
        yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>'
    for place in places:
        x = across(place)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{number(place)}</text>'
    yield f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>'


def _drawn(line: Line, index: int, across: Scale, upwards: Scale) -> Iterable[str]:
    colour = _COLOURS[index % len(_COLOURS)]
    path = " ".join(f"{across(point.x):.1f},{upwards(point.median):.1f}" for point in line.points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for point in line.points:
        x = across(point.x)
        low, high = upwards(min(point.values)), upwards(max(point.values))
        if low - high >= 1:
            yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}"/>'
        yield _mark(x, upwards(point.median), index)


def _legend(who: str, index: int, left: float) -> Iterable[str]:
    yield _mark(left + 6, 44, index)
    yield f'<text x="{left + 16:.0f}" y="48">{escape(who)}</text>'


def _mark(x: float, y: float, index: int) -> str:
    """A shape of its own for each line: colours alone do not tell everybody."""
    colour = _COLOURS[index % len(_COLOURS)]
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>',
        f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}"/>',
        f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" fill="{colour}"/>',
        f'<path d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z" fill="{colour}"/>',
    )
    return shapes[index % len(shapes)]
