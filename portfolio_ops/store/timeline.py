"""Where the archive lies: a folder for each timeline below `wal/`, in it a file of increments for each hour.

Those of some age have fewer moments: a file of minutes for each hour, then a file of hours for each day.

A timeline is one unbroken history of the database. Its increments say themselves what they are and what they follow
(`sqlite/increment.py`); names and folders are for people. A restore begins with a base, which is any whole backup whose
position lies within the timeline: the one that was made at its beginning (`wal/base-...`), a daily, an event backup.
Each says which timeline was the last when it was taken; none where there was none.
"""

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from portfolio_ops.errors import PortfolioOpsError, VerificationError
from portfolio_ops.sqlite.increment import RAW, Increment, scan
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Artifact, Kind
from portfolio_ops.store.records import Records
from portfolio_ops.store.whose import SUFFIX, another

_ID = re.compile(r"\d{4}-\d{2}-\d{2}T\d{6}\.\d{6}Z-[0-9a-f]{6}")
MINUTE, HOUR = 60, 3600
"""Resolutions of files that were merged, in seconds."""

_NAMES = {RAW: "%Y-%m-%dT%HZ", MINUTE: "%Y-%m-%dT%HZ.minutes", HOUR: "%Y-%m-%d.hours"}


@dataclass(frozen=True)
class Timeline:
    """One unbroken history, as far as it is archived.

    Attributes:
        id: The moment at which it began, and a random part.
        increments: In order.
        problems: Files that are no increments of it, and why.
    """

    id: str
    folder: Path
    increments: tuple[Increment, ...]
    problems: tuple[tuple[Path, str], ...]


def following_id(backups: Path, now: datetime) -> str:
    """The name of a timeline that begins now.

    It comes behind all that there are, also where one of them was begun by a clock that was ahead. Then it is named
    after that one, and the order stays true, whatever the clock says later.
    """
    last = [began(name) + timedelta(microseconds=1) for name in ids(backups)[-1:]]
    return new_id(max([now, *last]))


def new_id(now: datetime) -> str:
    """A name for a timeline, with a moment to the microsecond: the archive can begin two in one second."""
    return f"{now.astimezone(UTC):%Y-%m-%dT%H%M%S.%fZ}-{secrets.token_hex(3)}"


def folder_of(backups: Path, timeline: str) -> Path:
    """Where its increments lie."""
    return backups / Kind.WAL.folder / timeline


def name_of(moment: datetime, resolution: int = RAW) -> str:
    """The file for the increments of the hour of `moment`, or its day, in UTC: no summer time makes two hours one."""
    return f"{moment.astimezone(UTC):{_NAMES[resolution]}}{SUFFIX}"


def ids(backups: Path) -> list[str]:
    """The timelines that there are, whosever, in the order in which they were begun."""
    folder = backups / Kind.WAL.folder
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if _ID.fullmatch(path.name) and path.is_dir())


def own(backups: Path, site: str) -> list[str]:
    """The timelines of a site, in the order in which they were begun: the last one is gone on with."""
    return [name for name in ids(backups) if not another(folder_of(backups, name), site)]


def newest_base(backups: Path, site: str) -> Artifact | None:
    """The base that was made last; None where there is none."""
    return next(reversed(catalogue.scan(backups, site, [Kind.WAL]).artifacts), None)


def began(timeline: str) -> datetime:
    """When a timeline began, as its name says: later than in truth where a clock was ahead."""
    return datetime.strptime(timeline.partition("Z")[0], "%Y-%m-%dT%H%M%S.%f").replace(tzinfo=UTC)


def newest(backups: Path, timeline: str, site: str) -> Increment | None:
    """The last file of a timeline that holds anything; None where there is none, or where it cannot be used."""
    for path in sorted(folder_of(backups, timeline).glob(f"*{SUFFIX}"), reverse=True):
        try:
            increment = _of_site(scan(path), site)
        except (PortfolioOpsError, OSError):
            return None
        if increment.cuts:
            return increment
    return None


def _of_site(increment: Increment, site: str) -> Increment:
    """An increment, once it is known to be one of the site.

    Raises:
        VerificationError: It is another's.
    """
    if increment.head.site != site:
        raise VerificationError(
            f"{increment.path} is an increment of site {increment.head.site!r}",
            suggestion="move it to the backups of that site; each site has a folder of its own",
        )
    return increment


def read(backups: Path, timeline: str, site: str, state: Path | None = None) -> Timeline:
    """Read a timeline's files, heads and records only. What cannot be read, or is another site's, becomes a problem.

    Args:
        state: Where records are remembered; without it, all are read from the disk.
    """
    folder = folder_of(backups, timeline)
    records = None if state is None else Records(state, timeline)
    increments: list[Increment] = []
    problems: list[tuple[Path, str]] = []
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    for path in paths:
        try:
            increments.append(_of_site(scan(path) if records is None else records.scan(path), site))
        except (PortfolioOpsError, OSError) as error:
            problems.append((path, str(error)))
    if records is not None:
        records.keep_only({path.name for path in paths})
    return Timeline(timeline, folder, tuple(increments), tuple(problems))
