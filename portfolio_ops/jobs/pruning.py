"""Deleting behind what is published: where that fails, the run is a success all the same, and who looks is told.

To fail such a run would be worse than what it left lying: whoever starts it again, systemd or the maker of requested
backups, gets another artifact each time, on a disk from which nothing goes.
"""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import foreseen
from portfolio_ops.host import messages
from portfolio_ops.host.journal import Log
from portfolio_ops.restore import keeping
from portfolio_ops.store import retention, runs
from portfolio_ops.store.catalogue import Catalogue

_RECORD = "pruning-"


@contextlib.contextmanager
def forgiven(site: Site, job: str, log: Log) -> Iterator[None]:
    """While the block deletes behind a success: a failure is told, and remembered until `worked`, but not raised.

    Args:
        job: Whose pruning it is, as the journal names it.
        log: Of the run that succeeded.
    """
    try:
        yield
    except Exception as error:
        if (failure := foreseen(error)) is None:
            raise
        log.event(
            messages.PRUNING_FAILED,
            f"{job}: what is past its time could not be pruned: {failure.message}",
            error=failure.code,
            suggestion=failure.suggestion,
        )
        with contextlib.suppress(OSError):  # a disk that fails may be the failure
            runs.begin(site.state, f"{_RECORD}{job}")
            runs.finish(site.state, f"{_RECORD}{job}", succeeded=False, message=failure.message)


def worked(site: Site, job: str) -> None:
    """Forget a failure: since then all went that retention lets go. The caller holds the lock of what was pruned."""
    record = runs.read(site.state, f"{_RECORD}{job}")
    if record is not None and record.latest.state != runs.SUCCEEDED:
        with contextlib.suppress(OSError):  # it is told once more then, and forgotten the next time
            runs.finish(site.state, f"{_RECORD}{job}", succeeded=True, message="")


def failing(state: Path) -> list[str]:
    """Whose pruning has failed and has not worked since, in words for a finding."""
    found = ((path.stem.removeprefix(_RECORD), runs.read(state, path.stem)) for path in state.glob(f"{_RECORD}*.json"))
    return sorted(
        f"{job}: what is past its time could not be pruned: {record.latest.message};"
        f" its next success tries again, or now: {tool()} prune --yes"
        for job, record in found
        if record is not None and record.latest.state == runs.FAILED
    )


def cure_of_no_room(site: Site, found: Catalogue, now: datetime) -> str:
    """What a person may do where there is no room: what retention lets go, of which a failed run deletes nothing.

    Increments of the archive are not counted, for that they would have to be read: these may free more.

    Args:
        found: All that there is.
        now: With a zone.

    Returns:
        It in words; empty where no artifact may go, or where only a clock that may be wrong says so.
    """
    if retention.clock_leapt(found.artifacts, now) is not None:
        return ""
    verdicts = keeping.verdicts(site, found.artifacts, now)
    going = [verdict.artifact.bytes for verdict in verdicts if not verdict.keep]
    if not going:
        return ""
    return f"`{tool()} prune --yes` deletes {len(going)} artifacts that are past their time, {sum(going):,} bytes"
