"""An artifact: one published file that holds its content, compressed, and says what it is.

Layout, front to back:

1. one or more zstd frames: the content (RFC 8878, section 3.1.1). `zstd -d` gives it back.
2. one zstd *skippable* frame (RFC 8878, section 3.1.2), which `zstd -d` passes over:
   the metadata as JSON, then a footer of fixed length by which it is found from the file's end.

So one rename publishes content and metadata together, and a file cut short anywhere has no footer: it cannot be
mistaken for an artifact.
"""

import hashlib
import json
import os
import re
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, unique
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from portfolio_ops import __version__
from portfolio_ops.errors import RefusedError, VerificationError
from portfolio_ops.host.files import open_regular

if TYPE_CHECKING:
    from concurrent.futures import Future

FORMAT = 1

_SKIPPABLE = struct.Struct("<II")  # magic, length of what follows
_SKIPPABLE_MAGIC = 0x184D2A5F
_FOOTER = struct.Struct("<8sI8s")  # first bytes of the metadata's sha-256, its length, signature
_SIGNATURE = b"pf-ops\x00\x01"
_METADATA_MOST = 16 << 20
_CHUNK = 1 << 20
_AHEAD = 4  # chunks that are decoded and not yet hashed and written: what is held in memory

CLOCK_SLACK = timedelta(minutes=5)
"""An artifact that is dated later than this from now is of a clock that was wrong."""

BEFORE_RESTORE = "before-restore"
"""The event of an artifact that holds what was there before a restore."""

DISK_IS_SUSPECT = "the disk or memory is suspect: run the job again, and check the kernel log for I/O errors"


@unique
class Kind(Enum):
    """What an artifact holds; the value is its retention key and its name on the command line."""

    DAILY = "daily"
    SOCIAL = "social"
    EVENT = "event"
    LOGS = "logs"
    WAL = "wal"

    @property
    def folder(self) -> str:
        """The folder below `backups/`."""
        return {Kind.EVENT: "event-triggered", Kind.LOGS: "logs-archive"}.get(self, self.value)

    def may_name(self, name: str) -> bool:
        """Whether an artifact of this kind can have a name: nobody else's file has one like that by chance."""
        ending = {Kind.SOCIAL: "sql", Kind.LOGS: "log"}.get(self, "sqlite")
        return re.fullmatch(rf".+-\d{{4}}-\d\d-\d\d(-\d{{6}})?(-\d+)?\.{ending}\.zst", name) is not None

    @property
    def holds_database(self) -> bool:
        """Whether the content is a whole database file."""
        return self in {Kind.DAILY, Kind.EVENT, Kind.WAL}


class NotAnArtifactError(VerificationError):
    """A file in an artifact folder is not (or no longer) an artifact: foreign, cut short, or altered."""

    code = "NOT_AN_ARTIFACT"


@dataclass(frozen=True)
class Content:
    """The decoded content: hex SHA-256 and length in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Metadata:
    """What an artifact says of itself.

    Attributes:
        kind: What it holds.
        site: The site's name.
        taken: The moment of its content, UTC. Retention goes by this, never by the file's times.
        content: Hash and length of the decoded content.
        details: JSON values that depend on the kind: row counts, position, event name, byte range.
    """

    kind: Kind
    site: str
    taken: datetime
    content: Content
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A published file.

    Attributes:
        path: Where it is.
        id: Twelve hex digits that no other artifact shares; they follow from the metadata.
        metadata: What it says of itself.
        bytes: Length of the file.
        payload: Hash and length of its compressed content, from the front.
    """

    path: Path
    id: str
    metadata: Metadata
    bytes: int
    payload: Content

    @property
    def taken(self) -> datetime:
        """The moment of its content, UTC."""
        return self.metadata.taken

    @property
    def put_away(self) -> bool:
        """Whether it holds what was there before a restore: somebody wanted to leave that state."""
        return self.metadata.details.get("event") == BEFORE_RESTORE


def encode_trailer(metadata: Metadata, payload: Content) -> bytes:
    """The skippable frame that closes an artifact whose compressed content is `payload`."""
    document = {
        "format": FORMAT,
        "kind": metadata.kind.value,
        "site": metadata.site,
        "taken": metadata.taken.astimezone(UTC).isoformat(timespec="microseconds"),
        "content": {"sha256": metadata.content.sha256, "bytes": metadata.content.bytes},
        "payload": {"sha256": payload.sha256, "bytes": payload.bytes},
        "made_by": f"portfolio-ops {__version__}",
        "details": metadata.details,
    }
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode()
    footer = _FOOTER.pack(hashlib.sha256(text).digest()[:8], len(text), _SIGNATURE)
    return _SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(text) + len(footer)) + text + footer


def read_artifact(path: Path) -> Artifact:
    """Read what a file says of itself: its end only, whatever its size.

    Raises:
        NotAnArtifactError: It is no artifact, or cut short, or altered.
        RefusedError: It is of a newer format.
        PortfolioOpsError: It cannot be opened, or is not a regular file.
    """
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        text, payload_bytes = _metadata_text(descriptor, size, path)
    finally:
        os.close(descriptor)
    metadata, payload = _parse(text, path)
    if payload.bytes != payload_bytes:
        raise NotAnArtifactError(
            f"{path} holds {payload_bytes} bytes of content where its metadata says {payload.bytes}"
        )
    return Artifact(path, hashlib.sha256(text).hexdigest()[:12], metadata, size, payload)


def _metadata_text(descriptor: int, size: int, path: Path) -> tuple[bytes, int]:
    """The metadata's JSON text, and the number of bytes before its frame."""
    hint = "an unfinished or foreign file; move it away"
    if size < _SKIPPABLE.size + _FOOTER.size:
        raise NotAnArtifactError(f"{path} is too short ({size} bytes) to be an artifact", suggestion=hint)
    digest, length, signature = _FOOTER.unpack(os.pread(descriptor, _FOOTER.size, size - _FOOTER.size))
    if signature != _SIGNATURE:
        raise NotAnArtifactError(f"{path} does not end as an artifact does", suggestion=hint)
    start = size - _FOOTER.size - length - _SKIPPABLE.size
    if start < 0 or length > _METADATA_MOST:
        raise NotAnArtifactError(f"{path} states metadata longer than the file", suggestion=hint)
    header = os.pread(descriptor, _SKIPPABLE.size, start)
    text = os.pread(descriptor, length, start + _SKIPPABLE.size)
    if (
        header != _SKIPPABLE.pack(_SKIPPABLE_MAGIC, length + _FOOTER.size)
        or hashlib.sha256(text).digest()[:8] != digest
    ):
        raise NotAnArtifactError(f"the metadata of {path} is damaged", suggestion="restore from another artifact")
    return text, start


def _parse(text: bytes, path: Path) -> tuple[Metadata, Content]:
    """The metadata and the payload that `text` states."""
    try:
        document = json.loads(text)
        if document["format"] > FORMAT:
            raise RefusedError(
                f"{path} has format {document['format']}, this portfolio-ops reads up to {FORMAT}",
                suggestion="use the portfolio-ops that wrote it, or a newer one",
            )
        taken = datetime.fromisoformat(document["taken"]).astimezone(UTC)
        kind, site, details = Kind(document["kind"]), str(document["site"]), {**document["details"]}
        return Metadata(kind, site, taken, _content(document["content"]), details), _content(document["payload"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise NotAnArtifactError(f"the metadata of {path} cannot be understood ({error!r})") from error


def _content(document: dict[str, Any]) -> Content:
    digest, length = document["sha256"], document["bytes"]
    if not isinstance(digest, str) or not isinstance(length, int) or length < 0:
        raise TypeError("a hash or a length is none")
    return Content(digest, length)


def decode(file: BinaryIO, payload_bytes: int) -> Iterator[bytes]:
    """Stream the decoded content of an open artifact, in constant memory.

    Args:
        file: The artifact, at its start.
        payload_bytes: How much of it is content.

    Raises:
        VerificationError: The compressed data is damaged. Truncation shows in the length, which the caller compares.
    """
    yield from _decoded(_Bounded(file, payload_bytes))


def decode_content(file: BinaryIO, payload_bytes: int, sink: BinaryIO | None) -> tuple[Content, Content]:
    """Decode an open artifact from its start; zstd's own checksums are held against what comes out.

    Args:
        file: The artifact, at its start.
        payload_bytes: How much of it is content.
        sink: Receives the decoded bytes, for checks that need the content as a file.

    Returns:
        The content, and the payload as it was read: a bit that changes nothing in the content still changes its hash.

    Raises:
        VerificationError: The compressed data is damaged.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  (`list` and `status` never decode)

    source = _Bounded(file, payload_bytes)
    digest, length = hashlib.sha256(), 0
    pending: deque[list[Future[Any]]] = deque()
    # Decoding, hashing and writing each release the interpreter: side by side they take as long as the slowest.
    with ThreadPoolExecutor(1) as hasher, ThreadPoolExecutor(1) as writer:
        for chunk in _decoded(source):
            length += len(chunk)
            work = [hasher.submit(digest.update, chunk)]
            pending.append(work if sink is None else [*work, writer.submit(sink.write, chunk)])
            if len(pending) > _AHEAD:
                _done(pending.popleft())
        while pending:
            _done(pending.popleft())
    return Content(digest.hexdigest(), length), Content(source.digest.hexdigest(), payload_bytes)


def _done(work: "list[Future[Any]]") -> None:
    """Wait for a chunk; what went wrong with it is raised here."""
    for each in work:
        each.result()


def _decoded(source: "_Bounded") -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415  (`list` and `status` never decode)

    reader = zstandard.ZstdDecompressor().stream_reader(
        cast("BinaryIO", source), read_size=_CHUNK, read_across_frames=True, closefd=False
    )
    try:
        while chunk := reader.read(_CHUNK):
            yield chunk
    except zstandard.ZstdError as error:
        raise VerificationError(
            f"the compressed data cannot be decoded: {error}", suggestion=DISK_IS_SUSPECT
        ) from error


class _Bounded:
    """The first bytes of a file, as something to read from; hashed on the way."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._left = file, length
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= len(data)
        self.digest.update(data)
        return data
