"""When each artifact was last read back and found sound, and the place of those that were not.

The memory lies beside the artifacts, which are never changed; without it only dates are lost. A bad artifact is moved
out of its folder, so that nothing that looks there can count on it, with this memory or without.
"""

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from portfolio_ops.host.files import fsync_directory, write_atomically
from portfolio_ops.store.artifact import Artifact

_NAMES_MOST = 10_000


def read(state: Path) -> dict[str, datetime]:
    """When each artifact was last found sound, by its ID; empty where the memory is lost."""
    try:
        document = json.loads((state / "verified.json").read_bytes())
        return {str(key): datetime.fromisoformat(value).astimezone(UTC) for key, value in document.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def remember(state: Path, sound: Mapping[str, datetime], present: Iterable[Artifact]) -> None:
    """Add to the memory; artifacts that are gone are forgotten."""
    known = {artifact.id for artifact in present}
    merged = {key: moment for key, moment in {**read(state), **sound}.items() if key in known}
    document = {key: moment.astimezone(UTC).isoformat(timespec="seconds") for key, moment in sorted(merged.items())}
    write_atomically(state / "verified.json", json.dumps(document, indent=1).encode())


def last(artifact: Artifact, memory: Mapping[str, datetime]) -> datetime | None:
    """When an artifact was last found sound: since its publishing, or then; None where it does not say."""
    if artifact.id in memory:
        return memory[artifact.id]
    try:
        return datetime.fromisoformat(artifact.metadata.details["verified"]["at"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError):
        return None


def quarantine_of(backups: Path) -> Path:
    """Where bad artifacts lie until a person looks at them. Nothing here is counted, pruned or restored by itself."""
    return backups / "quarantine"


def quarantine(path: Path, backups: Path) -> Path:
    """Move a bad artifact out of its folder, never over another file; the caller holds the lock of its kind.

    Returns:
        Where it is now.
    """
    folder = quarantine_of(backups)
    folder.mkdir(mode=0o750, exist_ok=True)
    for number in range(1, _NAMES_MOST):
        target = folder / (path.name if number == 1 else f"{number}-{path.name}")
        try:
            os.link(path, target)
        except FileExistsError:
            continue
        path.unlink()
        fsync_directory(folder)
        fsync_directory(path.parent)
        return target
    raise FileExistsError(f"no name is free in {folder}")


def quarantined(backups: Path) -> list[Path]:
    """What lies in quarantine."""
    folder = quarantine_of(backups)
    return sorted(folder.iterdir()) if folder.is_dir() else []
