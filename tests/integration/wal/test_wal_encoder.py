"""What our encoder makes is replayed by SQLite itself, byte for byte, cut after any transaction."""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portfolio_ops.sqlite.wal import frame_offset
from portfolio_ops.sqlite.wal_encoder import Encoder
from portfolio_ops.sqlite.wal_header import encode_header, parse_header
from portfolio_ops.sqlite.wal_reader import Stop, committed
from tests.integration.wal.files import PAGE_SIZES, history, replayed

Pages = list[tuple[int, bytes]]


def page_one(page_size: int, chooser: Random) -> bytes:
    """The first page of a database without tables; the rest of it is free and may hold anything."""
    fields = struct.pack(">16sH6B", b"SQLite format 3\0", 1 if page_size == 65536 else page_size, 2, 2, 0, 64, 32, 32)
    counters = struct.pack(">I", 1).ljust(32, b"\0") + struct.pack(">2I", 4, 0)  # the size in it is not up to date
    head = (fields + counters).ljust(56, b"\0") + struct.pack(">2I", 1, chooser.getrandbits(31))
    leaf = struct.pack(">BHHHB", 13, 0, 0, page_size % 65536, 0)
    page = head.ljust(100, b"\0") + leaf
    return page + chooser.randbytes(page_size - len(page))


@dataclass
class Model:
    """A database as a list of pages, changed a flush at a time."""

    page_size: int
    chooser: Random
    pages: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pages = [page_one(self.page_size, self.chooser)]
        self.pages += [self._page() for _ in range(self.chooser.randint(0, 9))]

    def image(self) -> bytes:
        return b"".join(self.pages)

    def flush(self) -> Pages:
        """Some pages are changed, some are added or go; the changes in any order, as an archiver may give them."""
        length = max(1, len(self.pages) + self.chooser.randint(-4, 4))
        changed = set(self.chooser.sample(range(length), self.chooser.randint(0, length)))
        changed |= set(range(len(self.pages), length)) | ({0} if not changed else set())
        self.pages = self.pages[:length] + [b""] * (length - len(self.pages))
        for index in changed:
            self.pages[index] = self._page() if index else page_one(self.page_size, self.chooser)
        given = [(index + 1, self.pages[index]) for index in changed]
        self.chooser.shuffle(given)
        return given

    def _page(self) -> bytes:
        return self.chooser.choice(
            [bytes(self.page_size), b"\xff" * self.page_size, self.chooser.randbytes(self.page_size)]
        )


@settings(
    max_examples=150,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    page_size=st.sampled_from(PAGE_SIZES),
    seed=st.integers(0, 2**32),
    salts=st.binary(min_size=8, max_size=8),
    big_endian=st.booleans(),
    flushes=st.integers(0, 6),
)
def test_every_cut_is_that_moment(
    *, tmp_path: Path, page_size: int, seed: int, salts: bytes, big_endian: bool, flushes: int
) -> None:
    model = Model(page_size, Random(seed))
    base, encoder = model.image(), Encoder(page_size, salts, big_endian=big_endian)
    wal = encode_header(page_size, salts, big_endian=big_endian)
    assert replayed(base, wal, tmp_path) == base
    for _ in range(flushes):
        before, changes = model.image(), model.flush()
        frames = encoder.frames(changes, len(model.pages))
        torn = model.chooser.randrange(len(frames))
        assert replayed(base, wal + frames[:torn], tmp_path) == before
        wal += frames
        assert replayed(base, wal, tmp_path) == model.image()
        assert encoder.cursor.frame * (page_size + 24) == len(wal) - 32
        # Another run goes on where this one ends.
        encoder = Encoder(page_size, salts, big_endian=big_endian, cursor=encoder.cursor)
    header = parse_header(wal)
    assert header is not None
    found = committed(header, header.start, [wal[32:]])
    assert (found.end, found.stop) == (encoder.cursor, Stop.END)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_the_frames_are_those_of_sqlite(tmp_path: Path, page_size: int) -> None:
    """Given the same pages, each byte is what SQLite wrote, whatever kind of page content."""
    frames = 0
    for seed in range(4):
        _, wal = history(page_size, seed, tmp_path)
        header = parse_header(wal)
        assert header is not None
        found = committed(header, header.start, [wal[32:]])
        encoder = Encoder(page_size, header.salts, cursor=header.start)
        made, waiting = b"", []
        for frame, (page, commit) in enumerate(zip(found.pages.tolist(), found.sizes.tolist(), strict=True), 1):
            at = frame_offset(frame, page_size)
            waiting.append((page, memoryview(wal)[at : at + page_size]))
            if commit:
                made += encoder.frames(waiting, commit)
                waiting = []
        assert made == wal[32 : 32 + found.end.frame * (page_size + 24)]
        frames += found.end.frame
    assert frames > 20


def test_a_transaction_in_parts_counts_only_when_it_is_whole(tmp_path: Path) -> None:
    model = Model(512, Random(1))
    base = model.image()
    changes = [*model.flush(), *model.flush()]
    header = encode_header(512, b"saltsalt", big_endian=False)
    whole, parts = Encoder(512, b"saltsalt"), Encoder(512, b"saltsalt")
    made = [parts.frames([change], 0) for change in changes[:-1]]
    assert len(made) > 3
    assert replayed(base, header + b"".join(made), tmp_path) == base
    made.append(parts.frames(changes[-1:], len(model.pages)))
    assert b"".join(made) == whole.frames(changes, len(model.pages))
    assert replayed(base, header + b"".join(made), tmp_path) == model.image()


def test_what_cannot_be_meant_changes_nothing() -> None:
    encoder = Encoder(512, b"saltsalt")
    start = encoder.cursor
    for pages in ([], [(1, bytes(511))], [(1, bytes(512)), (2, bytes(1024))], [(0, bytes(512))]):
        with pytest.raises(ValueError, match="page"):
            encoder.frames(pages, 2)
        assert encoder.cursor == start
    for salts in (b"", b"salt", b"saltsaltsalt"):
        with pytest.raises(ValueError, match="bytes of salts"):
            Encoder(512, salts)
