"""What we take from a WAL is what SQLite's own recovery takes from it, however damaged."""

import mmap
import struct
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.sqlite.wal import FRAME_HEADER, frame_offset
from portfolio_ops.sqlite.wal_encoder import Encoder
from portfolio_ops.sqlite.wal_header import Header, encode_header, parse_header
from portfolio_ops.sqlite.wal_reader import Commits, Stop, committed
from tests.integration.wal.files import PAGE_SIZES, Recovery, history, recovery, sealed

SEEDS = st.integers(0, 2**32)
searching = settings(
    max_examples=250,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def ours(wal: bytes, per_part: int = 1000) -> Recovery:
    """Our answer, in the oracle's words."""
    header = parse_header(wal)
    if header is None:
        return Recovery([], 0, None)
    step = per_part * (24 + header.page_size)
    found = committed(header, header.start, (wal[at : at + step] for at in range(32, len(wal), step)))
    assert found.end.frame == len(found.pages) == len(found.sizes)
    if not len(found.pages):
        assert found.end == header.start
        return Recovery([], 0, None)
    return Recovery(found.pages.tolist(), int(found.sizes[-1]), found.end.checksum)


def read(wal: bytes) -> tuple[Header, Commits]:
    header = parse_header(wal)
    assert header is not None
    return header, committed(header, header.start, [wal[32:]])


def big_endian(wal: bytes) -> bytes:
    """The same WAL with checksums of big-endian words, made by our encoder; what is stale stays behind it."""
    header, found = read(wal)
    encoder = Encoder(header.page_size, header.salts, big_endian=True)
    parts, size = [encode_header(header.page_size, header.salts, big_endian=True)], header.page_size + 24
    for at in range(32, 32 + (found.stopped_at - 1) * size, size):
        page, commit = struct.unpack_from(">2I", wal, at)
        parts.append(encoder.frames([(page, wal[at + 24 : at + size])], commit))
    return b"".join(parts) + wal[32 + (found.stopped_at - 1) * size :]


class Damage:
    """One damage to the bytes of a WAL, drawn by Hypothesis."""

    def __init__(self, kind: str, where: float, other: float, bit: int) -> None:
        self.kind, self.where, self.other, self.bit = kind, where, other, bit

    def __repr__(self) -> str:
        return f"{self.kind} at {self.where} with {self.other}, bit {self.bit}"

    def done(self, wal: bytes, page_size: int) -> bytes:
        changed, size = bytearray(wal), page_size + 24
        count = (len(wal) - 32) // size
        if self.kind == "cut":
            return wal[: int(self.where * len(wal))]
        if self.kind in {"flip", "flip in header"}:
            at = int(self.where * (len(wal) if self.kind == "flip" else 32))
            changed[at] ^= 1 << self.bit
            return bytes(changed)
        if self.kind == "flip in frame header":
            changed[32 + int(self.where * count) * size + int(self.other * 24)] ^= 1 << self.bit
            return bytes(changed)
        one, two = (slice(32 + frame * size, 32 + (frame + 1) * size) for frame in self._frames(count))
        if self.kind == "zero":
            changed[one] = bytes(size)
        elif self.kind == "repeat":
            changed[one.stop : one.stop] = wal[one]
        elif self.kind == "copy":
            changed[one] = wal[two]
        else:
            changed[one], changed[two] = wal[two], wal[one]
        return bytes(changed)

    def _frames(self, count: int) -> tuple[int, int]:
        return int(self.where * count), int(self.other * count)


FRACTIONS = st.floats(0, 1, exclude_max=True)


def damages(*kinds: str) -> st.SearchStrategy[list[Damage]]:
    one = st.builds(Damage, st.sampled_from(kinds), FRACTIONS, FRACTIONS, st.integers(0, 7))
    return st.lists(one, min_size=1, max_size=5)


OF_FRAMES = ["flip in header", "flip in frame header", "zero", "repeat", "copy", "swap"]


@searching
@given(
    page_size=st.sampled_from(PAGE_SIZES),
    seed=SEEDS,
    swapped=st.booleans(),
    per_part=st.sampled_from([1, 3, 1000]),
    damage=damages("cut", "flip", *OF_FRAMES),
)
def test_any_wal_whole_or_damaged(
    *, tmp_path: Path, page_size: int, seed: int, swapped: bool, per_part: int, damage: list[Damage]
) -> None:
    main, wal = history(page_size, seed, tmp_path)
    if swapped:
        wal = big_endian(wal)
    assert ours(wal, per_part) == recovery(main, wal, tmp_path)
    for each in damage:
        damaged = each.done(wal, page_size)
        answer = ours(damaged, per_part)
        event(f"{each.kind}: {'some' if answer.pages else 'no'} frames left")
        assert answer == recovery(main, damaged, tmp_path)


@settings(searching, max_examples=150)
@given(
    page_size=st.sampled_from(PAGE_SIZES[:4]),
    seed=SEEDS,
    swapped=st.booleans(),
    damage=damages(*OF_FRAMES),
)
def test_any_damage_that_checksums_do_not_tell(
    tmp_path: Path, page_size: int, seed: int, swapped: bool, damage: list[Damage]
) -> None:
    """With every checksum made right after the damage, the other rules alone decide."""
    main, wal = history(page_size, seed, tmp_path)
    if swapped:
        wal = big_endian(wal)
    for each in damage:
        damaged = sealed(each.done(wal, page_size))
        try:
            answer = ours(damaged)
        except PortfolioOpsError:
            with pytest.raises(apsw.CantOpenError):
                recovery(main, damaged, tmp_path)
        else:
            assert answer == recovery(main, damaged, tmp_path)


def test_the_histories_are_worth_the_name(tmp_path: Path) -> None:
    """They leave stale frames behind, frames of transactions without an end, and frames that were rewritten."""
    stops, unfinished, transactions = set(), 0, 0
    for seed in range(60):
        _, found = read(history(512, seed, tmp_path)[1])
        stops.add(found.stop)
        unfinished += found.stopped_at > found.end.frame + 1
        transactions += int(np.count_nonzero(found.sizes))
    assert stops == set(Stop)
    assert unfinished > 15
    assert transactions > 200


@settings(searching, max_examples=80)
@given(page_size=st.sampled_from(PAGE_SIZES), seed=SEEDS, cuts=st.lists(FRACTIONS, max_size=6))
def test_reading_on_from_where_an_earlier_read_ended(
    tmp_path: Path, page_size: int, seed: int, cuts: list[float]
) -> None:
    _, wal = history(page_size, seed, tmp_path)
    header, whole = read(wal)
    cursor, pages, sizes = header.start, [], []
    for cut in [*sorted(cuts), 1]:
        begin = 32 + cursor.frame * (page_size + 24)
        found = committed(header, cursor, [wal[begin : max(begin, int(cut * len(wal)))]])
        cursor = found.end
        pages += found.pages.tolist()
        sizes += found.sizes.tolist()
    assert (pages, sizes, cursor) == (whole.pages.tolist(), whole.sizes.tolist(), whole.end)
    assert (found.stop, found.stopped_at) == (whole.stop, whole.stopped_at)


def three_commits() -> tuple[Header, bytes]:
    encoder = Encoder(512, b"saltsalt")
    parts = [encoder.frames([(number, bytes([number]) * 512), (1, bytes(512))], number) for number in (2, 3, 4)]
    header = parse_header(encode_header(512, b"saltsalt", big_endian=False))
    assert header is not None
    return header, b"".join(parts)


def test_why_it_stopped_and_where() -> None:
    header, frames = three_commits()
    size = 512 + 24

    def stopped(data: bytes) -> tuple[int, Stop, int]:
        found = committed(header, header.start, [data])
        return found.end.frame, found.stop, found.stopped_at

    assert stopped(frames) == (6, Stop.END, 7)
    assert stopped(b"") == (0, Stop.END, 1)
    assert stopped(frames[:-1]) == (4, Stop.END, 6)
    assert stopped(frames + bytes(100)) == (6, Stop.END, 7)
    assert stopped(frames + bytes(size)) == (6, Stop.STALE, 7)
    assert stopped(frames + frames) == (6, Stop.DAMAGED, 7)
    for frame, position in [(1, 30), (3, 2), (5, 7), (6, 17), (6, size - 1)]:
        damaged = bytearray(frames)
        damaged[(frame - 1) * size + position] ^= 16
        assert stopped(bytes(damaged)) == ((frame - 1) // 2 * 2, Stop.DAMAGED, frame)
        damaged[(frame - 1) * size + 9] ^= 1
        assert stopped(bytes(damaged)) == ((frame - 1) // 2 * 2, Stop.STALE, frame)


@pytest.mark.parametrize("view", [bytes, bytearray, memoryview])
def test_what_frames_may_be_given_as(view: type) -> None:
    header, frames = three_commits()
    found = committed(header, header.start, [view(frames)])
    assert found.pages.tolist() == [2, 1, 3, 1, 4, 1]
    assert found.sizes.tolist() == [0, 2, 0, 3, 0, 4]


def test_a_map_of_the_file_can_be_closed_afterwards(tmp_path: Path) -> None:
    header, frames = three_commits()
    file = tmp_path / "wal"
    file.write_bytes(bytes(32) + frames)
    with file.open("rb") as opened:
        whole = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        with memoryview(whole) as view, view[32:] as part:
            found = committed(header, header.start, [part])
        whole.close()
    assert found.pages.tolist() == [2, 1, 3, 1, 4, 1]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_a_header_comes_back(page_size: int, big: bool) -> None:
    data = encode_header(page_size, b"saltsalt", big_endian=big)
    header = parse_header(data)
    assert header is not None
    assert (header.page_size, header.salts, header.big_endian) == (page_size, b"saltsalt", big)
    assert header.start.checksum == struct.unpack(">2I", data[24:])
    assert sealed(data) == data
    assert parse_header(data[:-1]) is None


@pytest.mark.parametrize("number", [0, 1, 256, 511, 513, 1000, 65535, 131072, 2**31])
def test_a_page_size_that_no_database_has(tmp_path: Path, number: int) -> None:
    main, wal = history(512, 4, tmp_path)
    assert ours(wal).pages
    other = bytearray(wal)
    struct.pack_into(">I", other, 8, number)
    assert ours(sealed(other[:32]) + wal[32:]) == recovery(main, sealed(other[:32]) + wal[32:], tmp_path)
    assert parse_header(sealed(other[:32])) is None
    with pytest.raises(ValueError, match="no WAL has pages"):
        encode_header(number, b"saltsalt", big_endian=False)


def test_a_version_of_the_future_is_refused_as_sqlite_refuses_it(tmp_path: Path) -> None:
    main, wal = history(512, 4, tmp_path)
    future = bytearray(wal)
    struct.pack_into(">I", future, 4, 3007001)
    with pytest.raises(PortfolioOpsError, match="version 3007001"):
        parse_header(sealed(future))
    with pytest.raises(apsw.CantOpenError):
        recovery(main, sealed(future), tmp_path)


def test_a_frame_without_a_page_ends_the_chain(tmp_path: Path) -> None:
    main, _ = history(512, 4, tmp_path)
    wal = bytearray(encode_header(512, b"saltsalt", big_endian=False) + three_commits()[1])
    struct.pack_into(">I", wal, frame_offset(4, 512) - FRAME_HEADER, 0)
    without = sealed(wal)
    assert ours(without).pages == [2, 1]
    assert ours(without) == recovery(main, without, tmp_path)
    assert read(without)[1].stop is Stop.DAMAGED
