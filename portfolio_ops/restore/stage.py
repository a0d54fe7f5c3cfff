"""An artifact's content as a file again, checked in full before anyone relies on it.

Every restore, every verification and every drill goes through here: what is rehearsed is what is done.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from portfolio_ops.calling import tool
from portfolio_ops.errors import NotPermittedError, RefusedError, VerificationError
from portfolio_ops.host.files import (
    TEMPORARY_PREFIX,
    fsync_directory,
    naming,
    open_regular,
    require_space,
    start_writeback,
)
from portfolio_ops.host.journal import Log
from portfolio_ops.sqlite.check import DatabaseFacts, check_database
from portfolio_ops.store.artifact import Artifact, decode_content

_MODE = 0o640
_WRITEBACK_BYTES = 8 << 20


@dataclass(frozen=True)
class Staged:
    """A checked database that nobody uses yet.

    Attributes:
        path: Where it is; its maker removes it.
        facts: What the checks found in it.
        decode_seconds: How long decoding and hashing took.
        check_seconds: How long the checks of the database took.
    """

    path: Path
    facts: DatabaseFacts
    decode_seconds: float
    check_seconds: float


def stage_database(artifact: Artifact, path: Path, log: Log) -> Staged:
    """Decode a database to `path` and check it: hashes, structure, indices, rows and schema as its metadata says.

    Args:
        artifact: Of a kind that holds a database.
        path: A new file; on failure it is removed.
        log: Hears how far it is.

    Raises:
        VerificationError: It is not what it should be.
        RefusedError: It does not fit.
        OSError: The disk is full or fails.
    """
    began = time.monotonic()
    decode_to(artifact, path, log)
    try:
        decoded = time.monotonic()
        log.progress("Checking the database")
        facts = _checked(artifact, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Staged(path, facts, decoded - began, time.monotonic() - decoded)


def restore_beside(target: Path, stage: Callable[[Path], Staged]) -> Staged:
    """Restore a database to a new file. It gets its name when it is checked, and not by replacing anything.

    Args:
        stage: Makes a checked database at the path that it is given, durably.

    Raises:
        RefusedError: The name is taken, or it does not fit.
        VerificationError: What it is made of is not what it should be.
        OSError: The disk is full or fails.
    """
    work = target.with_name(f"{TEMPORARY_PREFIX}{target.name}-{os.getpid()}")
    staged = stage(work)
    try:
        work.chmod(_MODE)
        try:
            os.link(work, target)
        except FileExistsError as error:
            raise RefusedError(f"{target} exists by now", suggestion="name a new file") from error
        fsync_directory(target.parent)
    finally:
        work.unlink()
    return replace(staged, path=target)


def decode_to(artifact: Artifact, path: Path, log: Log, *, durable: bool = True) -> None:
    """Decode an artifact's content to a new file, and compare its hashes.

    Args:
        durable: Whether it has reached the disk on return. If not, the caller sees to that, once it is complete.

    Raises:
        VerificationError: It is damaged, or decodes to more than it states (a few bytes can decode to a full disk).
        RefusedError: It does not fit.
        OSError: The disk is full or fails.
    """
    require_space(path.parent, artifact.metadata.content.bytes)
    descriptor = open_regular(artifact.path)
    with os.fdopen(descriptor, "rb") as source, naming(path), _created(path) as target:
        try:
            os.fchmod(target.fileno(), 0o600)
            # What the page cache holds proves nothing about the disk.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            check_content(artifact, source, cast("BinaryIO", _Sink(target, artifact, log)))
            target.flush()
            if durable:
                os.fsync(target.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _created(path: Path) -> BinaryIO:
    try:
        return path.open("xb")
    except PermissionError as error:
        raise NotPermittedError(
            f"{path.parent} may not be written by uid {os.geteuid()}, the owner of the site's data",
            suggestion="restore to a folder that this user may write, for example /tmp",
        ) from error


def check_content(artifact: Artifact, source: BinaryIO, sink: BinaryIO | None = None) -> None:
    """Decode an open artifact from its start, and compare its hashes.

    Args:
        sink: Receives the decoded bytes.

    Raises:
        VerificationError: It is damaged.
    """
    try:
        found = decode_content(source, artifact.payload.bytes, sink)
    except VerificationError as error:
        raise VerificationError(f"{artifact.path}: {error.message}", suggestion=_others()) from error
    if found != (artifact.metadata.content, artifact.payload):
        raise VerificationError(f"{artifact.path} is not what was published: its hash differs", suggestion=_others())


def _checked(artifact: Artifact, path: Path) -> DatabaseFacts:
    try:
        facts = check_database(path)
    except VerificationError as error:
        raise VerificationError(f"{artifact.path}: {error.message}", suggestion=_others()) from error
    details = artifact.metadata.details
    for name, found in (
        ("rows", facts.rows),
        ("schema_sha256", facts.schema_sha256),
        ("user_version", facts.user_version),
        ("foreign_key_violations", facts.foreign_key_violations),
    ):
        if name in details and details[name] != found:
            raise VerificationError(
                f"{artifact.path} does not hold what it states: {_difference(name, details[name], found)}",
                suggestion=_others(),
            )
    return facts


def _difference(name: str, stated: object, found: object) -> str:
    if isinstance(stated, dict) and isinstance(found, dict):
        tables = sorted(table for table in stated.keys() | found.keys() if stated.get(table) != found.get(table))
        table = tables[0]
        return f"{stated.get(table, 'no')} rows of {table} stated, {found.get(table, 'no')} found"
    return f"{name} {stated} stated, {found} found"


class _Sink:
    """Writes to a file, keeps the kernel writing, tells how far it is, and never writes more than is stated."""

    def __init__(self, target: BinaryIO, artifact: Artifact, log: Log) -> None:
        self._target, self._artifact, self._log = target, artifact, log
        self._written = self._started = 0

    def write(self, chunk: bytes) -> int:
        total = self._artifact.metadata.content.bytes
        self._written += len(chunk)
        if self._written > total:
            raise VerificationError(f"decodes to more than the {total:,} bytes that it states")
        self._target.write(chunk)
        if self._written - self._started > _WRITEBACK_BYTES:
            self._started = self._written
            start_writeback(self._target.fileno())
            self._log.progress(f"Restoring {self._artifact.path.name}, {100 * self._written // total} %")
        return len(chunk)


def _others() -> str:
    """Which other artifacts there are."""
    return f"restore from another artifact: `{tool()} list`; `{tool()} verify --all` finds the sound ones"
