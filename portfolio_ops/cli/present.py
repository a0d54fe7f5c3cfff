"""How values look to a person."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from portfolio_ops.moment import utc
from portfolio_ops.store.artifact import Artifact

_NOW = timedelta(seconds=1)


def size(count: int) -> str:
    """Bytes in binary units: `9.5 MiB`."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:  # noqa: PLR2004  (the definition of the units)
            break
        value, unit = value / 1024, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def span(delta: timedelta) -> str:
    """A length of time, coarsely: `3 d 4 h`, `12 min`, `5 s`."""
    seconds = int(abs(delta).total_seconds())
    days, hours, minutes = seconds // 86400, seconds % 86400 // 3600, seconds % 3600 // 60
    if days:
        return f"{days} d {hours} h" if hours and days < 10 else f"{days} d"  # noqa: PLR2004
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else f"{seconds} s"


def counted(number: int, thing: str) -> str:
    """So many of something whose plural ends in s: `1 table`, `2,000 tables`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago a moment is, or how far ahead; one that came while we looked is now."""
    return f"in {span(moment - now)}" if moment - now >= _NOW else f"{span(max(now - moment, timedelta()))} ago"


def printable(text: str) -> str:
    """Text from outside (a gallery's name, a file's name) that cannot move the cursor or fake a line."""
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, left-aligned, as wide as their widest cell."""
    lines = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def artifact_data(artifact: Artifact) -> dict[str, Any]:
    """An artifact for programs, without its details."""
    return {
        "id": artifact.id,
        "kind": artifact.metadata.kind.value,
        "file": str(artifact.path),
        "taken": utc(artifact.taken),
        "bytes": artifact.bytes,
        "content_bytes": artifact.metadata.content.bytes,
        "name": artifact.metadata.details.get("name"),
    }
