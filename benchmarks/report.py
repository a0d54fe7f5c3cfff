"""What was found as text, for who waits for it at a terminal."""

from collections.abc import Sequence

from benchmarks.rows import Curve, Figure, Line, Measured, Row, number


def spread(figure: Figure) -> str:
    """The least and the most of several rounds."""
    return f"{number(min(figure.values))} … {number(max(figure.values))}" if len(figure.values) > 1 else ""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their heads."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows))
    return "\n".join(line.rstrip() for line in lines)


def text(measured: Measured) -> str:
    """Rows, then the points of each curve."""
    heads = ["WORK", "MEASURED", "UNIT", "OURS", "SPREAD", "AGAINST", "THEIRS", "RATIO", "AIM", "VERDICT"]
    parts = [table(heads, list(map(_cells, measured.rows)))] if measured.rows else []
    parts += [_curve(curve) for curve in measured.curves]
    return "\n\n".join(parts)


def _cells(row: Row) -> list[str]:
    return [
        row.work,
        row.measured,
        row.unit,
        number(row.ours.median),
        spread(row.ours),
        row.peer.who if row.peer else "",
        number(row.peer.median) if row.peer else "",
        number(row.ratio) if row.ratio is not None else "",
        row.aim.words if row.aim else "",
        row.verdict.upper() if row.aim else "",
    ]


def _curve(curve: Curve) -> str:
    places = sorted({point.x for line in curve.lines for point in line.points})
    heads = [f"{curve.title.upper()} ({curve.y})", *map(number, places)]
    return table(heads, [[line.who, *(_at(line, place) for place in places)] for line in curve.lines])


def _at(line: Line, place: float) -> str:
    return next((number(point.median) for point in line.points if point.x == place), "")
