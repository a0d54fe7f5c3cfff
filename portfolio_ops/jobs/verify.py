"""Read artifacts back as a restore would; a bad one goes into quarantine, where nothing counts on it."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, unique
from pathlib import Path

from portfolio_ops.config import Site
from portfolio_ops.errors import NotFoundError, PortfolioOpsError, VerificationError, explained
from portfolio_ops.host import messages
from portfolio_ops.host.files import open_regular
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs.run import waiting
from portfolio_ops.jobs.scratch import scratch_folder
from portfolio_ops.restore.stage import check_content, decode_to, stage_database
from portfolio_ops.sqlite.dump import restored_rows
from portfolio_ops.store import catalogue, verified
from portfolio_ops.store.artifact import Artifact, Kind
from portfolio_ops.store.catalogue import Problem
from portfolio_ops.store.lock import held

_AT_REST = 60.0
"""Seconds since it was written, after which nobody is copying a file any more."""


@unique
class Found(Enum):
    """What reading an artifact back can come to."""

    SOUND = "sound"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Verdict:
    """What reading an artifact back found.

    Attributes:
        found: `UNKNOWN`: it could not be read, or there was no room for it; that says nothing of it.
        why: What is wrong; empty if it is sound.
        moved_to: Where a bad one is now; None if it stayed.
    """

    artifact: Artifact
    found: Found
    why: str
    seconds: float
    moved_to: Path | None


def verify(site: Site, artifacts: Sequence[Artifact], *, wait: timedelta) -> list[Verdict]:
    """Read artifacts back, one after the other, and remember what was found, even of a run that is ended.

    Raises:
        PortfolioOpsError: None could be read at all: another run holds the lock, or there is no scratch place.
    """
    log = Log(site=site.name, job="verify")
    verdicts: list[Verdict] = []
    with (
        held(site.state, "verify", wait=wait, on_wait=waiting(log, "verify")),
        scratch_folder(site, "verify") as folder,
    ):
        try:
            for artifact in artifacts:
                with contextlib.suppress(_Pruned):
                    verdicts.append(judge(site, artifact, folder, log))
        finally:
            now = datetime.now(UTC)
            sound = {verdict.artifact.id: now for verdict in verdicts if verdict.found is Found.SOUND}
            verified.remember(site.state, sound, catalogue.scan(site.backups, site.name).artifacts)
    return verdicts


class _Pruned(Exception):  # noqa: N818  (no error: retention may let an artifact go meanwhile)
    """The artifact is gone."""


def judge(site: Site, artifact: Artifact, folder: Path, log: Log) -> Verdict:
    """Read one artifact back; a bad one is read again, and goes into quarantine if it is bad still.

    Args:
        folder: For what is decoded; empty again afterwards.
    """
    began = time.monotonic()
    log.progress(f"Verifying {artifact.path.name}")
    try:
        why = _fault(artifact, folder, log) and _fault(artifact, folder, log)
        moved_to = condemn(site, artifact, why, log) if why else None
    except (PortfolioOpsError, OSError) as error:
        failure = error if isinstance(error, PortfolioOpsError) else explained(error)
        return Verdict(artifact, Found.UNKNOWN, failure.message, time.monotonic() - began, None)
    return Verdict(artifact, Found.BAD if why else Found.SOUND, why, time.monotonic() - began, moved_to)


def condemn(site: Site, artifact: Artifact, why: str, log: Log) -> Path | None:
    """Put a bad artifact of the site into quarantine, and tell. One that lies elsewhere is only told of."""
    moved_to = None
    if artifact.path.parent == site.backups / artifact.metadata.kind.folder:
        with held(site.state, artifact.metadata.kind.value, wait=timedelta(minutes=10), on_wait=lambda _: None):
            moved_to = verified.quarantine(artifact.path, site.backups)
    _tell_bad(log, moved_to or artifact.path, artifact.path.name, why, artifact_id=artifact.id)
    return moved_to


def _tell_bad(log: Log, lies: Path, name: str, why: str, **fields: str) -> None:
    """Tell that an artifact is bad, and where it lies now."""
    log.event(
        messages.ARTIFACT_BAD,
        f"{name} is bad and counts for nothing any more: {why}",
        artifact=name,
        folder=str(lies.parent),
        **fields,
    )


def put_away_damaged(site: Site, problems: Iterable[Problem], *, wait: timedelta) -> Iterator[Problem]:
    """Put files with an artifact's name that are none, or not any more, into quarantine; all others are left alone.

    So is what was written just now: somebody may be copying a backup back.

    Yields:
        Every problem; of what was moved its reason says where to, of what was left for now its cure.

    Raises:
        BusyError: A job of the kind runs for longer than `wait`.
        OSError: One cannot be moved.
    """
    log = Log(site=site.name, job="verify")
    kinds = {kind.folder: kind for kind in Kind}
    for problem in problems:
        path = problem.path
        if not problem.damaged:
            yield problem
        elif time.time() - path.stat().st_mtime < _AT_REST:
            yield replace(
                problem, cure=f"it was written within {_AT_REST:.0f} s, and may be being copied: verify again"
            )
        else:
            with held(site.state, kinds[path.parent.name].value, wait=wait, on_wait=lambda _: None):
                moved_to = verified.quarantine(path, site.backups)
            _tell_bad(log, moved_to, path.name, problem.reason)
            yield replace(problem, reason=f"{problem.reason}; moved to {moved_to}", cure="")


def _fault(artifact: Artifact, folder: Path, log: Log) -> str:
    """What is wrong with an artifact; empty if nothing is."""
    try:
        _examine(artifact, folder, log)
    except VerificationError as error:
        return error.message
    except NotFoundError as error:
        raise _Pruned from error
    return ""


def _examine(artifact: Artifact, folder: Path, log: Log) -> None:
    """Everything that its kind allows.

    Raises:
        VerificationError: It is bad.
    """
    path = folder / "content"
    try:
        if artifact.metadata.kind.holds_database:
            stage_database(artifact, path, log)
        elif artifact.metadata.kind is Kind.SOCIAL:
            decode_to(artifact, path, log)
            _require_rows(artifact, restored_rows(path, list(artifact.metadata.details.get("rows", {}))))
        else:
            with os.fdopen(open_regular(artifact.path), "rb") as source:
                check_content(artifact, source)
    finally:
        path.unlink(missing_ok=True)


def _require_rows(artifact: Artifact, found: dict[str, int]) -> None:
    stated = artifact.metadata.details.get("rows", found)
    if stated != found:
        raise VerificationError(f"{artifact.path.name} states rows {stated}, and restores to {found}")


def newest_of_each_kind(found: catalogue.Catalogue) -> list[Artifact]:
    """The artifacts that a restore would most likely need."""
    return [found.of(kind)[-1] for kind in Kind if found.of(kind)]
