"""A database that is overwritten by a program that knows nothing of SQLite, while its site is stopped.

What was put there must stay what it is, whatever the archive has open or has left beside it; and no moment may be made
of both.
"""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portfolio_ops.jobs import archive_health
from portfolio_ops.moment import exact
from portfolio_ops.restore.points import windows
from portfolio_ops.sqlite.wal_index import wal_index_of
from portfolio_ops.store import timeline
from tests.integration.archive.oracle import TOOL, State, Yard, state_of
from tests.integration.archive.test_audit import verified
from tests.integration.archive.test_follow import check_every_point, last_state


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.end()


def written(yard: Yard, seconds: float = 1.5) -> None:
    """The site runs for a while, and stops."""
    for number in (0, 1):
        yard.write(number, pause=0.003)
    time.sleep(seconds)
    for number in (0, 1):
        yard.stop_writing(number)


def at_rest() -> None:
    """Wait until all is in the main file."""
    time.sleep(2.5)


def kept(yard: Yard) -> tuple[Path, State]:
    """A copy of the database, as a careful operator makes it, and what it holds."""
    copy = yard.folder / "old.sqlite"
    with (
        contextlib.closing(sqlite3.connect(yard.database)) as live,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        live.backup(target)
    return copy, state_of(copy)


def archived(yard: Yard) -> tuple[tuple[Path, State], int]:
    """The site was copied once, and has stopped now; all is archived, and in the main file.

    Gives the copy, what it holds, and how many timelines there are.
    """
    written(yard)
    old = kept(yard)
    yard.start_archive()
    yard.wait_for_base()
    written(yard)
    at_rest()
    return old, len(names(yard))


def put_back(yard: Yard, copy: Path, state: State, how: str) -> None:
    if how == "cp":
        shutil.copyfile(copy, yard.database)  # the same inode, other content
    else:
        copy.rename(yard.database)
    yard.commits = dict(state.counters)
    yard.acknowledged = {number: [] for number in yard.commits}


def names(yard: Yard) -> list[str]:
    return timeline.ids(yard.site.backups)


def goes_on(yard: Yard, before: int) -> None:
    """The site runs again; each moment is one that was."""
    if yard.archive is None:
        yard.start_archive()
    yard.until(lambda: len(names(yard)) > before, "another timeline begins")
    yard.wait_for_base(2)
    written(yard)
    at_rest()
    yard.end_archive()
    states = check_every_point(yard)
    assert states[names(yard)[-1]][-1] == last_state(yard)


@pytest.mark.parametrize("how", ["cp", "mv"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_while_the_archive_runs(yard: Yard, how: str, end: signal.Signals | None) -> None:
    old, before = archived(yard)
    put_back(yard, *old, how)
    yard.until(lambda: "The timeline ended" in yard.said(), "it is noticed")
    if end is not None:
        yard.end_archive(end)
        assert state_of(yard.database) == old[1], "the copy was undone"
    goes_on(yard, before)


@pytest.mark.parametrize("how", ["cp", "mv"])
def test_at_once_after_the_site_has_stopped(yard: Yard, how: str) -> None:
    """The site's last close leaves nothing in the WAL, as it would without an archive that has the database open."""
    old, before = archived(yard)
    for _ in range(3):
        written(yard)
        yard.until(lambda: is_whole(yard), "all is in the main file", seconds=0.9)  # its own rest takes a second
    put_back(yard, *old, how)
    assert state_of(yard.database) == old[1]
    goes_on(yard, before)


@pytest.mark.parametrize("at_once", [False, True])
def test_it_is_moved_away_and_only_later_another_is_put_there(yard: Yard, at_once: bool) -> None:
    """Meanwhile there is none. The WAL of the one must be no more when the other comes."""
    old, before = archived(yard)
    if at_once:
        written(yard)
        yard.until(lambda: is_whole(yard), "all is in the main file", seconds=0.9)
    yard.database.rename(yard.folder / "former.sqlite")
    yard.until(lambda: "there is no database at" in yard.said(), "it is waited for another")
    assert "removed while it was in use" in yard.said()
    assert "Traceback" not in yard.said()
    assert "error" not in yard.said().lower()
    put_back(yard, *old, "cp")
    assert state_of(yard.database) == old[1], "what was archived of the former one came into it"
    goes_on(yard, before)


def test_what_is_put_there_may_be_no_database(yard: Yard) -> None:
    """Then its WAL cannot be emptied either; what is wrong is told in words."""
    archived(yard)
    note = yard.folder / "note"
    note.write_text("to be restored\n" * 1000)
    note.rename(yard.database)
    yard.until(lambda: "Nothing is archived: " in yard.said(), "it is told")
    assert "Traceback" not in yard.said()


def is_whole(yard: Yard) -> bool:
    """Whether all that is committed is in the main file."""
    index = wal_index_of(yard.database)
    return index is None or index.frames == index.backfilled


@pytest.mark.parametrize("how", ["cp", "mv"])
def test_just_before_the_archive_stops(yard: Yard, how: str) -> None:
    old, before = archived(yard)
    put_back(yard, *old, how)
    yard.end_archive()
    assert state_of(yard.database) == old[1], "the copy was undone"
    goes_on(yard, before)


@pytest.mark.parametrize("how", ["cp", "mv"])
def test_while_site_and_archive_are_stopped(yard: Yard, how: str) -> None:
    written(yard)
    old = kept(yard)
    yard.start_archive()
    yard.wait_for_base()
    written(yard)
    yard.end_archive()
    left = sorted(path.name for path in yard.database.parent.iterdir())
    assert left == [yard.database.name], "as a site leaves it that stops"
    before = len(names(yard))
    put_back(yard, *old, how)
    yard.start_archive()
    yard.until(lambda: len(names(yard)) > before, "another timeline begins")
    assert state_of(yard.database) == old[1], "the copy was undone"
    goes_on(yard, before)


def test_the_site_is_back_before_it_is_noticed(yard: Yard) -> None:
    """What it commits then is on the copy, and on nothing else."""
    written(yard, 4)  # it grows no more: SQLite takes the length from the WAL's index, which is that of the other file
    old = kept(yard)
    yard.start_archive()
    yard.wait_for_base()
    written(yard)
    at_rest()
    before = len(names(yard))
    yard.archive.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
    put_back(yard, *old, "cp")
    for number in (0, 1):
        yard.write(number, pause=0.003)
    time.sleep(1)
    yard.archive.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
    yard.until(lambda: len(names(yard)) > before, "another timeline begins")
    for number in (0, 1):
        yard.stop_writing(number)
    goes_on(yard, before)


def test_a_stop_and_a_start_are_no_doubt(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    written(yard)
    yard.end_archive()
    for meanwhile in (False, True):
        if meanwhile:
            for number in (0, 1):
                yard.write(number, pause=0.003, pragmas="wal_autocheckpoint=0")
            time.sleep(0.5)
        yard.start_archive()
        assert len(names(yard)) == 1
        if meanwhile:
            for number in (0, 1):
                yard.stop_writing(number)
        at_rest()
        yard.end_archive()
    [states] = check_every_point(yard).values()
    assert states[-1] == last_state(yard)


def test_what_waits_in_the_wal_of_an_archive_that_stopped_is_pending(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    written(yard)
    time.sleep(3)  # the last commit is old when the archive stops, and what it changes then is no commit
    yard.end_archive()
    assert "missing-pending" not in verified(yard, 0)
    yard.write(0, pause=0.003, pragmas="wal_autocheckpoint=0")
    yard.until(lambda: bool(yard.writers[0].told), "it is written to")
    assert "missing-pending" in verified(yard, 0)
    yard.stop_writing(0)  # the last to close brings it into the main file
    assert "missing-lost" in verified(yard, 9)


def test_what_was_in_the_main_file_before_the_start_is_a_doubt(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    written(yard)
    yard.end_archive()
    written(yard)  # and the last to close copies it into the main file
    yard.start_archive()
    yard.until(lambda: len(names(yard)) == 2, "another timeline begins")
    yard.wait_for_base(2)
    written(yard)
    yard.end_archive()
    check_every_point(yard)


@contextlib.contextmanager
def hanging(yard: Yard) -> Iterator[None]:
    """An archive that is late by as long as the block takes."""
    assert yard.archive is not None
    yard.archive.send_signal(signal.SIGSTOP)
    yield
    yard.archive.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("how", ["cp", "mv"])
def test_what_the_site_commits_while_it_is_noticed_stays(yard: Yard, how: str) -> None:
    """It holds the write lock when the archive looks, and commits into the WAL of the former file."""
    old, _ = archived(yard)
    with hanging(yard):
        put_back(yard, *old, how)
        site = sqlite3.connect(yard.database, isolation_level=None, timeout=30)
        site.execute("BEGIN IMMEDIATE")
        site.execute("CREATE TABLE precious(x)")
    time.sleep(0.6)
    site.execute("COMMIT")
    time.sleep(2)
    assert site.execute("SELECT count(*) FROM precious").fetchall() == [(0,)]
    site.close()
    with contextlib.closing(sqlite3.connect(yard.database, timeout=30)) as again:
        assert again.execute("SELECT count(*) FROM precious").fetchall() == [(0,)]
    yard.end_archive()


@pytest.mark.parametrize("how", ["cp", "mv"])
def test_a_wal_that_is_put_there_with_its_database_stays(yard: Yard, how: str) -> None:
    """Both are there when the archive looks; between the one and the other, they are no pair for anybody."""
    written(yard)
    copy, _ = kept(yard)
    pair, name = yard.folder / "pair.sqlite", f"{yard.database.name}-wal"
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("CREATE TABLE precious(x)")
        shutil.copyfile(copy, pair)
        shutil.copyfile(f"{copy}-wal", f"{pair}-wal")
    yard.start_archive()
    yard.wait_for_base()
    written(yard)
    at_rest()
    put: Callable[[Path, Path], object] = Path.rename if how == "mv" else shutil.copyfile
    with hanging(yard):
        put(Path(f"{pair}-wal"), yard.database.with_name(name))
        put(pair, yard.database)
    yard.until(lambda: "The timeline ended" in yard.said(), "it is noticed")
    time.sleep(2)
    with contextlib.closing(sqlite3.connect(yard.database, timeout=30)) as connection:
        assert connection.execute("SELECT count(*) FROM precious").fetchall() == [(0,)]
    yard.end_archive()


def test_the_archive_was_killed_at_rest(yard: Yard) -> None:
    """SQLite then replays what the kill has left, which is not all of the former file. It is another history."""

    def held() -> list[tuple[str, int]]:
        with contextlib.closing(sqlite3.connect(yard.database)) as connection:
            return connection.execute("SELECT substr(t, 1, 4), count(*) FROM big GROUP BY 1").fetchall()

    def change(*statements: str) -> None:
        with contextlib.closing(sqlite3.connect(yard.database, isolation_level=None)) as connection:
            for each in statements:
                connection.execute(each)

    series = "WITH s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 3000)"
    change("CREATE TABLE big(id INTEGER PRIMARY KEY, t)", f"{series} INSERT INTO big SELECT i, 'old' FROM s")
    old = yard.folder / "old.sqlite"
    shutil.copyfile(yard.database, old)
    change("UPDATE big SET t = 'new'")
    yard.start_archive()
    yard.wait_for_base()
    change("UPDATE big SET t = 'tail' WHERE id > 2990")
    at_rest()
    yard.end_archive(signal.SIGKILL)
    shutil.copyfile(old, yard.database)
    yard.start_archive()
    yard.wait_for_base(2)
    change("UPDATE big SET t = 'post' WHERE id = 1")
    at_rest()
    yard.end_archive()
    live, restored = held(), yard.folder / "restored.sqlite"
    [*_, point] = windows(yard.site)
    words = ["restore", "database", "--at", exact(point.last), "--to", str(restored)]
    subprocess.run([TOOL, "--config", yard.file, *words], check=True, capture_output=True)
    yard.database = restored
    assert held() == live


def test_a_copy_that_keeps_its_time_is_told_of(yard: Yard) -> None:
    written(yard)
    copy, _ = kept(yard)
    time.sleep(2.5)
    yard.start_archive()
    yard.wait_for_base()
    written(yard)
    at_rest()
    yard.end_archive()
    assert "missing-lost" not in verified(yard, 0)
    shutil.copy2(copy, yard.database)  # cp -p
    assert "missing-lost" in verified(yard, 9)


def told(yard: Yard) -> list[str]:
    """What `status` says of it."""
    return archive_health.endings(yard.site)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_one_that_was_emptied_is_told_with_the_state_before(tmp_path: Path, mode: str) -> None:
    """Also where nothing was committed since the base was made, and where the site has made its tables anew."""
    yard = Yard(tmp_path, journal_mode=mode)
    try:
        before = state_of(yard.database)
        yard.start_archive()
        yard.wait_for_base()
        time.sleep(1.5)
        os.truncate(yard.database, 0)
        yard.until(lambda: bool(told(yard)), "it is told")
        with contextlib.closing(sqlite3.connect(yard.database, isolation_level=None)) as connection:
            connection.executescript(
                f"PRAGMA journal_mode={mode}; CREATE TABLE counters(w INTEGER PRIMARY KEY, n INTEGER)"
            )
        yard.until(lambda: len(names(yard)) > 1, "another timeline begins")
        [words] = told(yard)
        moment = words.partition("--at ")[2].split()[0]
        subprocess.run(
            [TOOL, "--config", yard.file, "restore", "database", "--at", moment, "--to", tmp_path / "before.sqlite"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        assert state_of(tmp_path / "before.sqlite") == before
    finally:
        yard.end()
