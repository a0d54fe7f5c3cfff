"""Without a WAL a base stands exactly at a restore point, or it is none: in every resolution."""

import contextlib
import shutil
import sqlite3
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Site
from portfolio_ops.host.inotify import Watch
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import follow_pages
from portfolio_ops.jobs.age import age_increments
from portfolio_ops.jobs.follow_pages import PageFollower
from portfolio_ops.jobs.following import Orders
from portfolio_ops.moment import exact
from portfolio_ops.restore import points
from portfolio_ops.sqlite import look
from portfolio_ops.sqlite.look import opened
from portfolio_ops.store import image, timeline
from tests.conftest import make_database
from tests.integration.archive.archiver import digest_of
from tests.integration.archive.conftest import Operator
from tests.integration.archive.oracle import TOOL


@pytest.fixture
def site(site: Site) -> Site:
    """The same site without a WAL."""
    site.database.unlink()
    make_database(site.database, journal_mode="delete", page_size=1024)
    site.state.mkdir(parents=True)
    return site


def run(site: Site, *words: str) -> None:
    """In a process of its own, as it runs by itself."""
    subprocess.run(
        [TOOL, "--config", site.file, *words], check=True, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )


def change(site: Site, statement: str, *parameters: Any) -> None:
    with contextlib.closing(sqlite3.connect(site.database, isolation_level=None)) as connection:
        connection.execute(statement, parameters)


def flipped(site: Site) -> bytes:
    """Change what a page holds; gives what it held."""
    with contextlib.closing(sqlite3.connect(site.database)) as connection:
        [(body,)] = connection.execute("SELECT body FROM images WHERE id = 7").fetchall()
    change(site, "UPDATE images SET body = zeroblob(length(body)) WHERE id = 7")
    return bytes(body)


def test_a_backup_from_between_two_looks_is_no_base(site: Site, operator: Operator, tmp_path: Path) -> None:
    run(site, "archive", "once")
    change(site, "INSERT INTO comments(body) VALUES('one')")
    run(site, "archive", "once")
    run(site, "backup", "daily")  # it stands at a restore point, which is kept
    time.sleep(2.1)
    body = flipped(site)
    run(site, "backup", "daily")  # nobody follows now, and so nobody sees this state
    change(site, "UPDATE images SET body = ? WHERE id = 7", body)
    time.sleep(2.1)  # so that nothing but the rule keeps it from being taken for one by its time
    run(site, "archive", "once")
    digest, when = digest_of(site.database), exact(points.windows(site)[-1].last)

    def check() -> None:
        history = points.read(site)[0]
        assert [base.artifact.metadata.kind.value for base in history.bases] == ["wal", "daily", "daily"]
        assert [bool(base.places) for base in history.bases] == [True, True, False]
        assert operator.restored("--at", when)[0] == digest

    check()
    shutil.copy(site.database, tmp_path / "other")
    (tmp_path / "other").replace(site.database)
    change(site, "DELETE FROM likes")
    run(site, "archive", "once")
    age_increments(site, datetime.now(UTC) + timedelta(days=2), wait=timedelta())
    age_increments(site, datetime.now(UTC) + timedelta(days=10), wait=timedelta())
    [increment] = points.read(site)[0].increments
    assert increment.head.resolution == timeline.HOUR
    check()


def test_a_backup_at_a_restore_point_is_one_after_merges_too(site: Site, operator: Operator, tmp_path: Path) -> None:
    run(site, "archive", "once")
    for _ in range(3):
        change(site, "INSERT INTO comments(body) VALUES(hex(randomblob(3000)))")
        run(site, "archive", "once")
    run(site, "backup", "daily")  # nothing has changed since: it stands there
    digests = [digest_of(site.database)]
    change(site, "INSERT INTO comments(body) VALUES('the last')")
    run(site, "archive", "once")
    digests.append(digest_of(site.database))
    shutil.copy(site.database, tmp_path / "other")
    (tmp_path / "other").replace(site.database)
    change(site, "DELETE FROM likes")
    run(site, "archive", "once")
    for days in (0, 2, 10):
        age_increments(site, datetime.now(UTC) + timedelta(days=days), wait=timedelta())
        history = points.read(site)[0]
        daily = history.bases[-1]
        assert daily.artifact.metadata.kind.value == "daily"
        [(path, index)] = daily.places.items()
        cuts = next(each.cuts for each in history.increments if each.path == path)
        assert cuts[index].position == daily.position
        for cut, digest in zip(cuts[index:], digests, strict=True):
            found, plan = operator.restored("--at", exact(cut.seen))
            assert found == digest
            assert plan["artifact"]["file"] == str(daily.artifact.path)


def test_a_database_that_finds_no_rest_is_told_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> int:
        return capsys.readouterr().err.count("Nothing is archived: ")

    log = Log(site=site.name, job="archive")
    monkeypatch.setattr(look, "_TICK", float("inf"))  # as if it were written all the time
    with opened(site.database, site.state) as looker, Watch() as watch:
        follower = PageFollower(site, looker, log, watch, Orders())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(look, "_HOLD_MOST", 0.0)
            patch.setattr(look, "clone", lambda *_: False)
            change(site, "DELETE FROM likes")
            assert not follower._flush(insist=False)
            assert said() == 0
            patch.setattr(follow_pages, "_PATIENCE", 0.0)
            assert [follower._flush(insist=False) for _ in range(3)] == [False] * 3
            assert said() == 1
            with pytest.raises(look.RestlessError):
                follower._flush(insist=True)
        assert follower._flush(insist=False)
    assert len(timeline.ids(site.backups)) == 1
    [increment] = points.read(site)[0].increments
    assert len(increment.cuts) == 1


def test_a_copy_that_was_left_behind_is_of_no_harm(site: Site) -> None:
    """Its maker was killed, and the archive with it; or it is no database at all."""
    run(site, "archive", "once")
    for content in (b"", b"no database", site.database.read_bytes()):
        image.path_of(site.state).write_bytes(content)
        change(site, "INSERT INTO comments(body) VALUES('another')")
        run(site, "archive", "once")
        assert not image.path_of(site.state).exists()
    assert len(timeline.ids(site.backups)) == 1
