"""Which state of a WAL may follow which."""

import os

import pytest

from portfolio_ops.sqlite.lineage import TimelineEndedError, require_continuation
from portfolio_ops.sqlite.wal_index import WalIndex


def index(frames: int, salt: int, *, page_size: int = 4096) -> WalIndex:
    return WalIndex(frames, 100, salt.to_bytes(4, "big") + os.urandom(4), 0, page_size)


def follow(before: WalIndex, now: WalIndex, *, may_end: bool = True, written: bool = False) -> None:
    require_continuation(before, now, may_end=may_end, written=written)


def test_the_same_generation_may_grow_and_never_shrink() -> None:
    before = index(5, 10)
    for frames in (5, 6):
        follow(before, WalIndex(frames, 100, before.salts, 0, 4096), may_end=False)
    with pytest.raises(TimelineEndedError, match="went back from frame 5 to frame 4"):
        follow(before, WalIndex(4, 100, before.salts, 0, 4096))


@pytest.mark.parametrize("salt", [10, 0xFFFFFFFF])
def test_the_next_generation_only_after_the_end_of_the_last(salt: int) -> None:
    before, now = index(5, salt), index(1, (salt + 1) % (1 << 32))
    follow(before, now)
    with pytest.raises(TimelineEndedError, match="although a read mark was held"):
        follow(before, now, may_end=False)


@pytest.mark.parametrize("frames", [0, 5])
@pytest.mark.parametrize("salt", [9, 10, 11, 12])
def test_a_generation_between_is_a_doubt_only_if_the_main_file_was_written(salt: int, frames: int) -> None:
    before, now = index(frames, 10), index(1, salt)
    follow(before, now)
    for after in (now, before):
        with pytest.raises(TimelineEndedError, match="another program wrote"):
            follow(before, after, written=True)


def test_another_page_size() -> None:
    follow(index(0, 10, page_size=0), index(1, 11))
    with pytest.raises(TimelineEndedError, match="from 4096 to 512"):
        follow(index(5, 10), index(1, 11, page_size=512))
