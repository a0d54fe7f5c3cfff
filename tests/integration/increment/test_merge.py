"""A merge is the same history with fewer moments, and what is not is never called equal."""

import itertools
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portfolio_ops.errors import VerificationError
from portfolio_ops.sqlite import increment_writer
from portfolio_ops.sqlite.increment import Increment, scan
from portfolio_ops.sqlite.increment_content import frames, pages_in, verify
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from portfolio_ops.sqlite.merge import merge, prove_equal
from portfolio_ops.sqlite.snapshot import Position
from tests.integration.increment.live import (
    NOON,
    ORIGIN,
    Flush,
    Live,
    at,
    content,
    head,
    restored,
    small,
    written,
)
from tests.integration.wal.files import replayed


def merged(increments: list[Increment], path: Path, resolution: int, timeline: str = "t1") -> Increment:
    first = increments[0].head
    made = head(first.page_size, resolution, first.predecessor, timeline=timeline)
    with IncrementWriter.create(path, made) as writer:
        return merge(increments, writer, path.parent)


def files_of(live: Live, folder: Path, images: dict[Position, bytes]) -> list[Increment]:
    """Some files with flushes at random times; each moment's image goes into `images`."""
    increments: list[Increment] = []
    for number in range(live.chooser.randint(1, 4)):
        flushes = []
        for _ in range(live.chooser.randint(0 if number else 1, 6)):
            live.change()
            flush = live.flush(live.chooser.choice([0.2, 1, 7, 59.75, 60, 300, 4000]))
            flushes.append(flush)
            images[flush.position] = live.image()
        path = folder / f"{number}.wal.zst"
        path.unlink(missing_ok=True)
        link = increments[-1].link if increments else None
        increments.append(written(path, head(live.page_size, predecessor=link), flushes))
    return increments


def last_of_windows(increments: list[Increment], resolution: int) -> list[tuple[float, Position]]:
    """The moments that must stay."""
    last = {cut.seen.timestamp() // resolution: cut for increment in increments for cut in increment.cuts}
    return [(cut.seen.timestamp(), cut.position) for cut in last.values()]


@settings(
    max_examples=60,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(page_size=st.sampled_from([512, 4096, 65536]), seed=st.integers(0, 2**32), parts=st.booleans())
def test_every_moment_that_stays_is_as_it_was(tmp_path: Path, page_size: int, seed: int, *, parts: bool) -> None:
    images: dict[Position, bytes] = {}
    with Live(tmp_path, page_size, seed) as live, pytest.MonkeyPatch.context() as patch:
        if parts:
            patch.setattr(increment_writer, "_BATCH", 3 * page_size)
        raw = files_of(live, tmp_path, images)
        finer = raw
        for resolution in (60, 3600):
            path = tmp_path / f"{resolution}.wal.zst"
            path.unlink(missing_ok=True)
            coarser = merged(finer, path, resolution)
            prove_equal(finer, coarser)
            prove_equal(raw, coarser)
            moments = [(cut.seen.timestamp(), cut.position) for cut in coarser.cuts]
            assert moments == last_of_windows(raw, resolution)
            for cut in coarser.cuts:
                assert restored(live.base, [coarser], cut, tmp_path) == images[cut.position]
            finer = [coarser]
        filled = [increment for increment in raw if increment.cuts]
        assert restored(live.base, filled, filled[-1].cuts[-1], tmp_path) == live.image()


def test_each_page_is_there_once_a_window(tmp_path: Path) -> None:
    raw = written(tmp_path / "raw", head(512), small(512, 100))
    once = merged([raw], tmp_path / "merged", 60)
    assert [cut.frames for cut in once.cuts] == [8, 8]
    assert [cut.seen for cut in once.cuts] == [at(59), at(100)]
    assert [cut.since for cut in once.cuts] == [ORIGIN, once.cuts[0].position]
    for cut in once.cuts:
        numbers = [number for batch in frames(once, cut) for number, _ in pages_in(batch, 512)]
        assert numbers == sorted(set(numbers))


def test_windows_are_those_of_utc(tmp_path: Path) -> None:
    hour = NOON.replace(minute=0, second=0, microsecond=0)
    times = [0, 3599.999_999, 3600, 3660, 7199.999_999, 7200]
    flushes = [
        replace(flush, seen=hour + timedelta(seconds=time)) for flush, time in zip(small(512, 6), times, strict=True)
    ]
    once = merged([written(tmp_path / "raw", head(512), flushes)], tmp_path / "merged", 3600)
    assert [(cut.seen - hour).total_seconds() for cut in once.cuts] == [3599.999_999, 7199.999_999, 7200]


def test_where_the_clock_was_set_back_no_moment_is_taken_for_another(tmp_path: Path) -> None:
    flushes = small(512, 6)
    times = [10, 70, 80, 20, 75, 90]
    flushes = [replace(flush, seen=at(time)) for flush, time in zip(flushes, times, strict=True)]
    raw = written(tmp_path / "raw", head(512), flushes)
    once = merged([raw], tmp_path / "merged", 60)
    assert [cut.seen for cut in once.cuts] == [at(10), at(80), at(20), at(90)]
    prove_equal([raw], once)


def test_a_page_that_comes_back_without_being_written_is_as_sqlite_reads_it(tmp_path: Path) -> None:
    """The database shrinks and grows again: within a window, and over its end."""
    base = empty_database(tmp_path / "empty.sqlite") + b"old".ljust(512) * 9
    one, last = (1, base[:512]), 10
    steps = [
        ([one, (last, b"a" * 512)], last),
        ([one], 3),
        ([one], last),
        ([one, (last, b"b" * 512)], 3),
        ([one], last),
    ]
    for times in itertools.product([1, 61], repeat=len(steps)):
        flushes, position, seen = [], ORIGIN, NOON
        for (changed, size), seconds in zip(steps, times, strict=True):
            seen += at(seconds) - NOON
            to = Position("11" * 8, position.frame + 1)
            flushes.append(Flush(changed, size, position, to, seen))
            position = to
        for name in ("raw", "merged"):
            (tmp_path / name).unlink(missing_ok=True)
        raw = written(tmp_path / "raw", head(512), flushes)
        once = merged([raw], tmp_path / "merged", 60)
        prove_equal([raw], once)
        moments = {cut.position: cut for cut in raw.cuts}
        for cut in once.cuts:
            before = replayed(base, content(raw, moments[cut.position], tmp_path), tmp_path)
            assert replayed(base, content(once, cut, tmp_path), tmp_path) == before
        assert before.endswith(b"b" * 512)


def empty_database(path: Path) -> bytes:
    """One page of 512 bytes, in WAL mode."""
    connection = apsw.Connection(str(path))
    for pragma in ("page_size=512", "journal_mode=wal", "user_version=1"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.close()
    assert path.stat().st_size == 512
    return path.read_bytes()


Change = Callable[[list[Flush], Random], None]


def _page(flushes: list[Flush], chooser: Random) -> None:
    index, flush = _chosen(flushes, chooser)
    pages = list(flush.pages)
    number, page = pages.pop(chooser.randrange(len(pages)))
    byte = chooser.randrange(len(page))
    changed = page[:byte] + bytes([page[byte] ^ 1 << chooser.randrange(8)]) + page[byte + 1 :]
    flushes[index] = replace(flush, pages=[*pages, (number, changed)])


def _less(flushes: list[Flush], chooser: Random) -> None:
    index, flush = _chosen(flushes, chooser)
    pages = list(flush.pages)
    del pages[chooser.randrange(len(pages))]
    flushes[index] = replace(flush, pages=pages)


def _more(flushes: list[Flush], chooser: Random) -> None:
    index, flush = _chosen(flushes, chooser)
    flushes[index] = replace(flush, pages=[*flush.pages, (9, bytes(512))])


def _twice(flushes: list[Flush], chooser: Random) -> None:
    index, flush = _chosen(flushes, chooser)
    flushes[index] = replace(flush, pages=[*flush.pages, flush.pages[0]])


def _renumbered(flushes: list[Flush], chooser: Random) -> None:
    index, flush = _chosen(flushes, chooser)
    flushes[index] = replace(flush, pages=[(9, flush.pages[0][1]), *flush.pages[1:]])


def _exchanged(flushes: list[Flush], chooser: Random) -> None:
    index, flush = _chosen(flushes, chooser)
    (one, first), (two, second), *others = flush.pages
    assert first != second
    flushes[index] = replace(flush, pages=[(one, second), (two, first), *others])


def _size(flushes: list[Flush], chooser: Random) -> None:
    index, flush = _chosen(flushes, chooser)
    flushes[index] = replace(flush, database_pages=flush.database_pages + chooser.choice([-1, 1]))


def _moment(flushes: list[Flush], chooser: Random) -> None:
    index, flush = _chosen(flushes, chooser)
    flushes[index] = replace(flush, seen=flush.seen + (at(0.000_001) - at(0)))


def _joined(flushes: list[Flush], _: Random) -> None:
    one, two, *others = flushes
    flushes[:] = [replace(two, pages=list(dict([*one.pages, *two.pages]).items()), since=one.since), *others]


def _dropped(flushes: list[Flush], _: Random) -> None:
    flushes.pop()


def _position(flushes: list[Flush], _: Random) -> None:
    last = flushes[-1]
    flushes[-1] = replace(last, position=Position(last.position.salts, last.position.frame + 1))


def _origin(flushes: list[Flush], _: Random) -> None:
    flushes[0] = replace(flushes[0], since=Position("22" * 8, 0))


def _chosen(flushes: list[Flush], chooser: Random) -> tuple[int, Flush]:
    index = chooser.randrange(len(flushes))
    return index, flushes[index]


CHANGES: list[Change] = [
    *(_page, _less, _more, _twice, _renumbered, _exchanged),
    *(_size, _moment, _joined, _dropped, _position, _origin),
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_equal_is_never_called_so(tmp_path: Path, change: Change) -> None:
    """A merge, made again with one fault: itself without a flaw, with right hashes and checksums."""
    raw = [written(tmp_path / "1", head(512), small(512, 100))]
    flushes = small(512, 200)[100:]
    raw.append(written(tmp_path / "2", head(512, predecessor=raw[0].link), flushes))
    good = merged(raw, tmp_path / "good", 60)
    prove_equal(raw, good)
    faultless = [
        Flush(
            [(number, bytes(page)) for batch in frames(good, cut) for number, page in pages_in(batch, 512)],
            *(cut.pages, cut.since, cut.position, cut.seen),
        )
        for cut in good.cuts
    ]
    assert written(tmp_path / "again", head(512, 60), faultless).cuts == good.cuts
    for seed in range(5):
        path = tmp_path / f"faulty-{seed}"
        faulty = list(faultless)
        change(faulty, Random(seed))
        made = written(path, head(512, 60), faulty)
        assert verify(made) == made
        with pytest.raises(VerificationError, match=str(path)):
            prove_equal(raw, made)


def test_a_merge_that_is_damaged_on_the_disk_is_not_equal(tmp_path: Path) -> None:
    raw = written(tmp_path / "raw", head(512), small(512, 100))
    good = merged([raw], tmp_path / "good", 60)
    data = good.path.read_bytes()
    for wrong in (data[:-1], data + b"\0", data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], data[: good.cuts[0].end]):
        good.path.write_bytes(wrong)
        with pytest.raises(VerificationError, match="is not what was written"):
            prove_equal([raw], good)
        with pytest.raises(VerificationError):
            prove_equal([raw], scan(good.path))


def test_damaged_sources_make_no_merge_and_no_proof(tmp_path: Path) -> None:
    raw = written(tmp_path / "raw", head(512), small(512, 100))
    good = merged([raw], tmp_path / "good", 60)
    data = bytearray(raw.path.read_bytes())
    data[raw.cuts[50].end - 6] ^= 1
    raw.path.write_bytes(data)
    with pytest.raises(VerificationError, match="is damaged"):
        prove_equal([raw], good)
    with pytest.raises(VerificationError, match="is damaged"):
        merged([scan(raw.path)], tmp_path / "other", 60)
    prefix = verify(scan(raw.path))
    rest = merged([prefix], tmp_path / "rest", 60)
    prove_equal([prefix], rest)
    assert rest.cuts[-1].seen == at(50)


def test_a_gap_is_not_merged_over(tmp_path: Path) -> None:
    flushes, raw = small(512, 9), list[Increment]()
    for number in range(3):
        link = raw[-1].link if raw else None
        raw.append(written(tmp_path / f"{number}", head(512, predecessor=link), flushes[3 * number : 3 * number + 3]))
    good = merged(raw, tmp_path / "good", 60)
    one, two, three = raw
    wrong = [
        [one, three],
        [two, one, three],
        [one, three, two],
        [one, one],
        [one, replace(two, cuts=two.cuts[:-1]), three],
    ]
    for index, parts in enumerate(wrong):
        with pytest.raises(VerificationError, match="does not go on where"):
            merged(parts, tmp_path / f"wrong-{index}", 60)
        with pytest.raises(VerificationError, match="does not go on where"):
            prove_equal(parts, good)
    with pytest.raises(VerificationError):
        prove_equal([two, three], good)
    with pytest.raises(VerificationError):
        prove_equal([one, two], good)


def test_a_head_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    raw = written(tmp_path / "raw", head(512), small(512, 9))
    with pytest.raises(ValueError, match="another database or timeline"):
        merged([raw], tmp_path / "a", 60, timeline="t2")
    minutes = merged([raw], tmp_path / "minutes", 60)
    for resolution in (1, 60, 90):
        with pytest.raises(ValueError, match="is no merge"):
            merged([minutes], tmp_path / f"b-{resolution}", resolution)
    for name, part in (("a", raw), ("b-1", minutes), ("b-60", minutes), ("b-90", minutes)):
        with pytest.raises(ValueError, match=r"no merge|another database"):
            prove_equal([part], scan(tmp_path / name))


def test_a_great_merge_takes_little_memory(tmp_path: Path) -> None:
    """256 MiB of pages; in the proof, a hash a page."""
    page, pages = 65536, 64
    position = ORIGIN
    with IncrementWriter.create(tmp_path / "raw", head(page)) as writer:
        for number in range(64):
            to = Position("11" * 8, position.frame + pages)
            body = ((index + 1, bytes([number, index]) * (page // 2)) for index in range(pages))
            writer.append(body, pages, position, to, at(number / 100))
            position = to
    tracemalloc.start()
    raw = scan(tmp_path / "raw")
    once = merged([raw], tmp_path / "once", 60)
    prove_equal([raw], once)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(once.cuts) == 1
    assert peak < 16 << 20
