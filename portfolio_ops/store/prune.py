"""Deleting what retention lets go."""

import os
from collections.abc import Sequence
from pathlib import Path

from portfolio_ops.host.files import fsync_directory
from portfolio_ops.store.artifact import Artifact, read_artifact
from portfolio_ops.store.retention import Verdict


def carry_out(verdicts: Sequence[Verdict]) -> list[Artifact]:
    """Delete every artifact whose verdict says so; the caller holds the lock of its kind.

    Each is read once more first: what stands under the name must still be what was judged.

    Returns:
        What was deleted.

    Raises:
        PortfolioOpsError: A file is no longer the artifact that was judged; nothing further is deleted.
        OSError: A file cannot be deleted.
    """
    gone: list[Artifact] = []
    for verdict in verdicts:
        if verdict.keep:
            continue
        if read_artifact(verdict.artifact.path).id == verdict.artifact.id:
            os.unlink(verdict.artifact.path)  # noqa: PTH108  (one system call, named as in unlink(2))
            gone.append(verdict.artifact)
    for folder in {artifact.path.parent for artifact in gone}:
        fsync_directory(Path(folder))
    return gone
