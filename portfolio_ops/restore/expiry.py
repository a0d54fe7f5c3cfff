"""Which increments may go: those past their time, as long as no moment that is kept needs them.

Increments are replayed on a base. So the oldest that are kept must be those in which a base lies, and one that is past
its time itself: a file may be of a whole day, and moments before the base be within theirs. What is before them may go.
A timeline that is over may go whole once a newer whole backup stands in for it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from portfolio_ops.restore.history import History
from portfolio_ops.sqlite.increment import Increment
from portfolio_ops.store.artifact import CLOCK_SLACK


def expired(found: Sequence[History], kept: timedelta, now: datetime) -> list[Increment]:
    """The increments that may be deleted, oldest first.

    Args:
        found: Every timeline, the one that is gone on with last, with its bases; backups that are about to be pruned
            are none any more.
        kept: How long moments are kept.
        now: With a zone.
    """
    # The hour's own file may be being written, however short moments are kept.
    limit = min(now - kept, (now - CLOCK_SLACK).replace(minute=0, second=0, microsecond=0))
    gone: list[Increment] = []
    for number, history in enumerate(found):
        over = number < len(found) - 1
        gone += _of(history, limit, replaced=over and any(later.founding for later in found[number + 1 :]))
    return gone


def _of(history: History, limit: datetime, *, replaced: bool) -> list[Increment]:
    increments = sorted(history.increments, key=lambda each: each.cuts[-1].seen)
    past = next((index for index, each in enumerate(increments) if each.cuts[-1].seen >= limit), len(increments))
    if past == len(increments) and replaced:
        return increments
    # The last of them may be written now.
    for first in range(min(past, len(increments) - 1), 0, -1):
        if any(increments[first].path in base.places and base.artifact.taken <= limit for base in history.bases):
            return increments[:first]
    return []
