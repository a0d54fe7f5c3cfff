"""Making an artifact: compress, read back, publish. Until the last step nothing stands under a final name."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from portfolio_ops.errors import NotPermittedError, RefusedError, VerificationError
from portfolio_ops.host.files import TEMPORARY_PREFIX, fsync_directory, naming, start_writeback
from portfolio_ops.store.artifact import (
    DISK_IS_SUSPECT,
    Artifact,
    Content,
    Metadata,
    decode_content,
    encode_trailer,
    read_artifact,
)

_LEVEL = 3
_THREADS_MOST = 4  # memory grows with threads; four outrun any disk a small server has
_WRITEBACK_BYTES = 8 << 20
_MODE = 0o640
_NAMES_MOST = 10_000


class Draft:
    """An artifact in the making: a temporary file that is gone at the end of the `with` block unless published.

    Call `write`, then `read_back`, then `publish`, each once; `publish` refuses what was not read back.
    """

    def __init__(self, directory: Path) -> None:
        try:
            descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=directory)
        except PermissionError as error:
            raise NotPermittedError(
                f"{directory} may not be written by uid {os.geteuid()}",
                suggestion="give the folder to the site's owner, as the Ansible role does",
            ) from error
        self.path = Path(name)
        os.close(descriptor)
        self._file: BinaryIO = self.path.open("r+b")
        self._length: int | None = None
        self._payload_bytes = 0
        self._payload: Content | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def write(self, chunks: Iterable[bytes | memoryview], *, size: int | None = None) -> None:
        """Compress `chunks` in one pass; durable on return.

        zstd writes its own checksum of what it was given (XXH64; RFC 8878, section 3.1.1) behind the frame. By that
        `read_back` knows the content again: hashing it here too would only make the site's snapshot take longer.

        Args:
            chunks: The content. Each is used before the next is asked for, so the same buffer may serve again.
            size: Its total length in bytes where known; `zstd -l` then shows it.

        Raises:
            OSError: The disk is full or fails.
        """
        import zstandard  # noqa: PLC0415

        threads = min(len(os.sched_getaffinity(0)), _THREADS_MOST)
        compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=threads, write_checksum=True)
        length, started = 0, 0
        with (
            naming(self.path),
            compressor.stream_writer(self._file, size=-1 if size is None else size, closefd=False) as writer,
        ):
            for chunk in chunks:
                writer.write(chunk)
                length += len(chunk)
                if self._file.tell() - started > _WRITEBACK_BYTES:
                    started = self._file.tell()
                    start_writeback(self._file.fileno())
        with naming(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        self._payload_bytes = self._file.tell()
        self._length = length

    def read_back(self, sink: BinaryIO | None = None) -> Content:
        """Read the draft from the disk, decode it, and compare it with what was written.

        Args:
            sink: Receives the decoded bytes, for checks that need the content as a file.

        Returns:
            The content as it was read: what the metadata will state.

        Raises:
            VerificationError: It is not what was written.
        """
        if self._length is None:
            raise AssertionError("read_back before write")
        # What the page cache holds proves nothing about the disk.
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._file.seek(0)
        content, payload = decode_content(self._file, self._payload_bytes, sink)
        if content.bytes != self._length:
            raise VerificationError(
                f"{self.path} decodes to {content.bytes:,} bytes, not to the {self._length:,} that were written",
                suggestion=DISK_IS_SUSPECT,
            )
        self._payload = payload
        return content

    def publish(self, stem: str, suffix: str, metadata: Metadata) -> Artifact:
        """Append the metadata and give the file its final name, which must be free; nothing is ever replaced.

        The first run of a day takes `stem + suffix`; a later one adds the local time, then a counter.

        Raises:
            RefusedError: No name is free.
            OSError: The disk is full or fails; nothing is published.
        """
        if self._payload is None:
            raise AssertionError("publish before read_back")
        self._file.seek(self._payload_bytes)
        with naming(self.path):
            self._file.write(encode_trailer(metadata, self._payload))
            self._file.truncate()
            self._file.flush()
            os.fchmod(self._file.fileno(), _MODE)
            os.fsync(self._file.fileno())
        read_artifact(self.path)
        final = _link_to_free_name(self.path, _candidates(stem, suffix, metadata))
        fsync_directory(final.parent)
        return read_artifact(final)


def _candidates(stem: str, suffix: str, metadata: Metadata) -> Iterator[str]:
    yield f"{stem}{suffix}"
    time = metadata.taken.astimezone().strftime("%H%M%S")
    timed = stem if stem.endswith(f"-{time}") else f"{stem}-{time}"
    yield f"{timed}{suffix}"
    for number in range(2, _NAMES_MOST):
        yield f"{timed}-{number}{suffix}"


def _link_to_free_name(temporary: Path, names: Iterator[str]) -> Path:
    """Give the file the first free name. link(2) never replaces, where rename(2) does so silently."""
    for name in names:
        final = temporary.with_name(name)
        try:
            os.link(temporary, final)
        except FileExistsError:
            continue
        return final
    raise RefusedError(
        f"no name is free for a new artifact in {temporary.parent}", suggestion="move old artifacts away"
    )
