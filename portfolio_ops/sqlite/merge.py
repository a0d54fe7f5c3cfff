"""Fewer moments in less room: many increments become one of coarser resolution, which is proved before they go.

Of each window of time, aligned to UTC, the last cut stays. It holds each page that changed within the window once, as
it was at the end. Between these moments nothing can be restored any more; at them nothing is different.

A cut can be kept within a window, too: the one behind a base. Where a base lies is told by the generation of the WAL
that it is of, and of the generations that pass within a window a merge knows only the last.

A page is kept even where the database is shorter at the end of the window: should the database grow again without
writing it (SQLite does not write a page that is free), SQLite reads its newest frame, from before it was cut off.
"""

import hashlib
import itertools
import os
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np

from portfolio_ops.errors import VerificationError
from portfolio_ops.moment import EPOCH
from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.increment import Head, Increment, gap, scan
from portfolio_ops.sqlite.increment_content import frames, pages_in, verify
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.wal import FRAME_HEADER

Window = list[tuple[Increment, Cut]]
"""The cuts of one window of time, each with its file."""


def merge(
    increments: Sequence[Increment], writer: IncrementWriter, scratch: Path, kept: Collection[Position] = ()
) -> Increment:
    """Write what increments hold into another, in its resolution.

    Args:
        increments: In their order. What is torn or damaged behind their last cuts is not looked at.
        writer: Of a new file, of the same site and timeline.
        scratch: A folder for an unnamed file; it takes what changed within a window, decompressed.
        kept: The ends of cuts that stay, wherever in their windows.

    Returns:
        The new file. Nothing may be deleted before `prove_equal` has passed on it.

    Raises:
        VerificationError: Something is missing between two of them, or is not what was written.
        OSError: The disk is full or fails.
        ValueError: The writer's head is none for these increments.
    """
    _require_continuous(increments, writer.head)
    with TemporaryFile(dir=scratch) as file:
        for window in _windows(increments, writer.head.resolution, kept):
            first, last = window[0][1], window[-1][1]
            pages = _newest(window, writer.head.page_size, file)
            writer.append(pages, last.pages, first.since, last.position, last.seen)
    return scan(writer.path)


def bytes_needed(increments: Sequence[Increment], resolution: int) -> int:
    """Bytes that a merge takes at most: the largest window decompressed, the new file, and a part of it once more."""
    frames_most = max(sum(cut.frames for _, cut in window) for window in _windows(increments, resolution, ()))
    scratch = frames_most * (FRAME_HEADER + increments[0].head.page_size)
    return scratch + 2 * sum(increment.end for increment in increments)


def prove_equal(increments: Sequence[Increment], merged: Increment, kept: Collection[Position] = ()) -> None:
    """Prove that at each cut of `merged` every page is as `increments` give it.

    Read from the disk: the file is verified, and each of its cuts must hold the pages that changed within its window,
    no more and no less, with the content that each had last. Where the states before a window are equal, those at its
    end then are.

    Args:
        kept: As it was merged with.

    Raises:
        VerificationError: It is not equal; the increments must be kept.
        ValueError: It cannot be a merge of these increments at all.
    """
    _require_continuous(increments, merged.head)
    _require_sound(merged)
    _prove(list(_windows(increments, merged.head.resolution, kept)), merged, merged.cuts)


def prove_part(increments: Sequence[Increment], merged: Increment, kept: Collection[Position]) -> None:
    """Prove that what increments hold is a part of `merged`, as `prove_equal`: its other sources may be gone.

    Args:
        kept: The ends of cuts that must be there. Others may be, within windows.

    Raises:
        VerificationError: It is not; the increments must be kept.
        ValueError: It cannot be a merge of these increments at all.
    """
    _require_continuous(increments, merged.head)
    _require_sound(merged)
    stayed = {*kept, *(cut.position for cut in merged.cuts)}
    windows = list(_windows(increments, merged.head.resolution, stayed))
    since = windows[0][0][1].since
    start = next((index for index, cut in enumerate(merged.cuts) if cut.since == since), len(merged.cuts))
    _prove(windows, merged, merged.cuts[start : start + len(windows)])


def _require_sound(merged: Increment) -> None:
    """Check that a file is on the disk as it was written.

    Raises:
        VerificationError: It is not.
    """
    checked = verify(scan(merged.path))
    if checked.damaged or checked.torn or checked != merged:
        raise VerificationError(f"{merged.path} is not what was written: {checked.damaged or 'it has changed'}")


def _prove(windows: Sequence[Window], merged: Increment, cuts: Sequence[Cut]) -> None:
    """Prove that cuts of a merged file are those of windows, one by one.

    Raises:
        VerificationError: They are not.
    """
    if len(windows) != len(cuts):
        raise VerificationError(f"{merged.path} has {len(cuts)} cuts, its sources have {len(windows)} windows")
    for window, cut in zip(windows, cuts, strict=True):
        first, last = window[0][1], window[-1][1]
        if (cut.since, cut.position, cut.seen, cut.pages) != (first.since, last.position, last.seen, last.pages):
            raise VerificationError(f"the cut of {cut.seen} in {merged.path} is not that of its sources")
        _require_same_pages(window, merged, cut)


def _require_same_pages(window: Window, merged: Increment, cut: Cut) -> None:
    """Check that a cut has the pages of a window.

    Raises:
        VerificationError: It has others, or one twice, or with other content.
    """
    last: dict[int, bytes] = {}
    for increment, each in window:
        last.update(_hashes(increment, each))
    for number, digest in _hashes(merged, cut):
        if last.pop(number, None) != digest:
            raise VerificationError(f"page {number} at {cut.seen} in {merged.path} is not that of its sources")
    if last:
        raise VerificationError(f"page {min(last)} at {cut.seen} is missing in {merged.path}")


def _hashes(increment: Increment, cut: Cut) -> Iterator[tuple[int, bytes]]:
    for batch in frames(increment, cut):
        for number, page in pages_in(batch, increment.head.page_size):
            yield number, hashlib.sha256(page).digest()


def _require_continuous(increments: Sequence[Increment], head: Head) -> None:
    """Check that no state is missing between increments, and that they can be merged under this head.

    Raises:
        VerificationError: One is missing.
        ValueError: They cannot: the head is of another database, or its windows are not made of theirs.
    """
    for before, after in itertools.pairwise(increments):
        if wrong := gap(before, after):
            raise VerificationError(wrong, suggestion="is a file missing, or were they put in another order?")
    for increment in increments:
        theirs = increment.head
        if (theirs.site, theirs.timeline, theirs.page_size) != (head.site, head.timeline, head.page_size):
            raise ValueError(f"{increment.path} is of another database or timeline")
        if head.resolution <= theirs.resolution or head.resolution % theirs.resolution:
            raise ValueError(f"{increment.path} has cuts {theirs.resolution} s apart; {head.resolution} s is no merge")


def _windows(increments: Sequence[Increment], resolution: int, kept: Collection[Position]) -> Iterator[Window]:
    """The cuts by windows of `resolution` seconds, in the order in which they were written.

    Where the clock was set back, a window can come twice: neither is a part of the other. One in which a cut is kept
    ends there, and comes again with those behind it.
    """
    span = timedelta(seconds=resolution)
    window: Window = []
    for increment in increments:
        for cut in increment.cuts:
            if window:
                last = window[-1][1]
                if (last.seen - EPOCH) // span != (cut.seen - EPOCH) // span or last.position in kept:
                    yield window
                    window = []
            window.append((increment, cut))
    if window:
        yield window


def _newest(window: Window, page_size: int, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The pages that changed within a window, by their numbers, each as it was last."""
    size = FRAME_HEADER + page_size
    file.seek(0)
    file.truncate()
    found = []
    for increment, cut in window:
        for batch in frames(increment, cut):
            file.write(batch)
            found.append(np.frombuffer(batch, ">u4").reshape(-1, size // 4)[:, 0].copy())
    file.flush()
    numbers = np.concatenate(found)
    pages, from_end = np.unique(numbers[::-1], return_index=True)
    for number, frame in zip(pages.tolist(), (len(numbers) - 1 - from_end).tolist(), strict=True):
        yield number, os.pread(file.fileno(), page_size, frame * size + FRAME_HEADER)
