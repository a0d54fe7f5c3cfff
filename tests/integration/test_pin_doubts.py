"""What a pin notices of a database that is no longer what it was, and what it leaves behind."""

import gc
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import apsw
import pytest

from portfolio_ops.errors import NotFoundError, RefusedError
from portfolio_ops.sqlite.lineage import TimelineEndedError
from portfolio_ops.sqlite.pin import Outcome, pinned
from tests.integration.busy_site import make_database
from tests.integration.wal_reference import Reference

Opener = Callable[..., Any]
BUDGET = 0.2
TORN = """
import os, sys
index = os.open(sys.argv[1], os.O_RDWR)
[byte] = os.pread(index, 1, 8)
os.pwrite(index, bytes([byte ^ 1]), 8)  # in the first of two copies of the header
"""
WRITE = "INSERT INTO notes(body) VALUES(randomblob(3000))"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "site.sqlite"
    make_database(path)
    return path


def side(database: Path, ending: str) -> Path:
    return database.with_name(database.name + ending)


def lose_the_locks(database: Path) -> None:
    """What any other part of a process does to it that opens and closes these files (fcntl(2))."""
    for path in (database, side(database, "-shm")):
        os.close(os.open(path, os.O_RDONLY))


def test_a_lock_that_was_lost(database: Path, elsewhere: Opener) -> None:
    site = elsewhere(database)
    with pinned(database) as pin:
        site.execute(WRITE)
        pin.advance(pin.look())
        lose_the_locks(database)
        site.execute("PRAGMA wal_checkpoint(PASSIVE)")
        site.execute(WRITE)
        with pytest.raises(TimelineEndedError, match="begun anew although a read mark was held"):
            pin.look()


def test_a_lock_that_was_lost_after_a_seal_whose_generation_went_on(database: Path, elsewhere: Opener) -> None:
    site, reader = elsewhere(database), elsewhere(database)
    with pinned(database) as pin:
        site.execute(WRITE)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM notes")
        assert pin.seal(Reference(pin).archive, BUDGET).outcome is Outcome.SEALED
        site.execute(WRITE)
        pin.look()
        lose_the_locks(database)
        reader.close()
        site.execute("PRAGMA wal_checkpoint(PASSIVE)")
        site.execute(WRITE)
        with pytest.raises(TimelineEndedError, match="another program wrote"):
            pin.look()


def test_where_the_site_has_left_nothing_is_lost(database: Path, elsewhere: Opener) -> None:
    """All is in the main file before it is archived. Its frames stay readable, also when the site comes back."""
    base, site = database.read_bytes(), elsewhere(database)
    with pinned(database) as pin:
        reference = Reference(pin)
        site.execute(WRITE)
        assert not pin.leave_nothing(), "it is there"
        assert pin.look().backfilled == 0
        site.close()
        assert pin.leave_nothing()
        left = pin.look()
        assert left.backfilled == left.frames > 0
        assert pin.leave_nothing(), "once more changes nothing"
        again = elsewhere(database, 0.01)
        for _ in range(3):
            again.execute(WRITE)
            again.execute("PRAGMA wal_checkpoint(RESTART)")
        now = pin.look()  # none of these checkpoints has written the main file, or it would be another's doing
        assert now.salts == left.salts, "no WAL is begun anew before this one is archived"
        assert now.backfilled == left.frames
        assert now.frames > left.frames
        reference.follow()
        again.execute("PRAGMA wal_checkpoint(PASSIVE)")
        again.close()
        assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
    assert reference.restored(base) == database.read_bytes()


def test_in_a_wal_that_is_begun_anew_the_site_finds_nothing_to_copy(database: Path, elsewhere: Opener) -> None:
    """What it writes there is copied under a mark. Under lock 0 each of its commits would try that in vain."""
    base, site = database.read_bytes(), elsewhere(database)
    with pinned(database) as pin:
        reference = Reference(pin)
        site.execute(WRITE)
        assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
        pin.copy_on()
        assert pin.may_end, "nothing is begun, and there is nothing to hold"
        site.execute(WRITE)
        site.execute("PRAGMA wal_checkpoint(PASSIVE)")
        begun = pin.look()
        assert (begun.backfilled, pin.may_end) == (0, False)
        pin.copy_on()
        for _ in range(3):
            site.execute("PRAGMA wal_checkpoint(PASSIVE)")
            site.execute(WRITE)
        now = pin.look()
        assert now.salts == begun.salts, "nothing is begun anew before all of it is archived"
        assert now.backfilled == begun.frames < now.frames, "and the site has copied nothing itself"
        with pytest.raises(ValueError, match="may be overwritten, 0 are archived"):
            pin.advance(replace(now, salts=bytes(8)))
        reference.follow()
        assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
        site.close()
    assert reference.restored(base) == database.read_bytes()


@pytest.mark.parametrize("site_is_there", [True, False])
def test_where_nothing_can_be_copied_it_stays_readable(
    database: Path, elsewhere: Opener, site_is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk under the database is told by a seal; what is committed is archived before."""
    base, site = database.read_bytes(), elsewhere(database)
    with pinned(database) as pin:
        reference = Reference(pin)
        site.execute(WRITE)
        assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
        site.execute(WRITE)
        if not site_is_there:
            site.close()
        with monkeypatch.context() as full:
            full.setattr(pin, "_checkpoint", Mock(side_effect=apsw.FullError("database or disk is full")))
            pin.copy_on() if site_is_there else pin.leave_nothing()
            assert pin.look().backfilled == 0
            if site_is_there:
                time.sleep(0.01)  # the clock of files ticks each few milliseconds
                site.execute("PRAGMA wal_checkpoint(PASSIVE)")  # it may find room, and copies what we could not
                assert pin.look().backfilled > 0
                site.execute(WRITE)
            reference.follow()
            with pytest.raises(apsw.FullError):
                pin.seal(reference.archive, BUDGET)
        assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
        if site_is_there:
            site.close()
    assert reference.restored(base) == database.read_bytes()


def test_a_disk_that_fails_under_a_copy_is_told_by_the_seal(
    database: Path, elsewhere: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of it once."""
    site = elsewhere(database)
    with pinned(database) as pin:
        reference = Reference(pin)
        site.execute(WRITE)
        with monkeypatch.context() as failing:
            failing.setattr(pin, "_checkpoint", Mock(side_effect=apsw.IOError("disk I/O error")))
            pin.copy_on()
        reference.follow()
        with pytest.raises(apsw.IOError):
            pin.seal(reference.archive, BUDGET)


def test_an_index_that_the_site_made_anew_is_no_other_program(database: Path, elsewhere: Opener) -> None:
    """A process that is killed while it writes the index loses what is known of copies: the site makes them again."""
    base, site = database.read_bytes(), elsewhere(database)
    with pinned(database) as pin:
        reference = Reference(pin)
        site.execute(WRITE)
        pin.copy_on()
        assert pin.look().backfilled > 0
        time.sleep(0.01)  # the clock of files ticks each few milliseconds
        subprocess.run([sys.executable, "-c", TORN, side(database, "-shm")], check=True)
        site.execute("SELECT count(*) FROM notes")
        assert pin.look().backfilled == 0
        site.execute("PRAGMA wal_checkpoint(PASSIVE)")
        assert pin.look().backfilled > 0
        reference.follow()
        assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
        site.close()
    assert reference.restored(base) == database.read_bytes()


@pytest.mark.parametrize("how", ["begins another", "writes on in this one", "has written before"])
def test_settled_beside_a_site_that_writes_on(database: Path, elsewhere: Opener, how: str) -> None:
    """After a seal it begins another generation, of which nothing is in the main file. Else nothing can be said."""
    site = elsewhere(database)
    with pinned(database) as pin:
        reference = Reference(pin)
        site.execute(WRITE)
        archived = reference.follow()
        if how != "writes on in this one":
            assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
        site.execute(WRITE)
        if how == "has written before":
            pin.copy_on()
        changed = pin.settle(archived, checkpoint=True)
        assert (changed is not None) == (how == "begins another")
        assert not pin.is_settled, "its WAL is kept"
        if changed is not None:
            site.execute("PRAGMA wal_checkpoint(PASSIVE)")
            assert pin.changed == changed
    assert side(database, "-wal").stat().st_size > 0


def test_a_file_that_is_put_there_when_the_site_has_left(database: Path, elsewhere: Opener) -> None:
    """It stays what it is, though what the WAL held was not archived yet."""
    other = database.read_bytes()
    side(database, "-other").write_bytes(other)
    site = elsewhere(database)
    with pinned(database) as pin:
        site.execute(WRITE)
        site.close()
        assert pin.leave_nothing()
        time.sleep(0.01)  # the clock of files ticks each few milliseconds
        # Not by this process: to close the file would drop the pin's locks.
        subprocess.run(["cp", side(database, "-other"), database], check=True)
        with pytest.raises(TimelineEndedError, match="another program wrote"):
            pin.look()
        again = elsewhere(database)
        assert again.execute("SELECT count(*) FROM notes") == [[0]]
        again.close()
    assert database.read_bytes() == other
    assert elsewhere(database).execute("SELECT count(*) FROM notes") == [[0]]


def test_more_than_one_generation_since_a_seal(database: Path, elsewhere: Opener) -> None:
    site = elsewhere(database)
    with pinned(database) as pin:
        site.execute(WRITE)
        assert pin.seal(Reference(pin).archive, BUDGET).outcome is Outcome.SEALED
        lose_the_locks(database)
        time.sleep(0.05)  # the filesystem's clock ticks each few milliseconds
        for _ in range(2):
            site.execute(WRITE)
            site.execute("PRAGMA wal_checkpoint(PASSIVE)")
        with pytest.raises(TimelineEndedError, match="another program wrote"):
            pin.look()


@pytest.mark.parametrize("truncates", [1, 2, 3])
def test_generations_that_held_nothing(database: Path, elsewhere: Opener, truncates: int) -> None:
    """Each TRUNCATE begins one. A site that began a WAL before goes on from the salt that it finds."""
    base = database.read_bytes()
    site, other = elsewhere(database), elsewhere(database)
    with pinned(database) as pin:
        reference = Reference(pin)
        for times in (0, truncates, truncates):
            site.execute(WRITE)
            assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
            for _ in range(times):
                assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)") == [[0, 0, 0]]
        site.execute(WRITE)
        pin.seal(reference.archive, BUDGET)
    assert reference.salt_steps() == [1, truncates, truncates]
    assert reference.restored(base) == database.read_bytes()


def test_a_truncate_of_a_wal_at_rest_is_no_doubt(database: Path, elsewhere: Opener) -> None:
    """Whoever then writes first may draw both salts."""
    base = database.read_bytes()
    site, other = elsewhere(database), elsewhere(database)
    with pinned(database) as pin:
        reference = Reference(pin)
        for looks in (False, True, False, True):
            site.execute(WRITE)
            assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
            assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)") == [[0, 0, 0]]
            if looks:
                assert pin.look().frames == 0
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            elsewhere(database).execute(WRITE)
            reference.follow()
        pin.seal(reference.archive, BUDGET)
    assert any(step != 1 for step in reference.salt_steps())
    connection = sqlite3.connect(f"file:{database}?immutable=1", uri=True)
    assert connection.execute("SELECT count(*) FROM notes").fetchall() == [(8,)]
    connection.close()
    assert reference.restored(base) == database.read_bytes()


def replace_database(database: Path) -> None:
    other = database.with_name("other")
    make_database(other)
    other.replace(database)


@pytest.mark.parametrize(
    ("accident", "words"),
    [
        (replace_database, "site.sqlite was replaced"),
        (lambda database: database.unlink(), "site.sqlite was removed"),
        (lambda database: side(database, "-wal").unlink(), "site.sqlite-wal was removed"),
        (lambda database: side(database, "-shm").unlink(), "site.sqlite-shm was removed"),
        (lambda database: os.truncate(side(database, "-wal"), 3000), "the WAL ends before frame"),
    ],
)
def test_files_that_were_tampered_with(
    database: Path, elsewhere: Opener, accident: Callable[[Path], None], words: str
) -> None:
    with pinned(database) as pin:
        elsewhere(database).execute(WRITE)
        pin.look()
        accident(database)
        with pytest.raises(TimelineEndedError, match=words):
            pin.look()


def test_a_link_that_is_pointed_elsewhere(database: Path, tmp_path: Path) -> None:
    link, other = tmp_path / "current", tmp_path / "other.sqlite"
    make_database(other)
    link.symlink_to(database)
    with pinned(link) as pin:
        pin.look()
        link.unlink()
        link.symlink_to(other)
        with pytest.raises(TimelineEndedError, match="current was replaced"):
            pin.look()


def test_another_journal_mode(database: Path, elsewhere: Opener) -> None:
    """While a pin is held SQLite itself refuses the change; after it, the pin refuses."""
    site = elsewhere(database, 0.001)
    with pinned(database), pytest.raises(AssertionError, match="locked"):
        site.execute("PRAGMA journal_mode=delete")
    assert site.execute("PRAGMA journal_mode=delete") == [["delete"]]
    with pytest.raises(RefusedError, match="not in WAL mode"), pinned(database):
        pass
    assert not side(database, "-wal").exists()


def test_no_database(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError), pinned(tmp_path / "none.sqlite"):
        pass
    (tmp_path / "text").write_bytes(b"this is no database at all, " * 100)
    with pytest.raises(RefusedError), pinned(tmp_path / "text"):
        pass


def test_a_stopped_site_is_left_as_it_was(database: Path) -> None:
    before = (database.stat(), database.read_bytes())
    with pinned(database) as pin:
        assert pin.look().frames == 0
        assert pin.seal(Reference(pin).archive, BUDGET).outcome is Outcome.SEALED
    assert [path.name for path in database.parent.iterdir()] == [database.name]
    assert database.read_bytes() == before[1]
    assert database.stat().st_mtime_ns == before[0].st_mtime_ns


def test_the_wal_outlives_the_last_close_of_the_site_and_of_the_pin(database: Path, elsewhere: Opener) -> None:
    site = elsewhere(database)
    with pinned(database) as pin:
        site.execute(WRITE)
        site.close()
        last = pin.look()
        assert last.frames > 0
    assert side(database, "-wal").stat().st_size > 0
    with pinned(database) as pin:
        assert (pin.look().salts, pin.look().frames) == (last.salts, last.frames)
    assert elsewhere(database).execute("SELECT count(*) FROM notes") == [[1]]


def test_the_site_closes_last_as_ever(database: Path, elsewhere: Opener) -> None:
    site = elsewhere(database)
    with pinned(database):
        site.execute(WRITE)
    site.close()
    assert [path.name for path in database.parent.iterdir()] == [database.name]


def test_nothing_is_held_afterwards(database: Path, elsewhere: Opener) -> None:
    site = elsewhere(database, 0.001)
    descriptors = Path("/proc/self/fd")
    with pinned(database):
        pass
    gc.collect()  # else connections that other tests left are closed meanwhile
    before = len(list(descriptors.iterdir()))
    site.execute(WRITE)
    for _ in range(5):
        with pytest.raises(OSError, match="by the caller"), pinned(database):
            raise OSError("by the caller")
    assert len(list(descriptors.iterdir())) == before
    assert f" {os.getpid()} " not in Path("/proc/locks").read_text()
    assert site.execute("PRAGMA wal_checkpoint(TRUNCATE)") == [[0, 0, 0]]
    assert site.execute("PRAGMA journal_mode=delete") == [["delete"]]


def test_nothing_is_written_into_the_database(database: Path, elsewhere: Opener) -> None:
    site = elsewhere(database)
    site.execute(WRITE)
    frames = side(database, "-wal").stat().st_size
    schema = site.execute("SELECT * FROM sqlite_schema")
    with pinned(database) as pin:
        for _ in range(5):
            pin.advance(pin.look())
            pin.seal(Reference(pin).archive, BUDGET)
    assert side(database, "-wal").stat().st_size == frames
    assert site.execute("SELECT * FROM sqlite_schema") == schema


def test_every_page_size(tmp_path: Path, elsewhere: Opener) -> None:
    for exponent in range(9, 17):
        database = tmp_path / f"{exponent}.sqlite"
        connection = sqlite3.connect(database)
        connection.execute(f"PRAGMA page_size={1 << exponent}")
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE notes(body)")
        connection.close()
        base, site = database.read_bytes(), elsewhere(database)
        with pinned(database) as pin:
            reference = Reference(pin)
            for _ in range(3):
                site.execute(WRITE)
                assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
            assert pin.look().page_size == pin.page_size == 1 << exponent
            site.close()
        assert reference.restored(base) == database.read_bytes()


@pytest.mark.parametrize("act", ["advance", "copy on"])
def test_another_file_is_being_copied_over_it(database: Path, elsewhere: Opener, act: str) -> None:
    """cp(1) empties it first: who looks into it then finds no database, and must not go on as if nothing had been."""
    site = elsewhere(database)
    site.execute("CREATE TABLE small(number)")
    site.execute("INSERT INTO small VALUES(1)")
    with pinned(database) as pin:
        pin.advance(pin.look())
        site.execute("PRAGMA wal_checkpoint(PASSIVE)")
        pin.advance(pin.look())
        assert pin.may_end
        site.execute("UPDATE small SET number = 2")  # leaves the first page to the file that is emptied
        index = pin.look()
        site.kill()
        os.truncate(database, 0)
        again = {"advance": lambda: pin.advance(index), "copy on": pin.copy_on}[act]
        with pytest.raises(TimelineEndedError):
            again()
