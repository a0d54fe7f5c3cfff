"""Holes in a log: the sign of a writer without O_APPEND that could not be seen before a rotation.

It goes on at its own offset, from before the head was removed, and so leaves a hole where nobody ever wrote: as long as
what was removed. The line that it was in the middle of goes on behind it. So the log without the hole is the log.

Only what is no data to the filesystem counts: NULs that somebody wrote are the site's. A hole of less than two blocks
may not show; the next one of such a writer is longer, by all that it has written since.
"""

import os
from itertools import chain
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.logs.live import LiveLog
from portfolio_ops.logs.state import Step, memory_of, settle


def look(site: Site, path: Path) -> list[tuple[int, int]]:
    """The holes in what of a log is not archived; none where that cannot be told now. Reads next to nothing of it.

    Args:
        path: One of `site.logs`.
    """
    try:
        with LiveLog(path, site.root, os.O_RDONLY) as live:
            found = memory_of(live.descriptor, site.state, live.name).load()
            if found is not None and found.step is not Step.RESTING:  # a rotation is at it, and frees blocks
                return []
            return holes_in(live, settle(found, live, published=False).head.length, live.size)
    except (PortfolioOpsError, OSError):  # the rotation tells
        return []


def holes_in(live: LiveLog, low: int, high: int) -> list[tuple[int, int]]:
    """Where the holes within [low, high) begin and end, to the byte.

    A filesystem knows holes by blocks; the rest of the first and the last one of them is NULs as well.
    """
    found: list[tuple[int, int]] = []
    floor = low
    for start, end in live.holes(low, high):
        before = os.pread(live.descriptor, min(live.block, start - floor), max(floor, start - live.block))
        behind = os.pread(live.descriptor, min(live.block, high - end), end)
        floor = end + len(behind) - len(behind.lstrip(b"\0"))
        found.append((start - len(before) + len(before.rstrip(b"\0")), floor))
    return found


def around(low: int, high: int, holes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of [low, high) is in no hole."""
    edges = [low, *chain.from_iterable(holes), high]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]


def told(path: Path, holes: list[tuple[int, int]]) -> tuple[str, str]:
    """Holes in words, and the cure."""
    total = sum(end - start for start, end in holes)
    words = f"{path} has a hole of {total:,} NULs, from its byte {holes[0][0]:,} on"
    cure = (
        'make its writer append (`>>` instead of `>`, flags "a" instead of "w") and restart it; then '
        f"`{tool()} logs rotate`, as root, looks at the processes of all users, and archives the lines without the hole"
    )
    return f"{words}: it was written without O_APPEND while it was rotated, or the power failed", cure
