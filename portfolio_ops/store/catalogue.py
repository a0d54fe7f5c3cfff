"""What there is, read from the artifacts alone. There is no index that could be lost or go stale."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.errors import NotFoundError, PortfolioOpsError, UsageError
from portfolio_ops.host.files import TEMPORARY_PREFIX
from portfolio_ops.store.artifact import CLOCK_SLACK, Artifact, Kind, NotAnArtifactError, read_artifact
from portfolio_ops.store.whose import another, name_of

LATEST = "latest"


@dataclass(frozen=True)
class Problem:
    """A file in an artifact folder that is no artifact of this site, or a timeline of another. It counts for nothing.

    Attributes:
        reason: Why it is none.
        site: The other site whose it is; empty where it is nobody's.
        cure: What to do; empty where that is told elsewhere.
        damaged: Whether it has the name of an artifact of its folder, and is none, or not any more.
    """

    path: Path
    reason: str
    site: str = ""
    cure: str = ""
    damaged: bool = False


@dataclass(frozen=True)
class Catalogue:
    """All artifacts, oldest first, and what else lies in their folders."""

    artifacts: tuple[Artifact, ...]
    problems: tuple[Problem, ...]

    def of(self, kind: Kind) -> list[Artifact]:
        """The artifacts of one kind, oldest first."""
        return [artifact for artifact in self.artifacts if artifact.metadata.kind is kind]


def scan(backups: Path, site: str, kinds: Iterable[Kind] = Kind) -> Catalogue:
    """Read every artifact folder. A damaged, foreign or unreadable file becomes a problem, never an exception."""
    artifacts: list[Artifact] = []
    problems: list[Problem] = []
    for kind in kinds:
        folder = backups / kind.folder
        try:
            paths = sorted(folder.iterdir())
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(Problem(folder, f"{folder} cannot be listed: {error.strerror}"))
            continue
        for path in paths:
            if path.name.startswith(TEMPORARY_PREFIX):
                continue
            # The timelines lie beside their bases.
            found = _timeline(path, site) if kind is Kind.WAL and path.is_dir() else _artifact(path, kind, site)
            if isinstance(found, Artifact):
                artifacts.append(found)
            elif found is not None:
                problems.append(found)
    artifacts.sort(key=lambda artifact: (artifact.taken, artifact.path.name))
    return Catalogue(tuple(artifacts), tuple(problems))


def databases(backups: Path, site: str) -> tuple[Artifact, ...]:
    """The whole databases, oldest first, those included that a restore put away."""
    return scan(backups, site, [kind for kind in Kind if kind.holds_database]).artifacts


def _timeline(folder: Path, site: str) -> Problem | None:
    theirs = another(folder, site)
    return Problem(folder, f"{folder} is a timeline of site {theirs!r}", theirs) if theirs else None


def _artifact(path: Path, kind: Kind, site: str) -> Artifact | Problem:
    try:
        artifact = read_artifact(path)
    except NotAnArtifactError as error:
        damaged = kind.may_name(path.name)
        cure = f"`{tool()} verify --all` moves it to quarantine/" if damaged else error.suggestion
        return Problem(path, error.message, cure=cure, damaged=damaged)
    except PortfolioOpsError as error:
        return Problem(path, error.message, cure=error.suggestion)
    except OSError as error:
        return Problem(path, f"{path} cannot be read: {error.strerror}")
    stated = artifact.metadata
    if stated.site != site:
        return Problem(path, f"{path} is an artifact of site {stated.site!r}", name_of(stated.site))
    if stated.kind is not kind:
        return Problem(path, f"{path} is of kind {stated.kind.value}, in the folder of {kind.value}")
    return artifact


def newest_database(catalogue: Catalogue, now: datetime | None = None) -> Artifact | None:
    """The newest whole database, but for those that a restore put away: somebody wanted to leave that state.

    One that is dated in the future is the newest only if there is no other: of when it is nobody knows.

    Args:
        now: With a zone; the present where it is not given.
    """
    limit = (now or datetime.now(UTC)) + CLOCK_SLACK
    wanted = [each for each in catalogue.artifacts if each.metadata.kind.holds_database and not each.put_away]
    present = [each for each in wanted if each.taken <= limit]
    return next(reversed(present or wanted), None)


def find(catalogue: Catalogue, reference: str) -> Artifact:
    """The one artifact that `reference` names: `latest` (database), an ID or its unique beginning, or a file name.

    Raises:
        NotFoundError: None is named so.
        NotAnArtifactError: What is named so is damaged.
        UsageError: Several are.
    """
    if reference == LATEST:
        if (newest := newest_database(catalogue)) is None:
            raise NotFoundError("there is no database backup yet", suggestion=f"make one: {tool()} backup daily")
        return newest
    name = Path(reference).name
    found = [artifact for artifact in catalogue.artifacts if artifact.path.name == name]
    found = found or [artifact for artifact in catalogue.artifacts if reference and artifact.id.startswith(reference)]
    found = found or [artifact for artifact in catalogue.artifacts if artifact.path.name.split(".")[0] == reference]
    if not found:
        for problem in catalogue.problems:
            if problem.damaged and reference in {problem.path.name, problem.path.name.split(".")[0]}:
                raise NotAnArtifactError(
                    f"{problem.path.name} lies there, and is damaged: {problem.reason}",
                    suggestion=f"{problem.cure}; `{tool()} list` shows the others",
                )
        raise NotFoundError(f"no artifact is named {reference!r}", suggestion=f"see `{tool()} list`")
    if len(found) > 1:
        names = ", ".join(f"{artifact.id} {artifact.path.name}" for artifact in found[:4])
        raise UsageError(f"{reference!r} means several artifacts: {names}", suggestion="give more of the ID")
    return found[0]
