"""An archive of a WAL's frames, as plain as can be: the reference that the product is held against."""

import itertools
import os
import struct
from dataclasses import dataclass, field

from portfolio_ops.sqlite.pin import Pin
from portfolio_ops.sqlite.wal_index import WalIndex


@dataclass
class Generation:
    salts: bytes
    header: bytes
    frames: bytearray = field(default_factory=bytearray)


@dataclass
class Reference:
    """Every frame that a pin gave to read, by generation."""

    pin: Pin
    generations: list[Generation] = field(default_factory=list)

    @property
    def step(self) -> int:
        return 24 + self.pin.page_size

    def archive(self, index: WalIndex) -> None:
        """Read what is new, up to the index's last frame."""
        if index.frames == 0:
            return
        if not self.generations or self.generations[-1].salts != index.salts:
            self.generations.append(Generation(index.salts, os.pread(self.pin.wal, 32, 0)))
        last = self.generations[-1]
        wanted = index.frames * self.step - len(last.frames)
        new = os.pread(self.pin.wal, wanted, 32 + len(last.frames))
        assert len(new) == wanted
        last.frames += new

    def follow(self) -> WalIndex:
        """One pass of an archiver that does not seal."""
        index = self.pin.look()
        self.archive(index)
        return self.pin.advance(index)

    @property
    def frames(self) -> int:
        return sum(len(generation.frames) for generation in self.generations) // self.step

    def restored(self, base: bytes) -> bytes:
        """The base with all frames laid over it, each of them verified."""
        image, size = bytearray(base), self.pin.page_size
        for generation in self.generations:
            check_generation(generation, self.step)
            for offset in range(0, len(generation.frames), self.step):
                number, pages = struct.unpack_from(">II", generation.frames, offset)
                if len(image) < number * size:
                    image += bytes(number * size - len(image))
                image[(number - 1) * size : number * size] = generation.frames[offset + 24 : offset + self.step]
                if pages:
                    del image[pages * size :]
        return bytes(image)

    def salt_steps(self) -> list[int]:
        """By how much the first salt rises from one generation to the next."""
        salts = [int.from_bytes(generation.salts[:4], "big") for generation in self.generations]
        return [(after - before) % (1 << 32) for before, after in itertools.pairwise(salts)]


def check_generation(generation: Generation, step: int) -> None:
    """The checksum of the file format's page, section 4.2, as it is written there; the last frame must be a commit."""
    (magic,) = struct.unpack_from(">I", generation.header)
    order = ">" if magic & 1 else "<"
    sums = checksum((0, 0), generation.header[:24], order)
    assert struct.unpack_from(">II", generation.header, 24) == sums
    assert generation.header[16:24] == generation.salts
    for offset in range(0, len(generation.frames), step):
        frame = generation.frames[offset : offset + step]
        assert frame[8:16] == generation.salts
        sums = checksum(checksum(sums, frame[:8], order), frame[24:], order)
        assert struct.unpack_from(">II", frame, 16) == sums, f"frame {offset // step + 1}"
    assert generation.frames[-step + 4 : 8 - step] != bytes(4)


def checksum(sums: tuple[int, int], data: bytes | bytearray, order: str) -> tuple[int, int]:
    one, two = sums
    for even, odd in struct.iter_unpack(f"{order}II", data):
        one = (one + even + two) & 0xFFFFFFFF
        two = (two + odd + one) & 0xFFFFFFFF
    return one, two
