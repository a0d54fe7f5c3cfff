"""What happens to an increment's bytes is found in the file itself, and costs none of the cuts before it."""

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from portfolio_ops.errors import NotFoundError, RefusedError, VerificationError
from portfolio_ops.sqlite.cuts import Cuts
from portfolio_ops.sqlite.increment import FORMAT, Increment, Link, NotAnIncrementError, gap, scan
from portfolio_ops.sqlite.increment_content import extract, verify
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from tests.integration.increment.live import ORIGIN, content, head, small, written


@pytest.fixture
def made(tmp_path: Path) -> Increment:
    """A small file of four cuts."""
    return written(tmp_path / "hour.wal.zst", head(512, predecessor=Link(b"\1" * 32, ORIGIN)), small(512, 4))


def whole(made: Increment, length: int) -> int:
    """How many cuts are whole in so many bytes."""
    return sum(cut.end <= length for cut in made.cuts)


def test_a_file_cut_off_anywhere_has_what_is_whole_and_goes_on(
    made: Increment, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, path = made.path.read_bytes(), made.path
    wal = content(made, made.cuts[-1], path.parent)
    flushes = small(512, 5)
    for name in ("fsync", "fdatasync"):  # some thousand of them, of no use here
        monkeypatch.setattr(os, name, lambda _: None)
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        if length < made.start:
            with pytest.raises(NotAnIncrementError, match=str(path)):
                scan(path)
            continue
        found, count = scan(path), whole(made, length)
        assert (found.cuts, found.damaged) == (made.cuts[:count], "")
        assert found.torn == length - found.end
        assert verify(found) == found
        if found.cuts:
            assert wal.startswith(content(found, found.cuts[-1], path.parent))
        with IncrementWriter.resume(path) as writer:
            assert path.stat().st_size == writer.end == found.end
            for flush in flushes[count:]:
                flush.append_to(writer)
        assert path.read_bytes().startswith(data)
        again = scan(path)
        assert (again.cuts[:4], len(again.cuts), verify(again)) == (made.cuts, 5, again)


def test_every_flipped_bit_is_found_and_the_cuts_before_it_stay(made: Increment) -> None:
    data, path = bytearray(made.path.read_bytes()), made.path
    for byte in range(len(data)):
        for bit in range(8):
            data[byte] ^= 1 << bit
            path.write_bytes(data)
            data[byte] ^= 1 << bit
            if byte < made.start:
                with pytest.raises(NotAnIncrementError, match=str(path)):
                    scan(path)
                continue
            found = verify(scan(path))
            assert found.damaged, f"bit {bit} of byte {byte}"
            assert (found.cuts, found.torn) == (made.cuts[: whole(made, byte)], 0)


def test_a_damaged_cut_is_not_extracted_and_those_before_it_are(made: Increment, tmp_path: Path) -> None:
    data = bytearray(made.path.read_bytes())
    good = content(made, made.cuts[1], tmp_path)
    data[made.cuts[2].end - 9] ^= 4
    made.path.write_bytes(data)
    assert content(scan(made.path), made.cuts[1], tmp_path) == good
    for cut in made.cuts[2:]:
        with pytest.raises(VerificationError, match=made.cuts[2].seen.isoformat().replace("+", r"\+")):
            extract(scan(made.path), cut, tmp_path / "target")
        assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("where", ["record", "payload", "last payload"])
def test_a_damaged_file_is_not_gone_on_with_but_followed(made: Increment, tmp_path: Path, where: str) -> None:
    first, second, _, last = made.cuts
    byte, good = {"record": (second.end + 50, 2), "payload": (second.end - 5, 1), "last payload": (last.end - 5, 3)}[
        where
    ]
    data = bytearray(made.path.read_bytes())
    data[byte] ^= 1
    made.path.write_bytes(data)
    with pytest.raises(VerificationError, match="cannot be gone on with"):
        IncrementWriter.resume(made.path)
    assert made.path.read_bytes() == data
    prefix = verify(scan(made.path))
    assert len(prefix.cuts) == good
    assert first in prefix.cuts
    after = written(tmp_path / "next", head(512, predecessor=prefix.link), small(512, 5)[good:])
    assert gap(prefix, after) == ""


@pytest.mark.parametrize("zeros", [1, 135, 136, 137, 5000, 3 << 20])
def test_zeros_that_a_power_cut_left_are_a_torn_tail(made: Increment, zeros: int) -> None:
    with made.path.open("ab") as file:
        file.write(bytes(zeros))
    assert scan(made.path) == replace(made, torn=zeros)
    with IncrementWriter.resume(made.path):
        assert scan(made.path) == made


def test_bytes_that_nobody_wrote_are_damage(made: Increment) -> None:
    before = made.path.read_bytes()
    for tail in (b"x" * 136, bytes(3 << 20) + b"x", before, before[made.start :], before[made.cuts[0].end :]):
        made.path.write_bytes(before + tail)
        found = scan(made.path)
        assert (found.cuts, found.torn) == (made.cuts, 0)
        assert f"byte {len(before)} " in found.damaged


def test_parts_in_another_order_are_found(made: Increment) -> None:
    data = made.path.read_bytes()
    bounds = [made.start, *(cut.end for cut in made.cuts)]
    one, two, three, four = (data[begin:end] for begin, end in pairwise(bounds))
    for parts, good in (([one, three, two, four], 1), ([one, three, four], 1), ([two, three], 0), ([one, two, two], 2)):
        made.path.write_bytes(data[: made.start] + b"".join(parts))
        found = scan(made.path)
        assert found.cuts == made.cuts[:good]
        assert found.damaged


def test_a_part_of_another_file_is_found(made: Increment, tmp_path: Path) -> None:
    """Even of one with the same flushes: its head is another, and with it its chain."""
    other = written(tmp_path / "other", head(512, timeline="t2"), small(512, 4))
    data = made.path.read_bytes()[: made.cuts[0].end] + other.path.read_bytes()[other.cuts[0].end :]
    made.path.write_bytes(data)
    found = scan(made.path)
    assert found.cuts == made.cuts[:1]
    assert found.damaged


def test_a_missing_or_foreign_file_between_others_is_found(made: Increment, tmp_path: Path) -> None:
    flushes = small(512, 12)
    link = made.link
    second = written(tmp_path / "2", head(512, predecessor=link), flushes[4:8])
    third = written(tmp_path / "3", head(512, predecessor=second.link), flushes[8:])
    assert gap(made, second) == gap(second, third) == ""
    assert "does not go on" in gap(made, third)
    assert "does not go on" in gap(third, second)
    assert "does not go on" in gap(second, made)
    assert "does not go on" in gap(second, replace(third, head=head(512)))
    assert "does not go on" in gap(replace(second, cuts=second.cuts[:-1]), third)
    assert "timeline" in gap(made, replace(second, head=replace(second.head, timeline="t2")))
    assert "site" in gap(made, replace(second, head=replace(second.head, site="other")))
    assert "page_size" in gap(made, replace(second, head=replace(second.head, page_size=1024)))
    twin = written(tmp_path / "twin", head(512), small(512, 4, seed=2))
    assert twin.cuts[-1].position == made.cuts[-1].position
    assert "is not the file behind which" in gap(twin, second)
    coarse = replace(twin, head=replace(twin.head, resolution=60))
    assert gap(coarse, second) == ""


def test_a_file_without_a_cut_hands_on_what_it_follows(made: Increment, tmp_path: Path) -> None:
    empty = written(tmp_path / "empty", head(512, predecessor=made.link), [])
    after = written(tmp_path / "after", head(512, predecessor=empty.link), small(512, 5)[4:])
    assert gap(made, empty) == gap(empty, after) == gap(made, after) == ""
    assert verify(empty) == empty


def test_another_kind_of_file_is_no_increment(made: Increment, tmp_path: Path) -> None:
    data = made.path.read_bytes()
    foreign = tmp_path / "foreign"
    for content_ in (b"", b"x", b"SQLite format 3\0" * 20, data[1:], data[:4] + b"\xff\xff\xff\xff" + data[8:]):
        foreign.write_bytes(content_)
        with pytest.raises(NotAnIncrementError):
            scan(foreign)
    with pytest.raises(NotFoundError):
        scan(tmp_path / "none")
    foreign.unlink()
    foreign.symlink_to(made.path)
    with pytest.raises(RefusedError):
        scan(foreign)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format": FORMAT + 1}, RefusedError),
        ({"kind": "daily"}, NotAnIncrementError),
        ({"page_size": 513}, NotAnIncrementError),
        ({"page_size": "512"}, NotAnIncrementError),
        ({"predecessor": {}}, NotAnIncrementError),
        ({"predecessor": {"chain": "xx", "salts": "", "frame": 0}}, NotAnIncrementError),
    ],
)
def test_a_head_of_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], error: type[Exception]
) -> None:
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda document, **options: dumps({**document, **change}, **options))
    IncrementWriter.create(tmp_path / "a", head(512)).close()
    with pytest.raises(error):
        scan(tmp_path / "a")


def test_what_is_consistent_but_no_continuation_of_the_wal_is_found(made: Increment, tmp_path: Path) -> None:
    """A writer with a fault would write right hashes of wrong frames."""
    for change in ({"frames": 3}, {"frames": 1}, {"pages": 7}, {"checksum": (1, 2)}):
        wrong = replace(made.cuts[1], **change)
        found = verify(replace(made, cuts=Cuts.of([made.cuts[0], wrong, *made.cuts[2:]])))
        assert found.cuts == made.cuts[:1], change
        assert found.damaged
    found = verify(replace(made, cuts=made.cuts[1:]))
    assert "not a continuation" in found.damaged
    assert found.cuts == ()
    assert not (tmp_path / "target").exists()
