"""The running checksum of a WAL's frames, of many frames at once.

<https://www.sqlite.org/fileformat2.html#checksum_algorithm>: for each two words x0, x1 of 32 bits, modulo 2^32,

    s0 += x0 + s1
    s1 += x1 + s0

s0 and s1 are thus the last two of a series in which each is the sum of the two before it and a word. What a word adds
to the end is the word times a Fibonacci number that depends on nothing but the word's distance from the end. So what a
frame adds is two dot products with constants, whatever stands before the frame; and what stands before it is carried
over by one constant matrix, again of Fibonacci numbers.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from portfolio_ops.sqlite.wal import FRAME_HEADER
from portfolio_ops.sqlite.wal_header import Checksum

Words = NDArray[np.uint32]
Bytes = NDArray[np.uint8]

_MODULUS = 1 << 32
_WORD = 4
_SUMMED = 2
"""Words at the front of a frame's header that are summed: page number and commit size, not the salts and checksum."""


class FrameChecksums:
    """The checksums of frames of one page size, for words of one byte order.

    Frames are given as an array of bytes, one row a frame: its header and its page.
    """

    def __init__(self, page_size: int, *, big_endian: bool) -> None:
        self._weights, self._carry = _constants(page_size)
        self._words = np.dtype(">u4" if big_endian else "<u4")

    def following(self, frames: Bytes, before: Words) -> Words:
        """For each frame its checksum (a row: s0, s1), given the checksum before it (a row of `before`)."""
        carried: Words = before @ self._carry
        return carried + self._added(frames)

    def running(self, frames: Bytes, start: Checksum) -> Words:
        """For each frame its checksum (a row: s0, s1), given the checksum before the first."""
        (a, b), (_, c) = self._carry.tolist()
        s0, s1 = start
        rows = []
        for added0, added1 in self._added(frames).tolist():
            s0, s1 = (a * s0 + b * s1 + added0) % _MODULUS, (b * s0 + c * s1 + added1) % _MODULUS
            rows.append((s0, s1))
        return np.array(rows, dtype=np.uint32).reshape(-1, 2)

    def _added(self, frames: Bytes) -> Words:
        # einsum, unlike a product of matrices, multiplies integers of 32 bits in vectors, and swaps bytes as it goes.
        added: Words = np.einsum("fw,sw->fs", frames.view(self._words), self._weights, dtype=np.uint32)
        return added


@cache
def _constants(page_size: int) -> tuple[Words, Words]:
    """What each word of a frame adds to s0 and to s1 (two rows), and the matrix that carries s0 and s1 over a frame.

    The last word adds 0 and 1 times itself, the one before it 1 and 1, then 1 and 2, 2 and 3, ...
    """
    count = _SUMMED + page_size // _WORD
    fibonacci = [0, 1]
    while len(fibonacci) < count + 2:
        fibonacci.append((fibonacci[-1] + fibonacci[-2]) % _MODULUS)
    falling = np.array(fibonacci[count::-1], dtype=np.uint32)
    weights = np.zeros((2, (FRAME_HEADER + page_size) // _WORD), dtype=np.uint32)
    for row, series in zip(weights, (falling[1:], falling[:-1]), strict=True):
        row[:_SUMMED] = series[:_SUMMED]
        row[FRAME_HEADER // _WORD :] = series[_SUMMED:]
    before, last, after = fibonacci[count - 1 : count + 2]
    return weights, np.array([[before, last], [last, after]], dtype=np.uint32)
