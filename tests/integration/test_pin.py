"""What a pin holds, gives, notices and leaves behind, step by step."""

import contextlib
import dataclasses
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from portfolio_ops.sqlite import pin as module
from portfolio_ops.sqlite.lineage import TimelineEndedError
from portfolio_ops.sqlite.pin import Outcome, Pin, pinned
from tests.integration.busy_site import make_database
from tests.integration.wal_reference import Reference

Opener = Callable[..., Any]
BUDGET = 0.2
WRITE = "INSERT INTO notes(body) VALUES(randomblob(3000))"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "site.sqlite"
    make_database(path)
    return path


def marks_held(database: Path) -> set[int]:
    """The read locks that this process holds on the -shm: bytes 123 to 127, see proc_locks(5)."""
    inode = Path(f"{database}-shm").stat().st_ino
    held: set[int] = set()
    for line in Path("/proc/locks").read_text().splitlines():
        _, kind, _, access, pid, file, first, last = line.replace("->", "").split()[:8]
        if (kind, access, pid) == ("POSIX", "READ", str(os.getpid())) and file.endswith(f":{inode}"):
            held |= {byte - 123 for byte in range(int(first), int(last) + 1) if 123 <= byte <= 127}
    return held


@contextlib.contextmanager
def at_every_line(action: Callable[[], None]) -> Iterator[set[int]]:
    """Do something before each line of the module that is run; gives the lines."""
    lines: set[int] = set()

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename != module.__file__:
            return None
        if event == "line":
            sys.settrace(None)
            lines.add(frame.f_lineno)
            action()
            sys.settrace(trace)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)


def require_restored(reference: Reference, base: bytes, database: Path) -> None:
    """To be called when nobody has the database open."""
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert reference.restored(base) == database.read_bytes()


class Meddler:
    """A site that writes, checkpoints and begins the WAL anew as often as it may."""

    def __init__(self, elsewhere: Opener, database: Path) -> None:
        self.database = database
        self.one, self.two = elsewhere(database, 0.001), elsewhere(database, 0.001)
        self.held_off = 0

    def __call__(self) -> None:
        assert marks_held(self.database), "no mark is held"
        for site, sql in [
            (self.one, WRITE),
            (self.one, "PRAGMA wal_checkpoint(PASSIVE)"),
            (self.two, WRITE),
            (self.two, "PRAGMA wal_checkpoint(TRUNCATE)"),
            (self.one, WRITE),
        ]:
            try:
                site.execute(sql)
            except AssertionError as error:
                assert "locked" in str(error)  # noqa: PT017  (the fixture's own way to tell)
                self.held_off += 1

    def close(self) -> None:
        self.one.close()
        self.two.close()


def test_a_mark_is_held_and_nothing_lost_whatever_happens_at_any_line(database: Path, elsewhere: Opener) -> None:
    base = database.read_bytes()
    with pinned(database) as pin:
        reference = Reference(pin)
        meddler = Meddler(elsewhere, database)
        with at_every_line(meddler) as lines:
            for _ in range(3):
                reference.follow()
                seal = pin.seal(reference.archive, 10)
                assert seal.outcome is Outcome.SEALED
                assert seal.stall > 0
        reference.follow()
        meddler.close()
        assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
    assert len(lines) > 40
    assert meddler.held_off > 0
    assert reference.salt_steps() == [1, 1, 1]
    require_restored(reference, base, database)


def test_without_the_overlap_a_generation_is_lost(
    database: Path, elsewhere: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, but that the reader is let go before the next begins: then the loss shows, or the pin tells of it."""
    base = database.read_bytes()
    with pinned(database) as pin:
        reference = Reference(pin)
        meddler = Meddler(elsewhere, database)
        meddler()
        reference.follow()

        def gapped(connection: Any) -> None:
            pin._holder.execute("ROLLBACK")
            monkeypatch.undo()
            for sql in (WRITE, "PRAGMA wal_checkpoint(PASSIVE)", WRITE):
                meddler.one.execute(sql)
            module._begin(connection)
            module._begin(pin._holder)

        monkeypatch.setattr(module, "_begin", gapped)
        with pytest.raises(TimelineEndedError, match="begun anew although a read mark was held"):
            reference.follow()
        pin._may_end = True  # without this check nobody would know
        reference.follow()
        meddler.close()
        pin.seal(reference.archive, BUDGET)
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert reference.restored(base) != database.read_bytes()


def test_where_writers_leave_a_gap_they_are_not_held_off(database: Path, elsewhere: Opener) -> None:
    site = elsewhere(database)
    with pinned(database) as pin:
        reference = Reference(pin)
        for expected in range(1, 6):
            site.execute(WRITE)
            seal = pin.seal(reference.archive, BUDGET)
            assert (seal.outcome, seal.stall) == (Outcome.SEALED, 0)
            assert (index := pin.look()).frames == index.backfilled > 0
            assert len(reference.generations) == expected
            assert pin.seal(reference.archive, BUDGET) == seal  # once more changes nothing
    assert reference.salt_steps() == [1] * 4


def test_a_long_reader_of_the_site_makes_a_seal_partial_without_a_stall(database: Path, elsewhere: Opener) -> None:
    base = database.read_bytes()
    site, reader = elsewhere(database), elsewhere(database)
    with pinned(database) as pin:
        reference = Reference(pin)
        site.execute(WRITE)
        reader.execute("BEGIN")
        before = reader.execute("SELECT count(*) FROM notes")
        for _ in range(3):
            site.execute(WRITE)
            seal = pin.seal(reference.archive, BUDGET)
            assert (seal.outcome, seal.stall) == (Outcome.PARTIAL, 0)
        assert reader.execute("SELECT count(*) FROM notes") == before
        reader.execute("COMMIT")
        assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
        site.execute(WRITE)
        reference.follow()
        assert len(reference.generations) == 2
        site.close()
        reader.close()
        pin.seal(reference.archive, BUDGET)
    require_restored(reference, base, database)


def test_a_reader_that_keeps_a_sealed_generation_going(database: Path, elsewhere: Opener) -> None:
    """It holds a mark at the last frame: all can reach the main file, yet the WAL is not begun anew."""
    base = database.read_bytes()
    site, reader = elsewhere(database), elsewhere(database)
    with pinned(database) as pin:
        reference = Reference(pin)
        site.execute(WRITE)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM notes")
        assert pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED
        for _ in range(3):
            site.execute(WRITE)
            site.execute("PRAGMA wal_checkpoint(PASSIVE)")
            reference.follow()
        assert len(reference.generations) == 1
        reader.close()
        site.close()
        pin.seal(reference.archive, BUDGET)
    require_restored(reference, base, database)


@pytest.fixture
def pressed(database: Path, elsewhere: Opener, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reference]:
    """A pin on a site that commits after each checkpoint, so that a seal cannot do without the write lock."""
    site = elsewhere(database, 0.001)
    checkpoint = Pin._checkpoint

    def then_commit(pin: Pin) -> tuple[int, int]:
        done: tuple[int, int] = checkpoint(pin)
        with contextlib.suppress(AssertionError):
            site.execute(WRITE)
        return done

    monkeypatch.setattr(Pin, "_checkpoint", then_commit)
    with pinned(database) as pin:
        yield Reference(pin)


def test_writers_are_held_off_while_the_last_frames_are_archived(
    pressed: Reference, database: Path, elsewhere: Opener
) -> None:
    other = elsewhere(database, 0.001)
    calls = []

    def archive(index: Any) -> None:
        pressed.archive(index)
        calls.append(index)
        assert pressed.pin.holds_writers == (len(calls) > 3)
        if len(calls) > 3:
            with pytest.raises(AssertionError, match="locked"):
                other.execute(WRITE)

    seal = pressed.pin.seal(archive, BUDGET)
    assert seal.outcome is Outcome.SEALED
    assert 0 < seal.stall < BUDGET
    assert len(calls) == 4
    assert not pressed.pin.holds_writers
    other.execute(WRITE)
    pressed.follow()
    assert pressed.salt_steps() == [1]


def test_the_write_lock_is_not_got_in_time(pressed: Reference, database: Path, elsewhere: Opener) -> None:
    other = elsewhere(database, 1)
    calls = iter(["SELECT 1", "SELECT 1", "BEGIN IMMEDIATE"])

    def archive(index: Any) -> None:
        pressed.archive(index)
        other.execute(next(calls))

    began = time.perf_counter()
    seal = pressed.pin.seal(archive, 0.05)
    assert (seal.outcome, seal.stall) == (Outcome.BUSY, 0)
    assert time.perf_counter() - began < 1
    other.execute("COMMIT")
    assert pressed.pin.seal(pressed.archive, BUDGET).outcome is Outcome.SEALED


def test_an_archive_that_takes_too_long_under_the_write_lock(pressed: Reference) -> None:
    waits = iter([0, 0, 0, 0.06])

    def archive(index: Any) -> None:
        pressed.archive(index)
        time.sleep(next(waits))

    seal = pressed.pin.seal(archive, 0.05)
    assert seal.outcome is Outcome.PARTIAL
    assert seal.stall > 0.05
    assert pressed.pin.seal(pressed.archive, BUDGET).outcome is Outcome.SEALED


@pytest.mark.parametrize("calls", [1, 4])
def test_an_archive_that_fails_lets_writers_go_and_the_mark_stay(database: Path, elsewhere: Opener, calls: int) -> None:
    site = elsewhere(database, 0.001)
    with pinned(database) as pin:
        reference = Reference(pin)
        remaining = iter(range(calls, 0, -1))

        def archive(index: Any) -> None:
            if next(remaining) == 1:
                raise OSError(28, "No space left on device")
            reference.archive(index)
            site.execute(WRITE)

        site.execute(WRITE)
        with pytest.raises(OSError, match="No space"):
            pin.seal(archive, BUDGET)
        assert marks_held(database)
        for _ in range(3):
            site.execute(WRITE)
            site.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        reference.archive(pin.look())
        assert len(reference.generations) == 1


def test_what_is_not_archived_is_not_let_go(database: Path, elsewhere: Opener) -> None:
    site = elsewhere(database)
    with pinned(database) as pin:
        site.execute(WRITE)
        pin.advance(pin.look())
        site.execute("PRAGMA wal_checkpoint(PASSIVE)")
        with pytest.raises(ValueError, match="0 are archived"):
            pin.advance(dataclasses.replace(pin.look(), frames=0))
        assert marks_held(database)
        site.execute(WRITE)
        reference = Reference(pin)
        reference.archive(pin.look())
        assert len(reference.generations) == 1
