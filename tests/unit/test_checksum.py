"""Checksums of many frames at once, against the algorithm word for word."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_ops.sqlite.checksum import FrameChecksums
from portfolio_ops.sqlite.wal_header import Checksum
from tests.integration.wal.files import PAGE_SIZES, plain_checksum

WORDS = st.integers(0, 2**32 - 1)


def plainly(frames: bytes, size: int, start: Checksum, *, big_endian: bool) -> list[Checksum]:
    """The checksum after each frame: its first 8 bytes and its page are summed."""
    checksums, checksum = [], start
    for at in range(0, len(frames), size):
        summed = frames[at : at + 8] + frames[at + 24 : at + size]
        checksum = plain_checksum(summed, checksum, big_endian=big_endian)
        checksums.append(checksum)
    return checksums


@settings(max_examples=60, deadline=None, print_blob=True)
@given(
    page_size=st.sampled_from(PAGE_SIZES),
    big_endian=st.booleans(),
    count=st.integers(0, 5),
    seed=st.integers(0, 2**32),
    start=st.tuples(WORDS, WORDS),
    cut=st.integers(0, 5),
)
def test_any_frames(*, page_size: int, big_endian: bool, count: int, seed: int, start: Checksum, cut: int) -> None:
    size = page_size + 24
    data = Random(seed).randbytes(count * size)
    frames = np.frombuffer(data, np.uint8).reshape(count, size)
    expected = plainly(data, size, start, big_endian=big_endian)
    sums = FrameChecksums(page_size, big_endian=big_endian)
    running = sums.running(frames, start)
    assert [tuple(row) for row in running.tolist()] == expected
    before = np.array([start, *expected[:-1]], dtype=np.uint32)[:count]
    assert (sums.following(frames, before) == running).all()
    first = sums.running(frames[:cut], start)
    middle = (int(first[-1, 0]), int(first[-1, 1])) if len(first) else start
    assert (np.concatenate([first, sums.running(frames[cut:], middle)]) == running).all()


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_the_largest_words(page_size: int) -> None:
    size = page_size + 24
    data = b"\xff" * (3 * size)
    frames = np.frombuffer(data, np.uint8).reshape(3, size)
    start = (2**32 - 1, 2**32 - 1)
    running = FrameChecksums(page_size, big_endian=False).running(frames, start)
    assert [tuple(row) for row in running.tolist()] == plainly(data, size, start, big_endian=False)
