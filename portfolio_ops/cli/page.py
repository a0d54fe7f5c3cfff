"""One HTML page that stands for itself: no script, nothing from elsewhere, and nothing in it but ASCII."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from portfolio_ops.cli import present
from portfolio_ops.moment import local

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .25rem 1rem .25rem 0; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid #8888; } td { border-bottom: 1px solid #8883; }
.well { color: #1a7f37; } .ill { color: #cf222e; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
.axis { stroke: currentColor; opacity: .25; }
.span { fill: #0a7cc4; } .mark { fill: #d1600a; }
@media (prefers-color-scheme: dark) { .well { color: #3fb950; } .ill { color: #ff7b72; } }
"""

_WIDTH, _LEFT, _ROW, _BAR = 1000, 110, 26, 14
_LEAST = 2.0  # of a bar, to be seen
_MOST_DAYS = 10
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Lane:
    """A line of a picture of time.

    Attributes:
        name: Stands before it.
        spans: From when to when there is something; a moment where both are the same.
        kind: `span` or `mark`, for the colour.
    """

    name: str
    spans: tuple[tuple[datetime, datetime], ...]
    kind: str = "span"


def page(title: str, parts: Iterable[str]) -> str:
    """The whole page.

    Args:
        parts: HTML, as the functions below give it.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{_text(title)}</title>'
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head><body>',
            f"<h1>{_text(title)}</h1>",
            *parts,
            "</body></html>",
        ]
    )


def heading(text: str) -> str:
    """The beginning of a section."""
    return f"<h2>{_text(text)}</h2>"


def verdict(text: str, *, well: bool) -> str:
    """A sentence in the colour of what it says."""
    return f'<p class="{"well" if well else "ill"}">{_text(text)}</p>'


def items(texts: Iterable[str]) -> str:
    """A list."""
    return f"<ul>{''.join(f'<li>{_text(text)}</li>' for text in texts)}</ul>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows below their header, as of a command."""
    top = "".join(f'<th scope="col">{_text(name.capitalize())}</th>' for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def timeline(lanes: Sequence[Lane], now: datetime) -> str:
    """A picture of time, up to now: a line for each lane, days below. Nothing where no lane has anything."""
    moments = [start for lane in lanes for start, _ in lane.spans]
    if not moments:
        return ""
    first = min([now - timedelta(hours=1), *moments])
    height = _ROW * (len(lanes) + 1)

    def across(moment: datetime) -> float:
        return _LEFT + (_WIDTH - _LEFT) * ((min(moment, now) - first) / (now - first))

    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="What can be restored, over time">']
    for day in _days(first, now) or [first.astimezone()]:
        x = across(day)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - _ROW + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 8}">{day:%d %b %H:%M}</text>')
    for number, lane in enumerate(lanes):
        y = _ROW * number + (_ROW - _BAR) / 2
        parts.append(f'<text x="0" y="{y + _BAR - 3:.1f}">{_text(lane.name)}</text>')
        parts += [_bar(lane.kind, across(start), across(end), y, _spoken(start, end)) for start, end in lane.spans]
    return "\n".join([*parts, "</svg>"])


def _bar(kind: str, left: float, right: float, y: float, told: str) -> str:
    width = max(right - left, _LEAST)
    where = f'x="{min(left, _WIDTH - width):.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BAR}"'
    return f'<rect class="{kind}" {where}><title>{_text(told)}</title></rect>'


def _spoken(start: datetime, end: datetime) -> str:
    return local(start) if start == end else f"{local(start)} to {local(end)}"


def _days(first: datetime, now: datetime) -> list[datetime]:
    """Midnights of the local clock between two moments, not too many."""
    days = (now - first) // _DAY + 1
    step = -(-days // _MOST_DAYS)
    dates = [now.astimezone().date() - _DAY * number for number in range(0, days + 1, step)]
    found = [datetime.combine(date, time()).astimezone() for date in dates]  # not each is 24 hours after the last
    return [day for day in reversed(found) if day >= first]


def _text(text: str) -> str:
    return html.escape(present.printable(text)).encode("ascii", "xmlcharrefreplace").decode()
