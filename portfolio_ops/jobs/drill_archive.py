"""The archive's part of a drill: read all of it back, restore a second chosen at random, hold it against a backup.

A backup that stands exactly at a restore point is a witness: the archive, begun from another backup, must lead to the
same content, by all the increments in between.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import apsw

from portfolio_ops.calling import tool
from portfolio_ops.errors import NotFoundError, PortfolioOpsError, VerificationError
from portfolio_ops.jobs.rehearsal import Rehearsal, words
from portfolio_ops.moment import exact
from portfolio_ops.restore import points
from portfolio_ops.restore.audit import State, audit
from portfolio_ops.restore.replay import stage_moment
from portfolio_ops.restore.stage import stage_database
from portfolio_ops.restore.witnesses import Witness, newest_witness
from portfolio_ops.sqlite.content import content_sha256
from portfolio_ops.store import timeline

_Result = TypeVar("_Result")


def rehearse_archive(found: Rehearsal, folder: Path, since: datetime) -> None:
    """Add to a drill what there is to say of the archive, which may not exist.

    Args:
        folder: To restore to.
        since: When the last drill passed: what was lost before it, was told.
    """
    if not timeline.own(found.site.backups, found.site.name):
        found.evidence.append("nothing is archived: whole backups can be restored, moments between them cannot")
        return
    _read_back(found, since)
    witness = _tried(found, lambda: newest_witness(points.read(found.site)))
    if _tried(found, lambda: _restore_a_second(found, witness, folder / "moment")) is None:
        return
    if witness is None:
        found.evidence.append("no backup stands at a restore point that another leads to: nothing to compare with yet")
        return
    _tried(found, lambda: _compare(found, witness, folder))


def _tried(found: Rehearsal, work: Callable[[], _Result]) -> _Result | None:
    """Do something with the archive; if it fails, again: meanwhile increments may have been merged, or have expired.

    Returns:
        What came of it; None if it failed twice, which was noted.
    """
    for last in (False, True):
        try:
            return work()
        except (PortfolioOpsError, OSError, apsw.Error) as error:
            if last and isinstance(error, VerificationError | NotFoundError):
                found.failures.append(f"the archive: {words(error)}; {_cure()}")
            elif last:
                found.doubts.append(f"the archive could not be tried: {words(error)}")
    return None


def _read_back(found: Rehearsal, since: datetime) -> None:
    """Every increment, and what is missing."""
    found.log.progress("Reading the archive back")
    result = _tried(found, lambda: audit(found.site))
    if result is None:
        return
    pieces, damaged = result
    found.failures += [f"{reason}; {_cure()}" for _, reason in damaged]
    lost = [piece for piece in pieces if piece.state is State.LOST]
    for piece in lost:
        told = f"moments from {exact(piece.start)} on are lost: {piece.why}"
        (found.failures if piece.end is None or piece.end > since else found.evidence).append(told)
    whole = [piece for piece in pieces if piece.state is State.FOUND]
    found.evidence.append(f"the archive: {len(whole)} spans were read back and are whole, {len(lost)} are lost")


def _restore_a_second(found: Rehearsal, witness: Witness | None, path: Path) -> bool:
    """Restore a moment as `restore database --at` does, and check it; gives whether there was one."""
    windows = points.windows(found.site)
    spans = _spans(windows, witness)
    if not spans:
        found.evidence.append("the archive holds no moment yet")
        return False
    chooser = random.SystemRandom()
    first, last = chooser.choices(spans, [(last - first).total_seconds() + 1 for first, last in spans])[0]
    when = first + (last - first) * chooser.random()
    plan = points.plan_moment_in(windows, found.site, when)
    found.log.progress(f"Restoring {exact(when)}")
    staged = stage_moment(plan, path, found.log)
    path.unlink()
    rows = sum(staged.facts.rows.values())
    found.restored.append(exact(when))
    found.evidence.append(
        f"{exact(when)} (restore database --at): the state of {exact(plan.found)}, sound, {rows:,} rows,"
        f" from {plan.base.path.name} and {len(plan.pieces)} increments"
    )
    return True


def _spans(windows: Sequence[points.Window], witness: Witness | None) -> list[tuple[datetime, datetime]]:
    """Where to choose a second: between the witness and the backup that leads to it, if there is one; else anywhere."""
    if witness is not None:
        last = witness.plan.found
        return [(min(max(witness.plan.base.taken, _first(windows, witness)), last), last)]
    return [(window.first, window.last) for window in windows]


def _first(windows: Sequence[points.Window], witness: Witness) -> datetime:
    """The first moment of the witness's timeline."""
    own = [window.first for window in windows if window.timeline == witness.plan.timeline]
    return min(own, default=datetime.min.replace(tzinfo=UTC))


def _compare(found: Rehearsal, witness: Witness, folder: Path) -> bool:
    """Bring another backup to where the witness stands; both must say the same."""
    path, name = folder / "led", witness.artifact.path.name
    for each in (path, folder / "witness"):  # of a try that failed
        each.unlink(missing_ok=True)
    found.log.progress(f"Comparing with {name}")
    staged = stage_moment(witness.plan, path, found.log)
    with path.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == witness.artifact.metadata.content.sha256
    if not same:
        # Pages that nothing uses may differ: a file that was made shorter and longer again has nothing in them.
        stage_database(witness.artifact, folder / "witness", found.log)
        same = content_sha256(path) == content_sha256(folder / "witness")
        (folder / "witness").unlink()
    path.unlink()
    by = f"{witness.plan.base.path.name} and {len(witness.plan.pieces)} increments"
    if same:
        found.evidence.append(f"{by} lead to what {name} holds, {sum(staged.facts.rows.values()):,} rows")
    else:
        found.failures.append(f"{by} lead to another content than {name} holds: one of them is wrong; {_cure()}")
    return same


def _cure() -> str:
    """What brings the archive in order, and proves it."""
    return f"make a whole backup now ({tool()} backup daily), then look what `{tool()} archive verify` says"
