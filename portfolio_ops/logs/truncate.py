"""Removing the archived head where the filesystem cannot collapse: copy the tail, truncate, archive the tail.

Between the last look at the file's size and ftruncate(2) a line can be written that is lost. Nothing can close this
window from outside the writer, but it can be made as small as two system calls, and measured. The tail is carried in a
file of the site's state folder, so that a run killed anywhere loses nothing more: the file begins with the marker for
as long as it is not truncated, and from then on the carried tail is archived, by this run or the next.
"""

import dataclasses
import os
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from portfolio_ops.logs.collapse import KEPT_BYTES, new_marker
from portfolio_ops.logs.live import LiveLog
from portfolio_ops.logs.state import Memory, State, Step, key_of

_CHUNK = 1 << 20
_TRIES = 200
_PAUSE_SECONDS = 0.005


@dataclass(frozen=True)
class Truncated:
    """What truncating did.

    Attributes:
        state: Still REMOVING: the tail must be archived before it is at rest.
        window: Nanoseconds in which a line could have been lost.
    """

    state: State
    window: int


def carry_path(folder: Path, live: LiveLog) -> Path:
    """Where the tail of a log is carried, given the site's state folder."""
    return folder / f"{key_of(live.name)}.carry"


def truncate_head(live: LiveLog, memory: Memory, state: State, carry: Path) -> Truncated | None:
    """Carry everything behind the archived head into `carry`, then truncate the log to nothing.

    Args:
        state: At rest, and true of the file.

    Returns:
        None if there is too little to remove, or no moment without a half-written line came: the log is as it was.

    Raises:
        PortfolioOpsError: Another program interfered; nothing was removed.
    """
    if state.head.length < KEPT_BYTES:
        return None
    if not live.holds(state.head):
        raise live.interfered()
    marker = new_marker()
    head = live.head(state.head.length, spared=len(marker))
    removing = dataclasses.replace(state, head=head, step=Step.MARKING, marker=marker)
    memory.save(removing)
    live.mark(marker)
    removing = dataclasses.replace(removing, step=Step.REMOVING, token=uuid4().hex)
    descriptor = os.open(carry, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        memory.save(removing)
        window = _carry_and_truncate(live, head.length, descriptor)
    finally:
        os.close(descriptor)
    if window is None:
        memory.save(state.at_rest(head))
        return None
    return Truncated(removing, window)


def _carry_and_truncate(live: LiveLog, start: int, carry: int) -> int | None:
    """Copy [start, end) to `carry` until nothing is new and it ends with a line, then truncate. Returns the window."""
    done = start
    for _ in range(_TRIES):
        done = _copy(live.descriptor, done, carry, done - start)
        os.fdatasync(carry)
        done = _copy(live.descriptor, done, carry, done - start)
        if done > start and os.pread(carry, 1, done - start - 1) != b"\n":
            time.sleep(_PAUSE_SECONDS)
            continue
        began = time.perf_counter_ns()
        if os.fstat(live.descriptor).st_size == done:
            os.ftruncate(live.descriptor, 0)
            window = time.perf_counter_ns() - began
            os.fsync(carry)
            os.fsync(live.descriptor)
            return window
    return None


def _copy(source: int, offset: int, target: int, target_offset: int) -> int:
    """Copy from `offset` to the source's end. Returns where that was."""
    while data := os.pread(source, _CHUNK, offset):
        done = os.pwrite(target, data, target_offset)  # on a disk that gets full, less than was asked for
        offset += done
        target_offset += done
    return offset
