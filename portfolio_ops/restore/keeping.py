"""What of a site is kept: retention, told with which backups the moments of the archive begin."""

from collections.abc import Sequence
from datetime import datetime

from portfolio_ops.config import Site
from portfolio_ops.store import timeline
from portfolio_ops.store.artifact import Artifact
from portfolio_ops.store.retention import Ground, Verdict, decide


def verdicts(site: Site, artifacts: Sequence[Artifact], now: datetime) -> list[Verdict]:
    """A verdict for each artifact, in the order given.

    Args:
        artifacts: All of the site.
        now: With a zone.
    """
    return decide(artifacts, site.retention, now, _grounds(site, artifacts))


def _grounds(site: Site, artifacts: Sequence[Artifact]) -> dict[str, Ground]:
    """By ID, the backups with which moments begin. It is their positions that tell, not when they were taken."""
    if not timeline.own(site.backups, site.name):
        return {}
    from portfolio_ops.restore.history import histories  # noqa: PLC0415  (only where there is an archive)

    grounds = {}
    whole = [artifact for artifact in artifacts if artifact.metadata.kind.holds_database]
    for history in histories(site, whole, remembered=True):
        doubtful = bool(history.timeline.problems)
        for base in history.bases if doubtful else history.founding:
            grounds[base.artifact.id] = Ground(history.timeline.id, doubtful)
    return grounds
