"""Archives of logs: what they are called, what they say of themselves, and how one is made."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from portfolio_ops.config import Site
from portfolio_ops.errors import RefusedError
from portfolio_ops.host.files import free_bytes, reserve_bytes
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Artifact, Kind, Metadata
from portfolio_ops.store.publish import Draft

SUFFIX = ".log.zst"
_STEM_MOST = 100
_LOOK_EVERY = 16 << 20


@dataclass(frozen=True)
class Piece:
    """A stretch of a log's stream.

    Attributes:
        log: The log's path below the site's root.
        stream: UUID of the stream.
        start: Position of its first byte in the stream.
        end: Position after its last byte.
        since: When the piece before it ended, RFC 3339: no line of this one was written earlier. Empty if unknown.
        taken: When it ended, with a zone: no line of this one was written later.
        inode: The log's.
        token: UUID of this piece.
    """

    log: str
    stream: str
    start: int
    end: int
    since: str
    taken: datetime
    inode: int
    token: str


class Archive:
    """The folder `logs-archive/` of a site."""

    def __init__(self, site: Site, folder: Path) -> None:
        self._site, self._folder = site, folder

    def find(self, token: str) -> Artifact | None:
        """The archive that holds the piece with that UUID."""
        for artifact in catalogue.scan(self._site.backups, self._site.name, [Kind.LOGS]).artifacts:
            if artifact.metadata.details.get("token") == token:
                return artifact
        return None

    def publish(
        self, piece: Piece, chunks: Iterable[memoryview], before_publishing: Callable[[], None], **details: object
    ) -> Artifact:
        """Compress, read back and publish one piece.

        Args:
            chunks: Its bytes. Each is used before the next is asked for.
            before_publishing: Called when the archive is complete and verified, just before it gets its name.
            details: More for the metadata.

        Raises:
            PortfolioOpsError: Nothing was published.
            OSError: The disk is full or fails; nothing was published.
        """
        counter = _LineCounter(_leaving_room(chunks, self._folder))
        with Draft(self._folder) as draft:
            draft.write(counter, size=piece.end - piece.start)
            content = draft.read_back()
            before_publishing()
            metadata = Metadata(
                Kind.LOGS,
                self._site.name,
                piece.taken,
                content,
                {
                    "log": piece.log,
                    "stream": piece.stream,
                    "from": piece.start,
                    "to": piece.end,
                    "since": piece.since,
                    "lines": counter.lines,
                    "inode": piece.inode,
                    "token": piece.token,
                    "verified": {"at": datetime.now(UTC).isoformat(timespec="seconds"), "checks": ["sha256"]},
                    **details,
                },
            )
            stem = f"{stem_of(piece.log, self._names())}-{piece.taken.astimezone():%Y-%m-%d}"
            return draft.publish(stem, SUFFIX, metadata)

    def _names(self) -> list[str]:
        return [os.path.relpath(os.path.normpath(log), os.path.normpath(self._site.root)) for log in self._site.logs]


def stem_of(log: str, logs: Iterable[str]) -> str:
    """What archives of a log are called, before the date: `backend` for `logs/backend.log`.

    Where another log has the same stem, the folder and a foreign ending are in it too.
    """
    stem = Path(log).stem
    if any(other != log and Path(other).stem == stem for other in logs):
        stem = log.removesuffix(".log").replace("/", "-")
    # A name of `.tmp-...` would be swept away as unfinished.
    return re.sub(r"[^\w.-]+", "-", stem, flags=re.ASCII).strip(".-")[:_STEM_MOST] or "log"


class _LineCounter:
    """Counts line ends in what passes."""

    def __init__(self, chunks: Iterable[memoryview]) -> None:
        self._chunks = chunks
        self.lines = 0

    def __iter__(self) -> Iterator[memoryview]:
        for chunk in self._chunks:
            self.lines += bytes(chunk).count(b"\n")
            yield chunk


def _leaving_room(chunks: Iterable[memoryview], folder: Path) -> Iterator[memoryview]:
    """Stop before the disk is full. On a tight disk rotation is the cure, so it may use half of what is left."""
    floor = min(reserve_bytes(folder), free_bytes(folder) // 2)
    unseen = 0
    for chunk in chunks:
        unseen += len(chunk)
        if unseen >= _LOOK_EVERY:
            unseen = 0
            if free_bytes(folder) < floor:
                raise RefusedError(
                    f"the archive does not fit on the disk of {folder}: less than {floor:,} bytes would be left",
                    suggestion="free some space or enlarge the volume; the log is as it was",
                )
        yield chunk
