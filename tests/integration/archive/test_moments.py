"""Any moment that was archived comes back exactly as it was."""

import time
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from portfolio_ops.config import Site
from portfolio_ops.moment import exact
from tests.integration.archive.archiver import Archiver, archiving
from tests.integration.archive.conftest import Operator

INSTANT = timedelta(microseconds=1)
INSERT = "INSERT INTO images(gallery, body) VALUES(1, randomblob(3000))"
GROW = "INSERT INTO images(gallery, body) SELECT 1, randomblob(2000) FROM comments"
REWRITE = "UPDATE images SET body = randomblob(length(body)) WHERE id % 3 = abs(random()) % 3"
SHRINK = "DELETE FROM images WHERE id % 2"
NOTE = "INSERT INTO comments(image, body) VALUES(1, hex(randomblob(20)))"


def at(moment: datetime) -> tuple[str, str]:
    return "--at", exact(moment)


def require_every_cut(operator: Operator, archiver: Archiver, first: int = 0) -> list[dict[str, object]]:
    """Restore each, and between them; gives the plans."""
    plans = []
    for number, (cut, digest) in enumerate(archiver.seen[first:], first):
        found, plan = operator.restored(*at(cut.seen))
        assert found == digest, f"cut {number}"
        assert plan["moment"]["found"] == exact(cut.seen)
        plans.append(plan)
        if number > first:
            found, plan = operator.restored(*at(cut.seen - INSTANT))
            assert found == archiver.seen[number - 1][1], f"before cut {number}"
    return plans


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_cut_and_the_times_between_them(site: Site, operator: Operator, seed: int) -> None:
    chooser = Random(seed)
    with archiving(site) as archiver:
        archiver.base()
        for number in range(14):
            steps = chooser.choices([INSERT, NOTE, GROW, REWRITE, SHRINK, "VACUUM"], [4, 4, 1, 2, 1, 1], k=2)
            archiver.writer.run(*steps, NOTE)
            if number == 8:
                archiver.base()
                archiver.writer.run(NOTE)
            archiver.flush()
            if chooser.random() < 0.25:
                archiver.seal()
            if chooser.random() < 0.3:
                archiver.next_file()
    require_every_cut(operator, archiver)


def test_a_database_that_grows_and_shrinks(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        archiver.base()
        archiver.change(GROW, GROW)
        archiver.change(SHRINK, "VACUUM")
        archiver.base()
        archiver.change("DELETE FROM images", "VACUUM")
        archiver.next_file()
        archiver.seal()
        archiver.change(GROW, GROW, GROW)
        archiver.change("DELETE FROM images", "VACUUM")
        archiver.change(INSERT)
    sizes = [cut.pages for cut, _ in archiver.seen]
    assert sizes[0] > 2 * sizes[2]
    assert sizes[3] > 4 * sizes[2]
    require_every_cut(operator, archiver)


def test_the_newest_base_before_the_moment_is_taken_wherever_it_lies(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        bases = [archiver.base()]
        archiver.change(GROW)
        archiver.writer.run(REWRITE, NOTE)
        bases.append(archiver.base())  # between two cuts
        archiver.writer.run(REWRITE, NOTE)
        archiver.flush()
        archiver.next_file()
        archiver.change(REWRITE, NOTE)
        bases.append(archiver.base())  # exactly at a cut
        archiver.next_file()
        archiver.change(REWRITE, NOTE)
    plans = require_every_cut(operator, archiver)
    taken = [Path(str(plan["artifact"]["file"])) for plan in plans]  # type: ignore[index]
    assert taken == [bases[0], bases[1], bases[2], bases[2]]
    replayed = [len(plan["moment"]["increments"]) for plan in plans]  # type: ignore[index]
    assert replayed == [1, 1, 0, 1]


def test_a_base_is_a_moment_itself(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        archiver.base()
        base = archiver.writer.digest()
        cut = archiver.change(NOTE)
    [window] = operator.asked("list", "points")["windows"]
    first = datetime.fromisoformat(window["first"])
    assert first < cut.seen
    assert (window["last"], window["points"]) == (exact(cut.seen), 2)
    assert operator.restored("--at", window["first"])[0] == base
    assert operator.restored(*at(cut.seen - INSTANT))[0] == base
    assert "before all of them" in operator.refused(*at(first - INSTANT))


def test_where_nothing_has_changed_yet(site: Site, operator: Operator) -> None:
    with archiving(site) as archiver:
        archiver.base()
        digest = archiver.writer.digest()
    [window] = operator.asked("list", "points")["windows"]
    assert window["first"] == window["last"]
    assert operator.restored("--at", window["first"])[0] == digest


def test_the_plan_says_what_was_understood_and_found(site: Site, operator: Operator, tmp_path: Path) -> None:
    with archiving(site) as archiver:
        base = archiver.base()
        cut = archiver.change(NOTE)
        wanted = cut.seen + timedelta(milliseconds=250)
        time.sleep(0.3)
        archiver.next_file()
        archiver.change(NOTE)
    out, _ = operator.call("restore", "database", *at(wanted), "--to", str(tmp_path / "x"), "--dry-run")
    lines = out.splitlines()
    assert lines[0].startswith("wanted ")
    assert f"({exact(wanted)})" in lines[0]
    assert f"({exact(cut.seen)}), 0.2 s before" in lines[1]  # 0.25 exactly, which is rounded to even
    assert base.name in lines[2]
    assert lines[3] == "replays  1 increment"
    assert not (tmp_path / "x").exists()


def test_the_latest_backup_is_not_the_last_state_and_the_plan_says_so(
    site: Site, operator: Operator, tmp_path: Path
) -> None:
    with archiving(site) as archiver:
        archiver.base()
    assert "later " not in operator.call("restore", "database", "--to", str(tmp_path / "x"), "--dry-run")[0]
    with archiving(site) as archiver:
        base = archiver.base()
        cut = archiver.change(NOTE)
    for words in ((), ("latest",)):
        out, _ = operator.call("restore", "database", *words, "--to", str(tmp_path / "x"), "--dry-run")
        [line] = [line for line in out.splitlines() if line.startswith("later ")]
        assert operator.restored(*line.split()[-2:])[0] == archiver.seen[-1][1]
        assert operator.restored(*words)[1]["later"] == exact(cut.seen)
    assert operator.restored(base.name)[1]["later"] is None  # it was chosen on purpose
    assert operator.restored(*at(cut.seen))[1]["later"] is None
