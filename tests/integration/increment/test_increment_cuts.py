"""Every cut of an increment is its moment, and SQLite says so."""

import subprocess
from collections.abc import Iterator
from datetime import timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portfolio_ops.errors import RefusedError
from portfolio_ops.sqlite import increment_content, increment_writer
from portfolio_ops.sqlite.cuts import Cuts
from portfolio_ops.sqlite.increment import Link, scan
from portfolio_ops.sqlite.increment_content import extract, verify
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from portfolio_ops.sqlite.snapshot import Position
from tests.integration.increment.live import NOON, ORIGIN, Live, at, content, head, restored, small, written
from tests.integration.wal.files import PAGE_SIZES, replayed


@settings(
    max_examples=150,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(page_size=st.sampled_from(PAGE_SIZES), seed=st.integers(0, 2**32), parts=st.booleans())
def test_every_cut_is_that_moment(tmp_path: Path, page_size: int, seed: int, *, parts: bool) -> None:
    """However the writer was stopped and gone on with, and however its memory was filled."""
    path = tmp_path / "hour.wal.zst"
    path.unlink(missing_ok=True)
    with Live(tmp_path, page_size, seed) as live, pytest.MonkeyPatch.context() as patch:
        if parts:
            patch.setattr(increment_writer, "_BATCH", 2 * page_size)
            patch.setattr(increment_writer, "_CHUNK", 100)
            patch.setattr(increment_content, "_CHUNK", 1000)
        writer, cuts, images = IncrementWriter.create(path, head(page_size)), [], []
        for _ in range(live.chooser.randint(1, 7)):
            live.change()
            cuts.append(live.flush(1).append_to(writer))
            images.append(live.image())
            if live.chooser.random() < 0.3:
                writer.close()
                writer = IncrementWriter.resume(path)
        writer.close()
        found = scan(path)
        assert (found.cuts, found.torn, found.damaged) == (Cuts.of(cuts), 0, "")
        assert verify(found) == found
        for cut, image in zip(cuts, images, strict=True):
            assert restored(live.base, [found], cut, tmp_path) == image


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_zstd_alone_gives_the_wal_of_the_last_cut(tmp_path: Path, page_size: int) -> None:
    with Live(tmp_path, page_size, 7) as live:
        flushes = []
        for _ in range(5):
            live.change()
            flushes.append(live.flush(1))
        made = written(tmp_path / "hour.wal.zst", head(page_size), flushes)
        wal = subprocess.run(["zstd", "-dc", made.path], check=True, stdout=subprocess.PIPE).stdout
        assert wal == content(made, made.cuts[-1], tmp_path)
        assert replayed(live.base, wal, tmp_path) == live.image()
    frames = sum(cut.frames for cut in made.cuts)
    assert made.cuts.frames() == frames
    assert len(wal) == 32 + frames * (24 + page_size)


def test_each_page_is_there_once_a_flush(tmp_path: Path) -> None:
    with Live(tmp_path, 512, 3) as live:
        for _ in range(6):
            live.change()
        flush = live.flush(1)
        made = written(tmp_path / "hour.wal.zst", head(512), [flush])
    assert flush.position.frame > made.cuts[0].frames == len(dict(flush.pages))


def test_it_says_what_it_is(tmp_path: Path) -> None:
    link = Link(bytes(range(32)), ORIGIN)
    east = timezone(timedelta(hours=9))
    [flush] = small(512, 1)
    with IncrementWriter.create(tmp_path / "a", head(512, 60, link)) as writer:
        cut = writer.append(flush.pages, 8, ORIGIN, flush.position, flush.seen.astimezone(east))
        assert writer.link == Link(cut.chain, flush.position)
        assert writer.end == cut.end == (tmp_path / "a").stat().st_size
    found = scan(tmp_path / "a")
    assert found.head == head(512, 60, link)
    assert found.cuts == (cut,)
    assert (cut.seen, cut.since, cut.position, cut.pages, cut.frames) == (at(1), ORIGIN, flush.position, 8, 2)
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_the_same_flushes_give_the_same_bytes(tmp_path: Path) -> None:
    flushes = small(1024, 4)
    one, two = (written(tmp_path / name, head(1024), flushes) for name in "ab")
    other = written(tmp_path / "c", head(1024, timeline="t2"), flushes)
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.salts != other.salts
    assert content(one, one.cuts[0], tmp_path)[32:] != content(other, other.cuts[0], tmp_path)[32:]


def test_moments_before_the_epoch_and_of_far_centuries(tmp_path: Path) -> None:
    [flush] = small(512, 1)
    for name, seen in (("a", NOON.replace(year=1969)), ("b", NOON.replace(year=9999, microsecond=999_999))):
        with IncrementWriter.create(tmp_path / name, head(512)) as writer:
            writer.append(flush.pages, 8, ORIGIN, flush.position, seen)
        assert scan(tmp_path / name).cuts[0].seen == seen


def test_nothing_is_replaced(tmp_path: Path) -> None:
    made = written(tmp_path / "a", head(512), small(512, 2))
    before = made.path.read_bytes()
    with pytest.raises(RefusedError, match="exists already"):
        IncrementWriter.create(made.path, head(512))
    (tmp_path / "target").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        extract(made, made.cuts[0], tmp_path / "target")
    assert (made.path.read_bytes(), (tmp_path / "target").read_bytes()) == (before, b"mine")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "target"]


def test_a_cut_of_another_file_is_not_extracted(tmp_path: Path) -> None:
    one = written(tmp_path / "a", head(512), small(512, 2))
    two = written(tmp_path / "b", head(512, timeline="t2"), small(512, 2))
    with pytest.raises(ValueError, match="of another file"):
        extract(one, two.cuts[0], tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_what_is_no_flush_is_not_written(tmp_path: Path) -> None:
    flush, after = small(512, 2)
    page = bytes(512)

    def broken() -> Iterator[tuple[int, bytes]]:
        yield 1, page
        raise OSError("the WAL cannot be read")

    with IncrementWriter.create(tmp_path / "a", head(512)) as writer:
        flush.append_to(writer)
        before = (tmp_path / "a").read_bytes()
        step = (8, flush.position, after.position, after.seen)
        with pytest.raises(ValueError, match="without a page"):
            writer.append([], *step)
        with pytest.raises(ValueError, match="511 bytes"):
            writer.append([(1, page[1:])], *step)
        with pytest.raises(ValueError, match="page 0"):
            writer.append([(0, page)], *step)
        with pytest.raises(ValueError, match="holds SQLite's locks"):
            writer.append([(2**30 // 512 + 1, page)], *step)
        with pytest.raises(ValueError, match="a page at least"):
            writer.append([(1, page)], 0, *step[1:])
        with pytest.raises(ValueError, match="does not go on from there"):
            writer.append([(1, page)], 8, ORIGIN, after.position, after.seen)
        with pytest.raises(OSError, match="cannot be read"):
            writer.append(broken(), *step)
        assert (tmp_path / "a").read_bytes() == before
        after.append_to(writer)
    found = scan(tmp_path / "a")
    assert len(found.cuts) == 2
    assert verify(found) == found
    with pytest.raises(ValueError, match="closed"):
        after.append_to(writer)


def test_the_pages_beside_the_locked_one_are_written(tmp_path: Path) -> None:
    locked = 2**30 // 65536 + 1
    page = bytes(65536)
    with IncrementWriter.create(tmp_path / "a", head(65536)) as writer:
        pages = [(locked - 1, page), (locked + 1, page)]
        assert writer.append(pages, locked + 1, ORIGIN, Position("11" * 8, 2), NOON).frames == 2


def test_the_first_flush_goes_on_from_the_predecessor(tmp_path: Path) -> None:
    first, second = small(512, 2)
    with IncrementWriter.create(tmp_path / "a", head(512, predecessor=Link(bytes(32), first.position))) as writer:
        with pytest.raises(ValueError, match="does not go on from there"):
            first.append_to(writer)
        second.append_to(writer)
