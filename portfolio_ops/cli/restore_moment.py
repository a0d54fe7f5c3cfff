"""Which artifact a restore begins with, and which moment it is to come to; and how that looks to a person."""

from datetime import datetime, timedelta
from typing import Any

from portfolio_ops.cli import present
from portfolio_ops.config import Site
from portfolio_ops.errors import UsageError
from portfolio_ops.moment import describe_moment, exact, local
from portfolio_ops.restore.plan import choose, choose_event, just_before
from portfolio_ops.restore.points import MomentPlan, plan_moment, windows
from portfolio_ops.store.artifact import Artifact
from portfolio_ops.store.catalogue import LATEST


def chosen(
    site: Site, reference: str | None, at: datetime | None, before: str | None
) -> tuple[Artifact, MomentPlan | None, datetime | None]:
    """The artifact that a person names; or the moment, and its base.

    Of the latest backup also the last moment that could be restored instead, where there is a later one.

    Raises:
        UsageError: More than one of them was given.
        PortfolioOpsError: As `choose`, `choose_event` and `plan_moment`.
    """
    given = [
        name for name, value in (("an artifact", reference), ("--at", at), ("--before", before)) if value is not None
    ]
    if len(given) > 1:
        raise UsageError(
            f"{' and '.join(given)} were given, and each says what to restore", suggestion="give one of them"
        )
    if before is not None:
        at = just_before(choose_event(site, before))
    if at is not None:
        moment = plan_moment(site, at)
        return moment.base, moment, None
    artifact = choose(site, reference or LATEST)
    last = max((window.last for window in windows(site)), default=artifact.taken)
    later = last if reference in {None, LATEST} and last > artifact.taken else None
    return artifact, None, later


def lines(moment: MomentPlan) -> list[tuple[str, str]]:
    """The plan for a person, beside what is said of every restore."""
    files = len(moment.pieces)
    return [
        ("wanted", describe_moment(moment.when)),
        ("restore", f"the point of {describe_moment(moment.found)}, {_apart(moment.when - moment.found)}"),
        ("base", f"{moment.base.path.name}  (id {moment.base.id}), taken {local(moment.base.taken)}"),
        ("replays", f"{files} increment{'' if files == 1 else 's'}" if files else "nothing: the base is that point"),
    ]


def _apart(span: timedelta) -> str:
    words = f"{span.total_seconds():.1f} s" if span < timedelta(minutes=1) else present.span(span)
    return f"{words} before"


def data(moment: MomentPlan | None) -> dict[str, Any] | None:
    """The same for programs."""
    if moment is None:
        return None
    return {
        "wanted": exact(moment.when),
        "found": exact(moment.found),
        "timeline": moment.timeline,
        "increments": [str(increment.path) for increment, _ in moment.pieces],
    }
