"""What a restore would do, found out before anything is touched."""

import contextlib
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import (
    NotFoundError,
    NotPermittedError,
    PortfolioOpsError,
    RefusedError,
    UsageError,
    explained,
)
from portfolio_ops.host import backend
from portfolio_ops.host.files import free_bytes
from portfolio_ops.host.holders import Holder, holders, identity_of, is_of_a_login
from portfolio_ops.mount import read_only
from portfolio_ops.restore.named import database_at
from portfolio_ops.restore.points import MomentPlan
from portfolio_ops.sqlite import removed
from portfolio_ops.sqlite.connection import reading
from portfolio_ops.sqlite.place import SIDES, located, require_plain_files, require_the_sites
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Artifact, Kind
from portfolio_ops.store.lock import ARCHIVING, holder_of

_INSTANT = timedelta(microseconds=1)
_LATELY = timedelta(days=7)


@dataclass(frozen=True)
class Plan:
    """A restore of a whole database.

    Attributes:
        artifact: Where it comes from.
        target: Where it goes, symlinks resolved.
        in_place: Whether the target is the site's live database.
        exists: Whether there is a live database to be kept.
        holders: Who has it open now.
        running: Whether the backend runs; None where it cannot be asked.
        foreign: Why the artifact may not belong here, in words; empty if it looks at home.
        free: Bytes free where it goes.
        moment: What is restored, if the artifact is only its base.
        later: The last moment that could be restored instead, if there is one after a whole backup.
        fuller: The last whole backup of the week before it that held much more, if there is one.
    """

    artifact: Artifact
    target: Path
    in_place: bool
    exists: bool
    holders: tuple[Holder, ...]
    running: bool | None
    foreign: tuple[str, ...]
    free: int
    moment: MomentPlan | None = None
    later: datetime | None = None
    fuller: Artifact | None = None


def choose(site: Site, reference: str) -> Artifact:
    """The artifact that a person names: `latest`, an ID or its beginning, a file's name, or a path to a file anywhere.

    Raises:
        NotFoundError: There is none.
        UsageError: There are several, or it holds something else than a database.
        NotPermittedError: The site's owner may not read it.
        RefusedError: It is no regular file, or of a newer format; or a plain database, or packed by other means.
        NotAnArtifactError: It is a file, and no artifact, or a damaged one.
    """
    artifact = _chosen(site, reference)
    if not artifact.metadata.kind.holds_database:
        raise UsageError(
            f"{artifact.path.name} holds {artifact.metadata.kind.value}, not a whole database",
            suggestion=f"social exports: {tool()} restore social; logs: {tool()} logs show",
        )
    return artifact


def choose_event(site: Site, reference: str) -> Artifact:
    """The event backup that a person names: by a gallery's name, by an ID or its beginning, or by a file's name.

    Raises:
        NotFoundError: There is none.
        UsageError: There are several.
    """
    events = catalogue.scan(site.backups, site.name, [Kind.EVENT])
    named = [each for each in events.artifacts if reference in _names(each)]
    if len(named) > 1:
        names = ", ".join(f"{each.id} {each.path.name}" for each in named[-4:])
        raise UsageError(f"there were several events of {reference!r}: {names}", suggestion="give the ID of one")
    return named[0] if named else catalogue.find(events, reference)


def _names(event: Artifact) -> list[Any]:
    """What an event backup is for: one name, or those of all rows that were added."""
    names = event.metadata.details.get("names")
    return [event.metadata.details.get("name"), *(names if isinstance(names, list) else [])]


def just_before(event: Artifact) -> datetime:
    """The last moment before an event. Rows that the archive saw were there for some seconds when it made the backup.

    Raises:
        UsageError: It is not known: they were added while the archive did not run.
    """
    before = event.metadata.details.get("before")
    if before is None:
        return event.taken - _INSTANT
    try:
        return datetime.fromisoformat(before).astimezone(UTC)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"when the rows of {event.path.name} were added is not known: the archive did not run",
            suggestion=f"find a moment in `{tool()} list points`, and give it with --at",
        ) from error


def _chosen(site: Site, reference: str) -> Artifact:
    if "/" in reference or os.path.lexists(reference):
        return database_at(Path(reference).absolute())
    return catalogue.find(catalogue.scan(site.backups, site.name), reference)


def fuller_before(site: Site, artifact: Artifact) -> Artifact | None:
    """The last whole backup that held much more: at least twice the rows, or a table that this one lacks.

    Only those of the week before it count. None where there is none, and of an artifact that is none of the site's own.
    """
    backups = [each for each in catalogue.databases(site.backups, site.name) if not each.put_away]
    before = [each for each in backups if timedelta() < artifact.taken - each.taken <= _LATELY]
    rows: dict[str, int] = artifact.metadata.details.get("rows", {})

    def is_much_more(had: dict[str, int]) -> bool:
        return sum(had.values()) >= 2 * max(1, sum(rows.values())) or bool(had.keys() - rows.keys())

    if artifact not in backups:
        return None
    return next((each for each in reversed(before) if is_much_more(each.metadata.details.get("rows", {}))), None)


def plan_beside(site: Site, artifact: Artifact, target: Path) -> Plan:
    """A restore to a new file.

    Raises:
        RefusedError: The target exists.
        NotFoundError: Its folder does not.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100  (resolve() would follow a link that stands there)
    if os.path.lexists(target):
        raise RefusedError(
            f"{target} exists already", suggestion="name a file that does not exist; nothing is replaced"
        )
    if not target.parent.is_dir():
        raise NotFoundError(f"there is no folder {target.parent}", suggestion="make it first")
    foreign = foreign_site(site, artifact)
    return Plan(artifact, target, False, False, (), None, foreign, free_bytes(target.parent))


def plan_in_place(site: Site, artifact: Artifact) -> Plan:
    """A restore over the live database. Looks only; what it finds is looked at again when it counts.

    Raises:
        NotFoundError: The folder of the database does not exist.
        RefusedError: The live database is something else than a file, or a side file is, or one has a name elsewhere;
            or a process has the one open still that was removed.
        NotPermittedError: Its folder cannot be written; or it, or a side file, is somebody else's.
        BackendError: The backend cannot be asked.
    """
    target = located(site.database)
    if not target.parent.is_dir():
        raise NotFoundError(
            f"there is no folder {target.parent}", suggestion="is the volume mounted? Or make the folder, the owner's"
        )
    if os.path.lexists(target) and not target.is_file():
        raise RefusedError(f"{target} is not a regular file", suggestion="correct [site] database")
    require_plain_files(target)
    require_none_removed(site, target)
    require_the_sites(target)
    _require_ours(target)
    running = backend.is_running(site.backend) if backend.is_known(site.backend) else None
    return Plan(
        artifact=artifact,
        target=target,
        in_place=True,
        exists=target.exists(),
        holders=tuple(others_that_hold(site, target)),  # the archive lets go when it is asked to
        running=running,
        foreign=foreign_site(site, artifact) + _foreign_database(target, artifact),
        free=free_bytes(target.parent),
    )


def who_holds(database: Path) -> list[Holder]:
    """The processes that have the database or a side file of it open."""
    files = [identity_of(Path(f"{database}{side}")) for side in ("", *SIDES)]
    return holders(file for file in files if file is not None)


def others_that_hold(site: Site, database: Path) -> list[Holder]:
    """The processes that have it open, but for the site's own archive."""
    archiver = holder_of(site.state, ARCHIVING)
    return [each for each in who_holds(database) if each.pid != archiver]


def require_none_removed(site: Site, database: Path) -> None:
    """Refuse while a process has a database open that was removed: to stop it for a restore would lose all of that.

    Raises:
        RefusedError: One has.
    """
    lost = removed.look(database, but=holder_of(site.state, ARCHIVING))
    if lost is not None:
        raise RefusedError(
            f"{lost.text}: for a restore it would have to end, and all of that with it",
            suggestion=f"{lost.cure}. If nothing of it is wanted: stop the site yourself, and try again",
        )


def foreign_site(site: Site, artifact: Artifact) -> tuple[str, ...]:
    """That an artifact is of another site, in words; empty if it is not."""
    theirs = artifact.metadata.site
    return () if theirs == site.name else (f"it is of the site {theirs}, this is {site.name}",)


def require_at_home(name: str, foreign: Sequence[str], words: str) -> None:
    """Refuse what looks foreign, unless a person says why it is right.

    Args:
        name: Of what is to be restored.
        foreign: Why it may not belong here.
        words: Of the person.

    Raises:
        RefusedError: It looks foreign, and nothing was said.
    """
    if foreign and not words.strip():
        raise RefusedError(
            f"{name} does not look as if it belonged here: {'; '.join(foreign)}",
            suggestion='if it does, say why: --force "the words go into the journal"',
        )


def require_a_way_to_stop(site: Site, target: Path, who: Sequence[Holder], *, running: bool | None) -> None:
    """Refuse to restore over a database that is in use by what we cannot stop, before anything is stopped for it.

    Who belongs to the backend is not known, but for this: what a compose service runs is in no login.

    Args:
        target: The live database.
        who: Has it open.
        running: Whether the backend runs; None where it cannot be asked.

    Raises:
        RefusedError: So it is.
    """
    if who and not (backend.is_known(site.backend) and running):
        raise RefusedError(
            f"{target} is in use by {', '.join(map(str, who))}",
            suggestion="the backend says it does not run; end that process yourself"
            if backend.is_known(site.backend)
            else f"stop it yourself, or tell how to in {site.file}: [backend] compose, or stop, start and status",
        )
    logins = [each for each in who if is_of_a_login(each)] if site.backend.running_service else []
    if logins:
        raise RefusedError(
            f"{target} is in use by {', '.join(map(str, logins))} in somebody's login, which does not end with "
            f"{site.backend.described}",
            suggestion="end that first, then try again; nothing was stopped",
        )


def _require_ours(target: Path) -> None:
    """The folder can be written, and what lies beside the database is of its owner: found out before anything stops.

    Raises:
        NotPermittedError: Not so.
    """
    if not os.access(target.parent, os.W_OK | os.X_OK, effective_ids=True):
        if read_only(target.parent):
            raise explained(OSError(errno.EROFS, "", str(target.parent)))
        raise NotPermittedError(
            f"{target.parent} may not be written by uid {os.geteuid()}, the owner of the site's data",
            suggestion=f"chown {os.geteuid()} {target.parent}",
        )
    for ending in SIDES:
        beside = Path(f"{target}{ending}")
        with contextlib.suppress(FileNotFoundError):
            if beside.stat().st_uid != target.stat().st_uid:
                raise NotPermittedError(
                    f"{beside} is not of the owner of the database",
                    suggestion=f"chown --reference={target} {beside}",
                )


def _foreign_database(database: Path, artifact: Artifact) -> tuple[str, ...]:
    """What differs so much from the live database that this may be of another. What cannot be read is no sign."""
    stated = artifact.metadata.details
    try:
        with reading(database) as connection:
            page_size = int(connection.pragma("page_size"))
            tables = {str(row[0]) for row in connection.execute(_TABLES)}
    except (PortfolioOpsError, apsw.Error):
        return ()
    found = []
    if stated.get("page_size") not in {None, page_size}:
        found.append(f"its pages are of {stated['page_size']} bytes, the live database's of {page_size}")
    missing = tables - set(stated.get("rows", tables))
    if len(missing) * 2 > len(tables):
        names = ", ".join(sorted(missing)[:4])
        found.append(f"it lacks {len(missing)} of the live database's {len(tables)} tables ({names}, ...)")
    return tuple(found)


_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
