"""The archive beside a busy site: every restore point is exactly a state that the site was in, and none is missing."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from portfolio_ops import config
from portfolio_ops.errors import ExitCode
from portfolio_ops.restore import points
from portfolio_ops.sqlite.wal_index import read_wal_index
from portfolio_ops.store import timeline
from tests.integration.archive.oracle import TOOL, State, Yard, require_in_order, state_of


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.end()


def check_every_point(yard: Yard) -> dict[str, list[State]]:
    """Restore every point; gives the states by timeline."""
    found: dict[str, list[tuple[object, State]]] = {}
    for name, base, cuts in yard.points():
        target = yard.replayed(base, cuts)
        found.setdefault(name, []).append((cuts[-1][1], state_of(target)))
        target.unlink()
    for states in found.values():
        require_in_order(states, yard.acknowledged)  # type: ignore[arg-type]
    return {name: [state for _, state in states] for name, states in found.items()}


def last_state(yard: Yard) -> State:
    """Of the live database, once nobody writes."""
    return State(dict(yard.commits))


def newest_restored(yard: Yard, found: dict[str, list[State]]) -> State:
    """The last state of the newest timeline; where nothing changed in it, that of its base."""
    name = timeline.ids(yard.site.backups)[-1]
    if name in found:
        return found[name][-1]
    assert timeline.newest(yard.site.backups, name, yard.site.name) is None, (
        f"no base leads to the restore points of {name}"
    )
    [base, *_] = [each for each in yard.bases() if each.taken >= timeline.began(name)]
    return state_of(yard.replayed(base, []))


def test_two_writers_that_never_rest(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0, pause=0)
    yard.write(1, pause=0, pragmas="wal_autocheckpoint=10")
    time.sleep(6)
    for number in (0, 1):
        yard.stop_writing(number)
    time.sleep(1.5)
    # Some 180 MB are written meanwhile.
    assert yard.database.with_name("portfolio.sqlite-wal").stat().st_size < 96 << 20
    yard.end_archive()
    [states] = check_every_point(yard).values()
    assert len(states) >= 5
    assert states[-1] == last_state(yard)


def test_a_busy_site_has_nothing_to_checkpoint_itself(yard: Yard) -> None:
    """Its WAL is copied as it grows: else each commit beyond 1,000 frames would sort all of it, or copy it."""
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0, pause=0.0005, pragmas="synchronous=NORMAL;wal_autocheckpoint=0")
    begun: dict[bytes, float] = {}
    grown: list[bool] = []
    older: list[bool] = []
    with contextlib.closing(os.fdopen(os.open(f"{yard.database}-shm", os.O_RDONLY), "rb")) as shm:
        while not (len(grown) > 50 and len(older) > 50):
            index, now = read_wal_index(shm.fileno()), time.monotonic()
            age = now - begun.setdefault(index.salts, now)
            if len(begun) > 2 and index.frames > 1500:  # not of the WAL that was made with the first commit
                grown.append(index.backfilled > 0)
            if age > 2:
                older.append(index.backfilled > index.frames / 10)
            assert now < min(begun.values()) + 60, f"{len(begun)} generations"
            time.sleep(0.01)
    yard.stop_writing(0)
    yard.end_archive()
    assert sum(grown) > len(grown) * 0.8, "what it begins a WAL with is copied before it is archived"
    assert sum(older) > len(older) * 0.8, "whatever is archived is copied, long before the WAL is ended"
    [states] = check_every_point(yard).values()
    assert states[-1] == last_state(yard)


def test_killed_and_started_again_it_goes_on(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0)
    for _ in range(3):
        time.sleep(1.5)
        yard.end_archive(signal.SIGKILL)
        yard.start_archive()
    time.sleep(3)
    yard.stop_writing(0)
    time.sleep(1.5)
    yard.end_archive()
    found = check_every_point(yard)
    assert found[max(found)][-1] == last_state(yard)
    assert "Going on with timeline" in yard.said() or len(timeline.ids(yard.site.backups)) > 1


def test_stopped_before_its_base_was_there_it_makes_one(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0)
    time.sleep(1.5)
    yard.stop_writing(0)
    yard.end_archive()
    yard.bases()[0].path.unlink()
    yard.start_archive()
    yard.wait_for_base()
    yard.end_archive()
    assert len(timeline.ids(yard.site.backups)) == 1
    assert "Going on with timeline" in yard.said()
    assert len(check_every_point(yard)) == 1


def test_stopped_cleanly_it_goes_on_with_the_same_timeline(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0)
    time.sleep(1.5)
    yard.stop_writing(0)
    yard.end_archive()
    yard.start_archive()
    yard.write(0)
    time.sleep(1.5)
    yard.stop_writing(0)
    time.sleep(1.5)
    yard.end_archive()
    assert len(timeline.ids(yard.site.backups)) == 1
    [states] = check_every_point(yard).values()
    assert states[-1] == last_state(yard)


def test_stopped_beside_a_busy_site_it_goes_on_with_the_same_timeline(yard: Yard) -> None:
    """Its WAL is beyond where the site checkpoints, who would begin it anew at once, and nobody knew what passed."""
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0, pragmas="synchronous=NORMAL;wal_autocheckpoint=6000")
    with contextlib.closing(os.fdopen(os.open(f"{yard.database}-shm", os.O_RDONLY), "rb")) as shm:
        ends = time.monotonic() + 60
        while read_wal_index(shm.fileno()).frames < 6500:
            assert time.monotonic() < ends
            time.sleep(0.01)
    yard.end_archive()
    yard.start_archive()
    time.sleep(2)
    yard.stop_writing(0)
    time.sleep(1.5)
    yard.end_archive()
    assert "Going on with timeline" in yard.said()
    [states] = check_every_point(yard).values()
    assert states[-1] == last_state(yard)


def test_the_site_stops_and_starts_and_others_checkpoint(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
        yard.write(0)
        time.sleep(0.7)
        with contextlib.closing(sqlite3.connect(yard.database, timeout=2)) as other:
            other.execute(f"PRAGMA wal_checkpoint({mode})")
        time.sleep(0.3)
        yard.stop_writing(0, signal.SIGTERM)
    with contextlib.closing(sqlite3.connect(yard.database, timeout=30, isolation_level=None)) as other:
        other.execute("VACUUM")
    time.sleep(2.5)
    yard.end_archive()
    [states] = check_every_point(yard).values()
    assert states[-1] == last_state(yard)


def test_a_replaced_database_begins_a_timeline_of_its_own(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0)
    time.sleep(1.5)
    yard.stop_writing(0)
    time.sleep(1.2)
    copy = yard.database.with_name("copy")
    with (
        contextlib.closing(sqlite3.connect(yard.database)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
    for ending in ("-wal", "-shm"):
        yard.database.with_name(f"portfolio.sqlite{ending}").unlink(missing_ok=True)
    copy.replace(yard.database)
    yard.until(lambda: len(timeline.ids(yard.site.backups)) == 2, "another timeline begins")
    assert "was replaced" in yard.said() or "was removed" in yard.said()
    subprocess.run([TOOL, "--config", yard.file, "backup", "daily"], check=True, stderr=subprocess.DEVNULL)
    yard.write(0)
    time.sleep(1.5)
    yard.stop_writing(0)
    time.sleep(1.5)
    yard.end_archive()
    found = check_every_point(yard)
    assert len(found) == 2
    assert found[max(found)][-1] == last_state(yard)


def test_a_database_that_comes_late_is_followed_at_once(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    away = yard.database.with_name("away")
    yard.database.rename(away)
    yard.until(lambda: yard.said().count("there is no database at") >= 4, "its pauses grow to ten seconds")
    away.rename(yard.database)
    yard.until(lambda: len(timeline.ids(yard.site.backups)) == 2, "a timeline begins", 4)
    yard.end_archive()


def test_what_fails_in_another_way_is_told_and_tried_again_at_once(yard: Yard) -> None:
    """As a database that is just being made: its file is there, and it is none yet."""
    yard.start_archive()
    yard.wait_for_base()
    away = yard.database.with_name("away")
    yard.database.rename(away)
    yard.until(lambda: yard.said().count("there is no database at") >= 4, "its pauses grow to ten seconds")
    yard.database.touch()
    yard.until(lambda: "is empty" in yard.said(), "it says so", 4)
    away.rename(yard.database)
    yard.until(lambda: len(timeline.ids(yard.site.backups)) == 2, "a timeline begins", 4)
    yard.end_archive()


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_once_another_could_begin_it_ends(yard: Yard, how: str) -> None:
    """An old folder of backups is copied over the one in use, the locks with it."""
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0)
    lock = yard.site.state / "archive.lock"
    if how == "replaced":
        copy = lock.with_name("copy")
        copy.write_bytes(lock.read_bytes())
        copy.rename(lock)
    else:
        yard.site.state.rename(yard.site.root / "gone")  # at once: the archive writes there
    assert yard.archive is not None
    assert yard.archive.wait(10) == ExitCode.FAILED
    assert "was replaced while the archive ran" in yard.said()
    yard.start_archive()
    yard.until(lambda: len(yard.bases()) == 2, "another timeline has its base")
    yard.stop_writing(0)
    time.sleep(1.5)
    yard.end_archive()
    found = check_every_point(yard)
    assert newest_restored(yard, found) == last_state(yard)


def test_nothing_is_written_into_the_database(yard: Yard) -> None:
    before = yard.database.stat()
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0)
    time.sleep(1.5)
    yard.stop_writing(0)
    time.sleep(1.5)
    yard.end_archive()
    with contextlib.closing(sqlite3.connect(yard.database)) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
    assert names == {"counters", "w0", "w1"}
    after = yard.database.stat()
    assert (after.st_ino, after.st_uid, after.st_mode) == (before.st_ino, before.st_uid, before.st_mode)


def test_a_full_disk_lets_the_site_go_and_it_goes_on_by_itself(yard: Yard, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], check=True)
    try:
        yard.file.write_text(f'[site]\nroot = "{yard.site.root}"\nbackups = "{small}/backups"\n')
        (small / "backups").mkdir()
        yard.site = config.load(yard.file)
        yard.start_archive()
        yard.wait_for_base()
        status = os.statvfs(small)
        (small / "fill").write_bytes(bytes(status.f_bavail * status.f_frsize - (200 << 10)))
        yard.write(0)
        yard.until(lambda: "has come to the reserve" in yard.said(), "it says so")
        before = len(yard.writers[0].told)
        yard.until(lambda: len(yard.writers[0].told) > before + 100, "the site goes on")
        (small / "fill").unlink()
        yard.until(lambda: yard.said().count("begins") >= 2 or "Going on" in yard.said(), "it goes on")
        yard.stop_writing(0)
        time.sleep(1.5)
        yard.end_archive()
        check_every_point(yard)
    finally:
        yard.end()
        subprocess.run(["umount", small], check=True)


@pytest.mark.soak
def test_anything_at_any_time(yard: Yard) -> None:
    """Random kills of the archive and of writers, foreign checkpoints, VACUUMs; the seed is printed."""
    seed = int(os.environ.get("ARCHIVE_SEED", str(random.SystemRandom().randrange(1 << 32))))
    print(f"ARCHIVE_SEED={seed}")
    done: list[str] = []
    try:
        _do_anything(yard, random.Random(seed), done)
    finally:
        print("\n".join(done), yard.said(), sep="\n")


def _do_anything(yard: Yard, chooser: random.Random, done: list[str]) -> None:
    def did(what: str) -> None:
        done.append(f"{datetime.now(UTC):%H:%M:%S.%f} {what}")

    yard.start_archive()
    yard.wait_for_base()
    deadline = time.monotonic() + float(os.environ.get("ARCHIVE_SECONDS", "20"))
    while time.monotonic() < deadline:
        time.sleep(chooser.uniform(0.05, 0.8))
        number, what = chooser.randrange(2), chooser.randrange(10)
        if number in yard.writers and what < 4:
            yard.stop_writing(number, chooser.choice([signal.SIGKILL, signal.SIGTERM]))
            did(f"writer {number} stopped after {yard.commits[number]} commits")
        elif number not in yard.writers:
            pragmas = chooser.choice(["", "wal_autocheckpoint=5", "wal_autocheckpoint=0", "synchronous=off"])
            yard.write(number, pause=chooser.choice([0, 0.001, 0.02]), pragmas=pragmas)
            did(f"writer {number} begins: {pragmas}")
        elif what == 4:
            how = chooser.choice([signal.SIGKILL, signal.SIGTERM])
            yard.end_archive(how)
            yard.start_archive()
            did(f"{how.name}, and it began again")
        elif what < 8:
            statement = chooser.choice(["VACUUM", "PRAGMA wal_checkpoint(RESTART)", "PRAGMA wal_checkpoint(TRUNCATE)"])
            connect = sqlite3.connect(yard.database, timeout=1, isolation_level=None)
            with contextlib.closing(connect) as other, contextlib.suppress(sqlite3.OperationalError):
                other.execute(statement)
                did(statement)
    for number in list(yard.writers):
        yard.stop_writing(number)
    time.sleep(1.5)
    yard.end_archive()
    with (yard.folder / "archive.log").open("ab") as log:
        subprocess.run([TOOL, "--config", yard.file, "archive", "once"], check=True, stderr=log, timeout=60)
    found = check_every_point(yard)
    # Not what was asked when a writer was killed: of one that had come no further than its last frame in the WAL, the
    # wal-index did not tell yet. Whoever opens the database when all have closed it, recovers that commit, too.
    assert newest_restored(yard, found) == state_of(yard.database)


def test_a_backup_behind_a_wal_that_the_site_has_emptied_is_a_base(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    for _ in range(2):
        yard.write(0, pause=0.01)
        time.sleep(1)
        yard.stop_writing(0)
        time.sleep(2)
        with contextlib.closing(sqlite3.connect(yard.database)) as site:
            assert site.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall() == [(0, 0, 0)]
        time.sleep(1.5)
        subprocess.run([TOOL, "--config", yard.file, "backup", "daily"], check=True, capture_output=True)
    yard.write(0, pause=0.01)
    time.sleep(1)
    yard.stop_writing(0)
    time.sleep(1.5)
    yard.end_archive()
    [history] = points.read(yard.site)
    assert [bool(base.places) for base in history.bases] == [True] * 3
    [states] = check_every_point(yard).values()
    assert states[-1] == last_state(yard)
