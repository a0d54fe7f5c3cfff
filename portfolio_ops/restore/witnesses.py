"""Whole backups that stand exactly at a restore point: what the archive leads to must be what they hold."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from portfolio_ops.restore.history import History
from portfolio_ops.restore.points import MomentPlan
from portfolio_ops.store.artifact import Artifact


@dataclass(frozen=True)
class Witness:
    """A backup, and a way to the same state that does not begin with it.

    Attributes:
        artifact: The backup.
        plan: From another backup, by increments.
    """

    artifact: Artifact
    plan: MomentPlan


def newest_witness(found: Sequence[History]) -> Witness | None:
    """The newest one, from a base chosen at random among all that lead there; None where there is none."""
    for history in reversed(found):
        ways = list(_ways(history))
        if ways:
            newest = max(each.artifact.taken for each in ways)
            return random.SystemRandom().choice([each for each in ways if each.artifact.taken == newest])
    return None


def _ways(history: History) -> Iterator[Witness]:
    increments = {each.path: each for each in history.increments}
    for base in history.bases:
        for path, index in base.places.items():
            increment = increments[path]
            cut = increment.cuts[index]
            if cut.position != base.position:
                continue
            for other in history.bases:
                pieces = history.way(other, increment, cut) if other.artifact.taken < base.artifact.taken else None
                if pieces:
                    plan = MomentPlan(cut.seen, history.timeline.id, other.artifact, pieces, cut)
                    yield Witness(base.artifact, plan)
