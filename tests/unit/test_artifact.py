import contextlib
import hashlib
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_ops.errors import PortfolioOpsError, RefusedError, VerificationError
from portfolio_ops.store.artifact import (
    Artifact,
    Content,
    Kind,
    Metadata,
    NotAnArtifactError,
    decode,
    decode_content,
    read_artifact,
)
from portfolio_ops.store.publish import Draft

TAKEN = datetime(2025, 10, 14, 12, 30, 22, 5, tzinfo=UTC)


def published(folder: Path, content: bytes = b"content", stem: str = "portfolio-2025-10-14") -> Artifact:
    with Draft(folder) as draft:
        draft.write([content], size=len(content))
        stated = draft.read_back()
        return draft.publish(stem, ".sqlite.zst", Metadata(Kind.DAILY, "shop", TAKEN, stated, {"rows": {"t": 3}}))


def test_content_and_metadata_come_back(tmp_path: Path) -> None:
    artifact = published(tmp_path, b"some bytes" * 1000)
    again = read_artifact(artifact.path)
    assert again == artifact
    assert again.metadata.taken == TAKEN
    assert again.metadata.details == {"rows": {"t": 3}}
    with artifact.path.open("rb") as file:
        assert b"".join(decode(file, artifact.payload.bytes)) == b"some bytes" * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["portfolio-2025-10-14.sqlite.zst"]
    assert artifact.path.stat().st_mode & 0o777 == 0o640


def test_the_plain_zstd_program_reads_it(tmp_path: Path) -> None:
    artifact = published(tmp_path, bytes(range(256)) * 5000)
    done = subprocess.run(["zstd", "-d", "-c", artifact.path], capture_output=True, check=True)
    assert done.stdout == bytes(range(256)) * 5000
    subprocess.run(["zstd", "-q", "-t", artifact.path], check=True)


def test_nothing_is_ever_replaced(tmp_path: Path) -> None:
    time = TAKEN.astimezone().strftime("%H%M%S")
    names = [published(tmp_path, content).path.name for content in (b"1", b"2", b"3")]
    assert names == [
        "portfolio-2025-10-14.sqlite.zst",
        f"portfolio-2025-10-14-{time}.sqlite.zst",
        f"portfolio-2025-10-14-{time}-2.sqlite.zst",
    ]
    assert len({read_artifact(tmp_path / name).id for name in names}) == 3


def test_a_draft_that_is_not_published_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Draft(tmp_path) as draft:  # noqa: PT012  (the block is what is tested)
        draft.write([b"half"])
        assert len(list(tmp_path.iterdir())) == 1
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_read_back_cannot_be_published(tmp_path: Path) -> None:
    with Draft(tmp_path) as draft:
        draft.write([b"x"])
        with pytest.raises(AssertionError):
            draft.publish("x", ".zst", Metadata(Kind.DAILY, "shop", TAKEN, Content("", 1)))


def test_a_flipped_byte_on_the_disk_is_found_before_publishing(tmp_path: Path) -> None:
    with Draft(tmp_path) as draft:
        draft.write([b"a" * 100_000, bytes(range(200))])
        with draft.path.open("r+b") as file:
            file.seek(20)
            byte = file.read(1)
            file.seek(20)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.raises(VerificationError):
            draft.read_back()


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_draft_is_ever_taken_for_the_content(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int
) -> None:
    content = bytes(range(256)) * 20 + b"and so on" * 50
    with Draft(tmp_path_factory.mktemp("flip")) as draft:
        draft.write([content])
        data = bytearray(draft.path.read_bytes())
        data[position % len(data)] ^= 1 << bit
        draft.path.write_bytes(data)
        with contextlib.suppress(VerificationError):
            assert draft.read_back().sha256 == hashlib.sha256(content).hexdigest()


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    whole = published(tmp_path, b"line\n" * 500).path.read_bytes()
    cut = tmp_path / "cut.zst"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(NotAnArtifactError):
            read_artifact(cut)


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(tmp_path_factory: pytest.TempPathFactory, position: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("flip")
    artifact = published(folder, bytes(range(256)) * 20)
    data = bytearray(artifact.path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    artifact.path.write_bytes(data)
    with pytest.raises(PortfolioOpsError), artifact.path.open("rb") as file:  # noqa: PT012  (any of these may notice)
        again = read_artifact(artifact.path)
        if decode_content(file, again.payload.bytes, None) != (again.metadata.content, again.payload):
            raise VerificationError("the content or the payload differs")


def test_spliced_content_is_noticed(tmp_path: Path) -> None:
    one, two = published(tmp_path, b"one" * 100), published(tmp_path, b"a longer one" * 100)
    trailer = one.path.read_bytes()[one.payload.bytes :]
    spliced = tmp_path / "spliced.zst"
    spliced.write_bytes(two.path.read_bytes()[: two.payload.bytes] + trailer)
    with pytest.raises(NotAnArtifactError, match="where its metadata says"):
        read_artifact(spliced)


def test_a_newer_format_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portfolio_ops.store.publish.read_artifact", lambda path: path)
    monkeypatch.setattr("portfolio_ops.store.artifact.FORMAT", 2)
    published(tmp_path)
    monkeypatch.setattr("portfolio_ops.store.artifact.FORMAT", 1)
    with pytest.raises(RefusedError, match="has format 2"):
        read_artifact(next(tmp_path.iterdir()))


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    artifact = published(tmp_path)
    (tmp_path / "link").symlink_to(artifact.path)
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "link", tmp_path / "fifo", tmp_path):
        with pytest.raises(RefusedError):
            read_artifact(path)


def test_the_same_buffer_may_serve_for_every_chunk(tmp_path: Path) -> None:
    def chunks() -> Iterator[memoryview]:
        buffer = bytearray(1 << 16)
        for number in range(50):
            buffer[:] = bytes([number]) * len(buffer)
            yield memoryview(buffer)

    with Draft(tmp_path) as draft:
        draft.write(chunks())
        sink = BytesIO()
        draft.read_back(sink)
    assert sink.getvalue() == b"".join(bytes([number]) * (1 << 16) for number in range(50))


@pytest.mark.parametrize(
    "changes",
    [
        {"taken": "0001-01-01T00:00:00+14:00"},
        {"taken": "9999-12-31T23:59:59-14:00"},
        {"details": ["rows"]},
        {"details": None},
        {"content": {"sha256": "0", "bytes": "7"}},
        {"content": {"sha256": 7, "bytes": 7}},
        {"payload": {"sha256": "0", "bytes": -1}},
        {"kind": "other"},
    ],
)
def test_metadata_that_nobody_writes_is_no_artifact(tmp_path: Path, changes: dict[str, object]) -> None:
    """It must be a problem that is listed, never an exception that keeps the next backup from being made."""
    artifact = published(tmp_path)
    data = artifact.path.read_bytes()
    head = data[: artifact.payload.bytes]
    text = json.loads(data[artifact.payload.bytes + 8 : -20])
    rewrite(artifact.path, head, json.dumps({**text, **changes}).encode())
    with pytest.raises(NotAnArtifactError):
        read_artifact(artifact.path)


def test_metadata_without_a_bottom_is_no_artifact(tmp_path: Path) -> None:
    artifact = published(tmp_path)
    rewrite(artifact.path, artifact.path.read_bytes()[: artifact.payload.bytes], b"[" * 100_000)
    with pytest.raises(NotAnArtifactError):
        read_artifact(artifact.path)


def rewrite(path: Path, payload: bytes, text: bytes) -> None:
    """The file with other metadata, whose own hash is right."""
    footer = struct.pack("<8sI8s", hashlib.sha256(text).digest()[:8], len(text), b"pf-ops\x00\x01")
    path.write_bytes(payload + struct.pack("<II", 0x184D2A5F, len(text) + len(footer)) + text + footer)
