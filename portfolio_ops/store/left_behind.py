"""What another folder of backups would leave behind: no job looks into a former one, and nobody is told of it again."""

import os
import shlex
from pathlib import Path

from portfolio_ops.errors import RefusedError
from portfolio_ops.store import catalogue, timeline


def require_nothing(former: Path, present: Path, site: str) -> None:
    """Let a site have another folder of backups only if all that is its own in the former one is in that, too.

    Raises:
        RefusedError: There is more in the former one, or it cannot be known.
    """
    if os.path.realpath(former) == os.path.realpath(present):
        return
    before, after = catalogue.scan(former, site), catalogue.scan(present, site)
    artifacts = {each.id for each in before.artifacts} - {each.id for each in after.artifacts}
    timelines = set(timeline.own(former, site)) - set(timeline.own(present, site))
    known = {each.path.relative_to(present) for each in after.problems}
    unknown = [each for each in before.problems if not each.site and each.path.relative_to(former) not in known]
    if artifacts or timelines or unknown:
        held = [f"artifacts: {len(artifacts)}, timelines: {len(timelines)}", *(each.reason for each in unknown[:1])]
        move = shlex.join(["mv", "-T", str(former), str(present)])
        raise RefusedError(
            f"[site] backups would be {present}, and not all that {former} holds is there ({'; '.join(held)}): "
            "no job would list, verify or prune it any more",
            suggestion=f"stop the site's units (portfolio@{site}.target, portfolio-archive@{site}.service) and move "
            f"the folder: {move}; or, to begin anew without it, give it another name",
        )
