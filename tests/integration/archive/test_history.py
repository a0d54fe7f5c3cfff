"""Which backups serve as bases, and which increments lead from them to a cut: of histories that are made up."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from portfolio_ops.restore.history import History, Pieces
from portfolio_ops.sqlite.increment import Increment
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from portfolio_ops.sqlite.merge import merge
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.store.artifact import Artifact, Content, Kind, Metadata
from portfolio_ops.store.timeline import Timeline
from tests.integration.increment.live import ORIGIN, Flush, at, head, small, written

SALTS = "11" * 8


def backup(position: Position | None, taken: datetime) -> Artifact:
    stated = None if position is None else {"salts": position.salts, "frame": position.frame}
    content = Content("", 0)
    metadata = Metadata(Kind.DAILY, "shop", taken, content, {"position": stated})
    return Artifact(Path(f"{taken}"), "", metadata, 0, content)


def history(increments: list[Increment], *bases: Artifact) -> History:
    return History(Timeline("t1", Path(), tuple(increments), ()), bases)


@pytest.fixture
def flushes() -> list[Flush]:
    """From frame 0 to 12 in six flushes, a second apart."""
    return small(512, 6)


@pytest.fixture
def files(tmp_path: Path, flushes: list[Flush]) -> list[Increment]:
    """Three files of two flushes each."""
    made: list[Increment] = []
    for number in range(3):
        before = made[-1].link if made else None
        made.append(
            written(tmp_path / f"{number}", head(512, predecessor=before), flushes[2 * number : 2 * number + 2])
        )
    return made


def names(pieces: Pieces | None) -> list[str] | None:
    return None if pieces is None else [increment.path.name for increment, _ in pieces]


def test_a_base_lies_where_its_frame_does(files: list[Increment]) -> None:
    for frame, number in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (11, 5), (12, 5)]:
        found = history(files, backup(Position(SALTS, frame), at(number))).bases[0].places
        assert found[files[number // 2].path] == number % 2, frame
    for position in (Position(SALTS, 13), Position("22" * 8, 3), Position("22" * 8, 0), None):
        assert not any(base.places for base in history(files, backup(position, at(0))).bases)


def test_the_shortest_way(files: list[Increment]) -> None:
    goal = files[2].cuts[1]
    for frame, expected in [(1, ["0", "1", "2"]), (4, ["1", "2"]), (5, ["1", "2"]), (8, ["2"]), (9, ["2"]), (12, [])]:
        made = history(files, backup(Position(SALTS, frame), at(0)))
        assert names(made.way(made.bases[0], files[2], goal)) == expected, frame


def test_no_way_leads_back(files: list[Increment]) -> None:
    made = history(files, backup(Position(SALTS, 7), at(0)))
    assert made.reached == {files[1].path: 1, files[2].path: 0}
    assert made.way(made.bases[0], files[1], files[1].cuts[0]) is None
    assert made.way(made.bases[0], files[0], files[0].cuts[1]) is None


def test_no_way_leads_over_a_gap(files: list[Increment]) -> None:
    made = history([files[0], files[2]], backup(Position(SALTS, 1), at(0)))
    assert made.way(made.bases[0], files[2], files[2].cuts[0]) is None
    assert list(made.reached) == [files[0].path]


def test_no_way_leads_over_a_file_of_another_history(files: list[Increment], tmp_path: Path) -> None:
    """It begins and ends at the same positions."""
    other = written(
        tmp_path / "other", head(512, predecessor=files[0].link), small(512, 2, files[0].cuts[1].position, 9)
    )
    assert other.cuts[-1].position == files[1].cuts[-1].position
    made = history([files[0], other, files[2]], backup(Position(SALTS, 1), at(0)))
    assert made.way(made.bases[0], other, other.cuts[1]) is not None
    assert made.way(made.bases[0], files[2], files[2].cuts[0]) is None


def test_a_backup_of_later_commits_at_an_archived_position_is_no_base(files: list[Increment]) -> None:
    """As after a power cut that took back commits which were archived."""
    late = at(1) + timedelta(hours=1)
    for frame in (3, 4, 5):
        assert not history(files, backup(Position(SALTS, frame), late)).bases[0].places, frame


def test_a_site_at_rest_stays_where_it_is(tmp_path: Path) -> None:
    increment = written(tmp_path / "x", head(512), small(512, 2))
    found = history([increment], backup(Position(SALTS, 4), at(9999))).bases[0].places
    assert found == {increment.path: 1}


def test_without_a_wal_the_time_tells(files: list[Increment]) -> None:
    first = files[0].cuts[0].seen
    assert history(files, backup(ORIGIN, first)).bases[0].places == {files[0].path: 0}
    assert not history(files, backup(ORIGIN, first + timedelta(microseconds=1))).bases[0].places


def test_coarser_increments_stand_in_for_finer_ones_that_are_gone(
    files: list[Increment], flushes: list[Flush], tmp_path: Path
) -> None:
    with IncrementWriter.create(tmp_path / "merged", head(512, 60)) as writer:
        merged = merge(files[:2], writer, tmp_path)
    base = backup(ORIGIN, flushes[0].seen)
    goal = files[2].cuts[0]
    both = history([*files, merged], base)
    assert names(both.way(both.bases[0], files[2], goal)) == ["merged", "2"]
    assert names(both.way(both.bases[0], files[1], files[1].cuts[0])) == ["0", "1"]
    coarse = history([files[2], merged], base)
    assert names(coarse.way(coarse.bases[0], files[2], goal)) == ["merged", "2"]
    assert set(coarse.reached) == {merged.path, files[2].path}


def test_in_a_merged_increment_the_time_tells(tmp_path: Path) -> None:
    """Each of three generations of the WAL has a flush in each of three minutes; the last of each minute stays."""
    flushes: list[Flush] = []
    for number in range(9):
        since = flushes[-1].position if flushes else ORIGIN
        position = Position(f"{number:02x}" * 8, 2)
        flushes.append(Flush([(1, bytes(512))], 1, since, position, at(20 * number)))
    raw = written(tmp_path / "raw", head(512), flushes)
    with IncrementWriter.create(tmp_path / "merged", head(512, 60)) as writer:
        merged = merge([raw], writer, tmp_path)
    assert [cut.position.salts[:2] for cut in merged.cuts] == ["02", "05", "08"]
    for number, expected in [(3, 1), (4, 1), (5, 1), (6, 2), (7, 2), (8, 2)]:
        taken = flushes[number].seen - timedelta(seconds=5)
        places = history([raw, merged], backup(Position(f"{number:02x}" * 8, 1), taken)).bases[0].places
        assert places == {raw.path: number, merged.path: expected}, number
    near = [flushes[0].seen, flushes[2].seen + timedelta(seconds=1), flushes[8].seen - timedelta(seconds=1)]
    for taken in [*near, flushes[8].seen + timedelta(hours=1)]:
        assert not history([merged], backup(Position("77" * 8, 1), taken)).bases[0].places
    between = backup(Position("77" * 8, 1), flushes[4].seen - timedelta(seconds=5))
    assert history([raw, merged], between).bases[0].places == {merged.path: 1}
    # Dated when the clock had gone back: its position is that of a later file.
    flush = Flush([(1, bytes(512))], 1, flushes[8].position, Position("08" * 8, 4), at(4000))
    later = written(tmp_path / "later", head(512, predecessor=merged.link), [flush])
    set_back = backup(Position("08" * 8, 3), flushes[4].seen - timedelta(seconds=5))
    assert history([merged, later], set_back).bases[0].places == {later.path: 0}
