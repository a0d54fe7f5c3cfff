"""Removing the archived head of a log without losing a byte of what is appended meanwhile.

FALLOC_FL_COLLAPSE_RANGE (fallocate(2); ext4, xfs) takes whole blocks out of a file under the inode's lock: the inode
stays, and a writer with O_APPEND goes on at the new end. What a crash leaves behind must be decidable, whatever
writers append before the next run, and even if all lines are alike. Hence the order: note MARKING, write a unique
marker over the first bytes (archived, and about to go), note REMOVING, collapse. From then on the file begins with
the marker if and only if the head is still there.
"""

import dataclasses
import errno
from dataclasses import dataclass
from uuid import uuid4

from portfolio_ops.logs.live import LiveLog
from portfolio_ops.logs.state import Memory, State, Step

KEPT_BYTES = 512
"""So much of the archived head always stays, to know the file again. It also keeps the range off the file's end."""


def new_marker() -> str:
    """A line that no log has ever held; shorter than `KEPT_BYTES` and than any filesystem's block."""
    return f"[portfolio-ops: archived, being removed: {uuid4().hex}]\n"


@dataclass(frozen=True)
class Collapsed:
    """What collapsing did.

    Attributes:
        state: At rest, saved, and true of the file.
        able: Whether the filesystem can do it; if not, the head is still there.
    """

    state: State
    able: bool


def collapse_head(live: LiveLog, memory: Memory, state: State) -> Collapsed:
    """Remove what whole blocks there are of the archived head.

    Args:
        state: At rest, and true of the file.

    Raises:
        PortfolioOpsError: Another program interfered; nothing was removed.
        OSError: The disk fails; the next run decides from the state.
    """
    block = live.block
    removes = max(0, state.head.length - KEPT_BYTES) // block * block
    if removes == 0:
        return Collapsed(state, able=True)
    if not live.holds(state.head):
        raise live.interfered()
    head = live.head(state.head.length, spared=removes)
    marking = dataclasses.replace(state, head=head, step=Step.MARKING, marker=new_marker())
    memory.save(marking)
    live.mark(marking.marker)
    memory.save(dataclasses.replace(marking, step=Step.REMOVING, removes=removes))
    live.free_blocks(block, removes)
    try:
        live.collapse(0, removes)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
            raise
        # ext4 with bigalloc and xfs on a realtime device take only ranges of larger units.
        state = state.at_rest(head)
        memory.save(state)
        return Collapsed(state, able=False)
    left = dataclasses.replace(head, length=head.length - removes)
    after = state.at_rest(left, base=state.base + removes)
    memory.save(after)
    return Collapsed(after, able=True)


def finish_collapse(live: LiveLog, state: State) -> None:
    """Finish a collapse that a power cut stopped half way.

    Both filesystems first free the range, then move what follows extent by extent, each in a transaction of its own.
    A power cut between two of them leaves a hole of the range's exact length; what was left to do is to take it out.
    """
    if state.step is Step.REMOVING and state.removes and not live.begins_with(state.marker):
        hole = live.hole(state.removes)
        if hole is not None:
            live.collapse(hole, state.removes)
