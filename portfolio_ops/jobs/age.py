"""Let the archive keep fewer moments of what is longer ago: after a day each minute, after a week each hour.

Where a base lies in a file is told by positions in generations of the WAL. A window may see many generations pass, and
a merged file knows only those at its ends. So the cut behind each base stays, too: then its position tells as before,
exactly and without a clock, and nothing that was reached from it is lost. It costs a cut for each backup.

A file is merged under a temporary name and proved. Only then it gets its own; only then what it was made of goes. So
whoever dies in between leaves both, or a part of the sources; the next run proves it again, and goes on.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from portfolio_ops.config import Site
from portfolio_ops.errors import BusyError, PortfolioOpsError, VerificationError, explained
from portfolio_ops.host import messages
from portfolio_ops.host.files import TEMPORARY_PREFIX, fsync_directory, remove_temporaries, require_space
from portfolio_ops.host.journal import Log
from portfolio_ops.sqlite.increment import RAW, Increment, scan
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.store import timeline
from portfolio_ops.store.artifact import Kind
from portfolio_ops.store.lock import RESTORE, held, is_held
from portfolio_ops.store.timeline import HOUR, MINUTE

if TYPE_CHECKING:
    from portfolio_ops.restore.history import History

SECONDS_KEPT = timedelta(hours=24)
MINUTES_KEPT = timedelta(days=7)

_DAY = timedelta(days=1)
_LONGEST = 1200.0
"""Seconds after which no other merge is begun: the unit of the daily backup has an hour. The next day goes on."""


def age_increments(site: Site, now: datetime, *, wait: timedelta) -> None:
    """Merge what has come of age, while no restore and no base is being made.

    What cannot be merged stays as it is, and is told in the journal. A restore that begins waits for one merge at most.

    Args:
        now: With a zone.

    Raises:
        BusyError: A restore or a base is being made, for longer than `wait`.
    """
    log = Log(site=site.name, job="archive")
    try:
        if not timeline.own(site.backups, site.name):
            return
        with held(site.state, Kind.WAL.value, wait=wait, on_wait=lambda _: None):
            remove_temporaries(site.backups / Kind.WAL.folder)
            ends = time.monotonic() + _LONGEST
            for resolution, before in ((MINUTE, now - SECONDS_KEPT), (HOUR, now - MINUTES_KEPT)):
                _age(site, resolution, before, ends, log)
    except BusyError:
        raise
    except (PortfolioOpsError, OSError) as error:
        failure = error if isinstance(error, PortfolioOpsError) else explained(error)
        log.event(
            messages.MERGE_FAILED,
            f"Older increments could not be merged, and stay as they are: {failure.message}",
            error=failure.code,
            suggestion=failure.suggestion,
        )


def _age(site: Site, resolution: int, before: datetime, ends: float, log: Log) -> None:
    """Merge into one resolution what ended before a moment, as long as nobody waits.

    Raises:
        PortfolioOpsError: There is no room.
        OSError: The disk is full or fails.
    """
    from portfolio_ops.restore import points  # noqa: PLC0415  (only where there is an archive)

    found = points.read(site)
    for history in found:
        increments = sorted(history.increments, key=lambda each: each.cuts[-1].seen)
        # The newest of all may be written now.
        free = increments[:-1] if history is found[-1] else increments
        kept = _behind_bases(history)
        groups = _hours(free, before) if resolution == MINUTE else _days(increments, free, before)
        for group in groups:
            if is_held(site.state, RESTORE) or time.monotonic() >= ends:
                return
            try:
                _require_whole(history, group)
                _merge(site, group, resolution, kept, log)
            except VerificationError as error:
                log.event(
                    messages.MERGE_FAILED,
                    f"Not merged: {error.message}",
                    file=f"{history.timeline.id}/{group[0].path.name}",
                )


def _behind_bases(history: "History") -> set[Position]:
    """Where the first cuts end that are not before a base; for one that lies where a file begins, none is needed."""
    files = {increment.path: increment for increment in history.increments}
    return {
        files[path].cuts[index].position
        for base in history.bases
        for path, index in base.places.items()
        if base.position != files[path].cuts[0].since
    }


def _hours(increments: Sequence[Increment], before: datetime) -> Iterator[list[Increment]]:
    """The files of seconds that ended before a moment, each for itself."""
    for each in increments:
        if each.head.resolution == RAW and each.cuts[-1].seen < before:
            yield [each]


def _days(increments: Sequence[Increment], free: Sequence[Increment], before: datetime) -> Iterator[list[Increment]]:
    """The files of minutes of each day that ended before a moment; a day of which seconds are left has to wait."""
    for day, group in itertools.groupby(increments, key=lambda each: _day_of(each.cuts[-1].seen)):
        files = list(group)
        minutes = [each for each in files if each.head.resolution == MINUTE]
        whole = all(each.head.resolution != RAW and each in free for each in files)
        if whole and minutes and day + _DAY <= before:
            yield minutes


def _day_of(moment: datetime) -> datetime:
    """When a moment's day began, in UTC."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _require_whole(history: "History", group: Sequence[Increment]) -> None:
    """Check that nothing is wrong with files. What is torn off at the end of a timeline was never archived.

    Raises:
        VerificationError: They must be left as they are.
    """
    last = max(each.cuts[-1].seen for each in history.increments)
    for each in group:
        if each.damaged:
            raise VerificationError(f"{each.path}: {each.damaged}")
        if each.torn and each.cuts[-1].seen < last and not history.following(each):
            raise VerificationError(f"{each.path} ends in a flush that is torn, and what came behind it is missing")


def _merge(site: Site, group: Sequence[Increment], resolution: int, kept: set[Position], log: Log) -> None:
    """Make one file of some, and let them go.

    Raises:
        VerificationError: They are not what was written, or something is missing between them; they are left.
        RefusedError: There is no room.
        OSError: The disk is full or fails.
    """
    from portfolio_ops.sqlite.merge import prove_part  # noqa: PLC0415

    target = group[0].path.with_name(timeline.name_of(group[0].cuts[0].seen, resolution))
    if target.exists():
        prove_part(group, scan(target), kept)
    else:
        _publish(site, group, resolution, kept, target)
    size = sum(each.path.stat().st_size for each in group)
    for each in group:
        each.path.unlink()
    fsync_directory(target.parent)
    log.event(
        messages.INCREMENTS_MERGED,
        f"Merged {len(group)} files into {target.parent.name}/{target.name}",
        artifact=target.name,
        bytes=target.stat().st_size,
        content_bytes=size,
    )


def _publish(site: Site, group: Sequence[Increment], resolution: int, kept: set[Position], target: Path) -> None:
    """Merge files, and give what came of it its name once it is proved.

    Raises:
        VerificationError: As `_merge`; nothing is published.
        RefusedError: There is no room.
        OSError: The disk is full or fails; nothing is published.
    """
    from portfolio_ops.sqlite.increment_writer import IncrementWriter  # noqa: PLC0415  (numpy)
    from portfolio_ops.sqlite.merge import bytes_needed, merge, prove_equal  # noqa: PLC0415

    # The archive may make files beside the target now. It makes none in this folder, whose lock we hold.
    folder = site.backups / Kind.WAL.folder
    require_space(folder, bytes_needed(group, resolution))
    temporary = folder / f"{TEMPORARY_PREFIX}{target.name}"
    head = replace(group[0].head, resolution=resolution)
    try:
        with contextlib.closing(IncrementWriter.create(temporary, head)) as writer:
            merged = merge(group, writer, folder, kept)
        prove_equal(group, merged, kept)
        os.link(temporary, target)
        fsync_directory(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
