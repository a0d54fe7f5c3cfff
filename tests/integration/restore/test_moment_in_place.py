"""A moment over the live database, and back again."""

import json

from portfolio_ops.moment import exact
from tests.integration.archive.archiver import archiving, digest_of
from tests.integration.restore.conftest import Stage

NOTE = "INSERT INTO comments(image, body) VALUES(7, 'archived')"


def test_a_moment_over_the_live_database_and_undone(stage: Stage) -> None:
    with archiving(stage.site) as archiver:
        base = archiver.base()
        wanted = archiver.change(NOTE)
        archiver.change("DELETE FROM comments")
    stage.start()
    words = ("restore", "database", "--at", exact(wanted.seen), "--in-place")
    plan = stage.call(*words, "--dry-run").stdout
    for expected in (exact(wanted.seen), base.name, "replays  1 increment", "stops", "keeps"):
        assert expected in plan
    assert not (stage.folder / "stops").exists()
    answer = stage.asked(*words, "--yes")["data"]
    assert answer["done"]
    assert answer["plan"]["moment"]["found"] == exact(wanted.seen)
    assert stage.runs
    assert stage.kept() == ["portfolio.sqlite"]
    stage.control("stop")
    stage.change("DELETE FROM comments WHERE body = 'live'")
    assert stage.rows() == 51
    record = json.loads((stage.site.state / "restore.json").read_bytes())
    assert exact(wanted.seen) in record["artifact"]
    stage.call("restore", "undo", "--yes")
    stage.change("DELETE FROM comments WHERE body = 'live'")
    assert stage.rows() == 0


def test_what_is_in_place_is_the_moment_to_the_last_row(stage: Stage) -> None:
    with archiving(stage.site) as archiver:
        archiver.base()
        wanted = archiver.change(NOTE)
        archiver.change("DELETE FROM comments")
    stage.call("restore", "database", "--at", exact(wanted.seen), "--in-place", "--yes")
    assert digest_of(stage.site.database) == archiver.seen[0][1]


def test_a_damaged_increment_stops_nothing(stage: Stage) -> None:
    with archiving(stage.site) as archiver:
        archiver.base()
        wanted = archiver.change(NOTE)
    [path] = archiver.files()
    data = bytearray(path.read_bytes())
    data[wanted.end - 20] ^= 1
    path.write_bytes(data)
    stage.start()
    done = stage.call("restore", "database", "--at", exact(wanted.seen), "--in-place", "--yes", code=9)
    assert "is damaged" in done.stderr
    assert not (stage.folder / "stops").exists()
    assert stage.kept() == ["portfolio.sqlite"]
