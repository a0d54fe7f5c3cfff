"""Which state of a WAL may follow which."""

import os
from pathlib import Path

import pytest

from portfolio_ops.sqlite.lineage import TimelineEndedError, require_continuation
from portfolio_ops.sqlite.wal_index import WalIndex


def index(frames: int, salt: int, *, page_size: int = 4096) -> WalIndex:
    return WalIndex(frames, 100, salt.to_bytes(4, "big") + os.urandom(4), 0, page_size)


def follow(tmp_path: Path, before: WalIndex, now: WalIndex, *, sequence: int = 7, may_end: bool = True) -> None:
    wal = tmp_path / "wal"
    wal.write_bytes(bytes(12) + sequence.to_bytes(4, "big") + bytes(16))
    descriptor = os.open(wal, os.O_RDONLY)
    try:
        require_continuation(descriptor, before, now, may_end=may_end)
    finally:
        os.close(descriptor)


def test_the_same_generation_may_grow_and_never_shrink(tmp_path: Path) -> None:
    before = index(5, 10)
    for frames in (5, 6):
        follow(tmp_path, before, WalIndex(frames, 100, before.salts, 0, 4096), may_end=False)
    with pytest.raises(TimelineEndedError, match="went back from frame 5 to frame 4"):
        follow(tmp_path, before, WalIndex(4, 100, before.salts, 0, 4096))


@pytest.mark.parametrize("salt", [10, 0xFFFFFFFF])
def test_the_next_generation_only_after_the_end_of_the_last(tmp_path: Path, salt: int) -> None:
    before, now = index(5, salt), index(1, (salt + 1) % (1 << 32))
    follow(tmp_path, before, now)
    with pytest.raises(TimelineEndedError, match="although a read mark was held"):
        follow(tmp_path, before, now, may_end=False)


@pytest.mark.parametrize("salt", [9, 12, 10])
def test_a_generation_between_is_a_gap_unless_the_wal_was_empty(tmp_path: Path, salt: int) -> None:
    before, now = index(5, 10), index(1, salt)
    with pytest.raises(TimelineEndedError, match="not the next generation"):
        follow(tmp_path, before, now)
    follow(tmp_path, before, now, sequence=0)  # both salts drawn: the file was empty
    follow(tmp_path, index(0, 10), now)


def test_another_page_size(tmp_path: Path) -> None:
    follow(tmp_path, index(0, 10, page_size=0), index(1, 11))
    with pytest.raises(TimelineEndedError, match="from 4096 to 512"):
        follow(tmp_path, index(5, 10), index(1, 11, page_size=512))
