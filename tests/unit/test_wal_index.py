"""The header of the wal-index, read while a writer is in the middle of changing it."""

import os
import struct
from pathlib import Path

import pytest

from portfolio_ops.sqlite.wal_index import WalIndex, read_wal_index


def header(frames: int, salts: bytes, backfilled: int, *, page_size: int = 4096) -> bytes:
    """As the file format has it, with no heed of the checksum."""
    copy = struct.pack("=IIIBBHII8s8s8s", 3007000, 0, 0, 1, 0, page_size, frames, 9, bytes(8), salts, bytes(8))
    return copy + copy + struct.pack("=I", backfilled)


def states(monkeypatch: pytest.MonkeyPatch, *reads: bytes) -> WalIndex:
    """What is read where each look at the file finds another state."""
    remaining = list(reads)
    monkeypatch.setattr(os, "pread", lambda *_: remaining.pop(0) if len(remaining) > 1 else remaining[0])
    return read_wal_index(-1)


def test_a_writer_that_begins_the_wal_anew_has_come_to_the_header_only(tmp_path: Path) -> None:
    shm = tmp_path / "shm"
    shm.write_bytes(header(0, b"newsalts", 700))
    descriptor = os.open(shm, os.O_RDONLY)
    assert read_wal_index(descriptor) == WalIndex(0, 9, b"newsalts", 0, 4096)
    os.close(descriptor)


def test_the_old_header_with_the_new_count_of_backfilled_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    torn, after = header(700, b"oldsalts", 0), header(0, b"newsalts", 0)
    assert states(monkeypatch, torn, after, after).salts == b"newsalts"


def test_copies_that_differ_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = header(1, b"thesalts", 0), header(2, b"thesalts", 0)
    torn = after[:48] + before[48:]
    assert states(monkeypatch, torn, torn, after).frames == 2


def test_the_largest_page_size_stands_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(monkeypatch, header(1, b"thesalts", 0, page_size=1)).page_size == 65536
