"""A file that a person names for a restore, wherever it lies: an artifact, or what it is instead."""

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.errors import NotPermittedError, RefusedError
from portfolio_ops.host.files import open_regular
from portfolio_ops.store.artifact import Artifact, NotAnArtifactError, read_artifact

_SQLITE = b"SQLite format 3\0"
ZSTD = b"\x28\xb5\x2f\xfd"
_PACKED = {b"\x1f\x8b": "gunzip -k", b"BZh": "bunzip2 -k", b"\xfd7zXZ": "unxz -k", b"PK": "unzip"}


def database_at(path: Path) -> Artifact:
    """The artifact that a file is.

    Raises:
        NotPermittedError: The site's owner may not read it: it lies where only root may look, for example.
        RefusedError: It is a database without the metadata of an artifact, or packed by other means.
        NotAnArtifactError: It is damaged, or something else.
    """
    with handed_over(path):
        try:
            return read_artifact(path)
        except NotAnArtifactError as error:
            start = head_of(path)
            require_unpacked(path, start)
            if start.startswith(_SQLITE):
                raise RefusedError(
                    f"{path} is a plain SQLite database, no artifact: nothing tells what it should hold",
                    suggestion=f"sqlite3 {shlex.quote(str(path))} 'PRAGMA integrity_check'; then it can be put in"
                    " place by hand: docs/how-to/restore-by-hand.md, from `Stop the site first` on",
                ) from error
            raise damaged(error, path, start) from error


def damaged(error: NotAnArtifactError, path: Path, start: bytes) -> NotAnArtifactError:
    """What is told of a file that is no artifact, or not any more, to who wants to restore it."""
    packed = start.startswith(ZSTD)
    cure = f"`zstd -t {shlex.quote(str(path))}` tells whether its content is whole; " if packed else ""
    return NotAnArtifactError(
        f"{error.message}: " + ("cut short, damaged, or of another tool" if packed else "it is something else"),
        suggestion=f"{cure}`{tool()} list` shows what can be restored",
    )


def require_unpacked(path: Path, start: bytes) -> None:
    """Refuse what another program has compressed.

    Args:
        start: The first bytes of the file.

    Raises:
        RefusedError: So it is.
    """
    for magic, command in _PACKED.items():
        if start.startswith(magic):
            raise RefusedError(
                f"{path} is compressed by another program, and no artifact",
                suggestion=f"unpack it first: {command} {shlex.quote(str(path))}; then name what comes out",
            )


def head_of(path: Path) -> bytes:
    """The first bytes of a file, which tell what it is."""
    descriptor = open_regular(path)
    try:
        return os.pread(descriptor, len(_SQLITE), 0)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def handed_over(path: Path) -> Iterator[None]:
    """Where the site's owner may not open a file, tell how root gives it to him: what root names may be anybody's.

    Raises:
        NotPermittedError: Raised in the block, with that cure.
    """
    try:
        yield
    except NotPermittedError as error:
        copy = Path("/var/tmp") / path.name  # noqa: S108  (root's own command; `install` replaces what lies there)
        words = shlex.join(["install", "-T", "-m", "600", "-o", str(os.geteuid()), str(path), str(copy)])
        raise NotPermittedError(
            f"{error.message}, the owner of the site's data, as whom this is done",
            suggestion=f"{words}; then name {copy}",
        ) from error
