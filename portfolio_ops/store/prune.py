"""Deleting what retention lets go."""

import os
from collections.abc import Iterator, Sequence

from portfolio_ops.host.files import fsync_directory
from portfolio_ops.store.artifact import Artifact, read_artifact
from portfolio_ops.store.retention import Verdict


def carry_out(verdicts: Sequence[Verdict]) -> Iterator[Artifact]:
    """Delete every artifact whose verdict says so; the caller holds the lock of its kind.

    Each is read once more first: what stands under the name must still be what was judged.

    Yields:
        What was deleted, one after the other: who is told of a failure knows what had gone by then.

    Raises:
        PortfolioOpsError: A file is no longer the artifact that was judged; nothing further is deleted.
        OSError: A file cannot be deleted.
    """
    going = [verdict.artifact for verdict in verdicts if not verdict.keep]
    try:
        for artifact in going:
            if read_artifact(artifact.path).id == artifact.id:
                os.unlink(artifact.path)  # noqa: PTH108  (one system call, named as in unlink(2))
                yield artifact
    finally:
        for folder in {artifact.path.parent for artifact in going}:
            fsync_directory(folder)
