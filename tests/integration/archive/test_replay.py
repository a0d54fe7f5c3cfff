"""What SQLite does not replay in full is not taken for the moment, and nothing is left of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.errors import VerificationError
from portfolio_ops.host.journal import Log
from portfolio_ops.restore import replay
from portfolio_ops.restore.points import MomentPlan, plan_moment
from portfolio_ops.restore.replay import bytes_needed, stage_moment
from portfolio_ops.sqlite.cuts import Cut, Cuts
from portfolio_ops.sqlite.increment import Increment
from portfolio_ops.sqlite.increment_content import extract
from tests.integration.archive.archiver import archiving
from tests.integration.archive.test_moments import GROW, NOTE


@pytest.fixture
def plan(site: Site) -> MomentPlan:
    """Two flushes on a base."""
    with archiving(site) as archiver:
        archiver.base()
        archiver.change(GROW)
        last = archiver.change(NOTE)
    return plan_moment(site, last.seen)


def staged(plan: MomentPlan, path: Path) -> None:
    stage_moment(plan, path, Log(site="shop", job="restore"))


def require_failure(plan: MomentPlan, folder: Path, words: str) -> None:
    before = set(folder.iterdir())
    with pytest.raises(VerificationError, match=words):
        staged(plan, folder / "staged")
    assert set(folder.iterdir()) == before


def test_a_wal_that_ends_early(plan: MomentPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is as long as it should be: only the frames tell."""

    def early(increment: Increment, cut: Cut, target: Path) -> None:
        extract(increment, cut, target)
        target.write_bytes(target.read_bytes()[:-1])

    [(increment, cut)] = plan.pieces
    assert increment.cuts[0].pages == cut.pages
    monkeypatch.setattr(replay, "extract", early)
    require_failure(plan, tmp_path, "not replayed in full")


def test_a_database_of_another_size(plan: MomentPlan, tmp_path: Path) -> None:
    [(increment, cut)] = plan.pieces
    longer = replace(cut, pages=cut.pages + 1)
    wrong = replace(increment, cuts=Cuts.of([*increment.cuts[:-1], longer]))
    require_failure(replace(plan, pieces=((wrong, longer),)), tmp_path, "not replayed in full")


def test_an_interruption_leaves_nothing(plan: MomentPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        assert (tmp_path / "staged-wal").exists()
        raise KeyboardInterrupt

    before = set(tmp_path.iterdir())
    monkeypatch.setattr(replay, "_replay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        staged(plan, tmp_path / "staged")
    assert set(tmp_path.iterdir()) == before


def test_a_database_that_is_not_sound(plan: MomentPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(increment: Increment, cut: Cut, database: Path) -> None:
        original(increment, cut, database)
        data = bytearray(database.read_bytes())
        data[4096 * 3 : 4096 * 4] = bytes(4096)
        database.write_bytes(data)

    original = replay._replay
    monkeypatch.setattr(replay, "_replay", spoilt)
    require_failure(plan, tmp_path, "the database of .*Z: integrity_check found")


def test_the_room_is_asked_for(plan: MomentPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(replay, "require_space", lambda _, needed: asked.append(needed))
    staged(plan, tmp_path / "staged")
    [(increment, cut)] = plan.pieces
    extract(increment, cut, tmp_path / "wal")
    assert asked == [bytes_needed(plan)]
    assert asked[0] >= (tmp_path / "staged").stat().st_size + (tmp_path / "wal").stat().st_size - 32
