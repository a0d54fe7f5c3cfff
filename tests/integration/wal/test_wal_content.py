"""The database that a WAL leads to by what we take from it is the one that SQLite makes of it, to the byte."""

import os
import struct
from pathlib import Path
from random import Random

import apsw
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from portfolio_ops.sqlite.wal import frame_offset, newest_frames
from portfolio_ops.sqlite.wal_header import parse_header
from portfolio_ops.sqlite.wal_reader import committed
from tests.integration.wal.files import PAGE_SIZES, history, recovery, replayed, sealed
from tests.integration.wal.test_wal_reader import big_endian, ours

FRACTIONS = st.floats(0, 1, exclude_max=True)
searching = settings(
    max_examples=80,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def image(main: bytes, wal: bytes, scratch: Path) -> bytes:
    """As a snapshot makes it: for each page its newest frame that is committed, or else what the main file has."""
    header = parse_header(wal)
    found = committed(header, header.start, [wal[32:]]) if header is not None else None
    if header is None or found is None or not len(found.pages):
        return main
    size, pages = header.page_size, int(found.sizes[-1])
    (scratch / "read-wal").write_bytes(wal)
    descriptor = os.open(scratch / "read-wal", os.O_RDONLY)
    newest = newest_frames(descriptor, frames=found.end.frame, pages=pages, page_size=size, salts=header.salts)
    os.close(descriptor)
    content = bytearray(main[: pages * size].ljust(pages * size, b"\0"))
    for page, frame in enumerate(newest):
        if frame:
            at = frame_offset(frame, size)
            content[(page - 1) * size : page * size] = wal[at : at + size]
    return bytes(content)


def resalted(wal: bytes, page_size: int, frame: int, salts: bytes) -> bytes:
    """Other salts in one frame; frame 0 is the header."""
    at = 16 if frame == 0 else 32 + (frame - 1) * (page_size + 24) + 8
    return wal[:at] + salts + wal[at + 8 :]


def grafted(wal: bytes, other: bytes, page_size: int, frame: int) -> bytes:
    """From one frame on, those of another WAL: as an older, longer generation stays behind a newer one."""
    at = 32 + frame * (page_size + 24)
    return wal[:at] + other[at:]


@searching
@given(
    page_size=st.sampled_from(PAGE_SIZES),
    seed=st.integers(0, 2**32),
    swapped=st.booleans(),
    mended=st.booleans(),
    kind=st.sampled_from(["whole", "cut", "flip", "another's salts", "the next salts", "another's tail"]),
    where=FRACTIONS,
)
def test_any_wal_whole_or_damaged(
    *, tmp_path: Path, page_size: int, seed: int, swapped: bool, mended: bool, kind: str, where: float
) -> None:
    main, wal = history(page_size, seed, tmp_path)
    assume(len(wal) > 32)
    wal = big_endian(wal) if swapped else wal
    chooser, frames = Random(seed), (len(wal) - 32) // (page_size + 24)
    frame = int(where * (frames + 1))
    (first,) = struct.unpack_from(">I", wal, 16)
    damaged = {
        "whole": lambda: wal,
        "cut": lambda: wal[: int(where * len(wal))],
        "flip": lambda: wal[: (at := int(where * len(wal)))] + bytes([wal[at] ^ 1]) + wal[at + 1 :],
        "another's salts": lambda: resalted(wal, page_size, frame, chooser.randbytes(8)),
        "the next salts": lambda: resalted(wal, page_size, frame, struct.pack(">I4x", (first + 1) % 2**32)),
        "another's tail": lambda: grafted(wal, history(page_size, seed + 1, tmp_path)[1], page_size, frame),
    }[kind]()
    if mended and kind not in {"whole", "cut"} and len(damaged) > 32 and parse_header(damaged[:32]) is not None:
        damaged = sealed(damaged)  # every checksum is right: the salts alone decide, or nothing does
    try:
        theirs, database = recovery(main, damaged, tmp_path), replayed(main, damaged, tmp_path)
    except apsw.Error:
        assume(False)  # the main file is of a later state than what is left: nobody can open that
    answer = ours(damaged)
    event(f"{kind}, {'mended' if mended else 'as it is'}: {'some' if answer.pages else 'no'} frames")
    assert answer == theirs
    assert image(main, damaged, tmp_path) == database
