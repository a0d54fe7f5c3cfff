"""Snapshots of real databases that real processes write."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from portfolio_ops.errors import BusyError, NotFoundError, NotPermittedError, PortfolioOpsError, RefusedError
from portfolio_ops.sqlite import snapshot as engine
from portfolio_ops.sqlite import wal_index
from portfolio_ops.sqlite.check import check_database
from portfolio_ops.sqlite.connection import explained, reading
from portfolio_ops.sqlite.place import side
from portfolio_ops.sqlite.snapshot import reading_one_moment, snapshot
from tests.require import require_root

Opener = Callable[..., Any]
ACCOUNTS = 2000
TOTAL = 1000 * ACCOUNTS

WRITER = """
import random, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("PRAGMA synchronous=OFF")
chooser = random.Random(int(sys.argv[2]))
count = 0
try:
    while True:
        connection.execute("BEGIN IMMEDIATE")
        amount, one, two = chooser.randint(1, 9), chooser.randint(1, 2000), chooser.randint(1, 2000)
        connection.execute("UPDATE accounts SET balance = balance - ? WHERE id = ?", (amount, one))
        connection.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", (amount, two))
        if count % 50 == 0:
            connection.execute("INSERT INTO notes(body) VALUES(randomblob(?))", (chooser.randint(10, 20000),))
            connection.execute("DELETE FROM notes WHERE id <= (SELECT max(id) - 40 FROM notes)")
        connection.execute("COMMIT")
        count += 1
except sqlite3.Error as error:
    print("WRITER FAILED", error, flush=True)
"""


def bank(path: Path, *, page_size: int = 4096, journal_mode: str = "wal") -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA page_size={page_size}")
    connection.execute(f"PRAGMA journal_mode={journal_mode}")
    connection.execute("CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER, note TEXT)")
    connection.execute("CREATE INDEX accounts_balance ON accounts(balance)")
    connection.execute("CREATE TABLE notes(id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB)")
    connection.executemany(
        "INSERT INTO accounts VALUES(?, 1000, ?)", [(number, "x" * 200) for number in range(1, ACCOUNTS + 1)]
    )
    connection.commit()
    connection.close()


@contextlib.contextmanager
def writers(database: Path, count: int = 2) -> Iterator[list["subprocess.Popen[str]"]]:
    """Writers at full speed; at the end none may have met an error."""
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(database), str(seed)], stdout=subprocess.PIPE, text=True)
        for seed in range(count)
    ]
    try:
        time.sleep(0.3)
        yield running
        assert all(process.poll() is None for process in running), "a writer failed"
    finally:
        outputs = []
        for process in running:
            process.kill()
            outputs.append(process.communicate()[0])
        assert not any(outputs), outputs


def taken(database: Path, target: Path) -> engine.Snapshot:
    """Write the image to `target`."""
    with snapshot(database, target.parent) as image, target.open("wb") as file:
        for chunk in image.chunks():
            file.write(chunk)
    assert target.stat().st_size == image.bytes
    return image


def require_balanced(copy: Path) -> None:
    """The invariant of the bank: money moves, the sum stays. Every index agrees with its table."""
    check_database(copy)
    assert looked_up(copy, "SELECT sum(balance) FROM accounts") == [TOTAL]


def looked_up(copy: Path, query: str) -> list[Any]:
    """The first column of a query against a copy."""
    connection = sqlite3.connect(f"file:{copy}?immutable=1", uri=True)
    rows = connection.execute(query).fetchall()
    connection.close()
    return [row[0] for row in rows]


@pytest.mark.slow
def test_five_hundred_in_a_row_under_two_saturating_writers(tmp_path: Path) -> None:
    database, copy = tmp_path / "bank.sqlite", tmp_path / "copy.sqlite"
    bank(database)
    positions = set()
    with writers(database):
        for _ in range(500):
            image = taken(database, copy)
            require_balanced(copy)
            positions.add(image.position)
    # The writers were indeed at work: hardly two snapshots stand at the same frame.
    assert len(positions) > 450


@pytest.mark.parametrize("page_size", [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536])
def test_every_page_size_under_load(tmp_path: Path, page_size: int) -> None:
    database, copy = tmp_path / "bank.sqlite", tmp_path / "copy.sqlite"
    bank(database, page_size=page_size)
    with writers(database):
        for _ in range(5):
            assert taken(database, copy).page_size == page_size
            require_balanced(copy)


@pytest.mark.parametrize("journal_mode", ["delete", "truncate", "persist"])
def test_a_rollback_journal_under_load(tmp_path: Path, journal_mode: str) -> None:
    database, copy = tmp_path / "bank.sqlite", tmp_path / "copy.sqlite"
    bank(database, journal_mode=journal_mode)
    with writers(database):
        for _ in range(10):
            assert taken(database, copy).position is None
            require_balanced(copy)
    assert sorted(path.name for path in tmp_path.iterdir() if "journal" not in path.name) == [
        "bank.sqlite",
        "copy.sqlite",
    ]


ORACLE = """
import sqlite3, sys
source, target = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[2])
source.backup(target)
"""


def test_the_image_is_what_sqlite_itself_reads(tmp_path: Path, elsewhere: Opener) -> None:
    """Oracle: SQLite's own backup of the same state, page for page."""
    database, copy, oracle = (tmp_path / name for name in ("bank.sqlite", "copy.sqlite", "oracle.sqlite"))
    bank(database)
    writer = elsewhere(database)
    writer.execute("PRAGMA wal_autocheckpoint=0")
    chooser = random.Random(7)
    for step in range(30):
        for _ in range(chooser.randint(1, 20)):
            note, account = "y" * chooser.randint(0, 300), chooser.randint(1, ACCOUNTS)
            writer.execute("UPDATE accounts SET note = ? WHERE id = ?", note, account)
        if step % 7 == 3:
            writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if step % 11 == 5:
            writer.execute("INSERT INTO notes(body) VALUES(zeroblob(200000))")
        if step % 13 == 6:
            writer.execute("DELETE FROM notes")
            writer.execute("VACUUM")
        taken(database, copy)
        subprocess.run([sys.executable, "-c", ORACLE, database, oracle], check=True)
        image, expected = bytearray(copy.read_bytes()), bytearray(oracle.read_bytes())
        for fields in (slice(24, 28), slice(40, 44), slice(92, 96)):  # counters that the backup API itself writes
            image[fields] = expected[fields] = b"\0\0\0\0"
        assert image == expected, f"step {step}"


def test_a_wal_far_larger_than_the_file(tmp_path: Path, elsewhere: Opener) -> None:
    database, copy = tmp_path / "bank.sqlite", tmp_path / "copy.sqlite"
    bank(database)
    writer = elsewhere(database)
    writer.execute("PRAGMA wal_autocheckpoint=0")
    for number in range(60):
        writer.execute("UPDATE accounts SET note = ?", f"{number} " * 60)
    wal = database.with_name("bank.sqlite-wal").stat().st_size
    assert wal > 20 * database.stat().st_size
    taken(database, copy)
    require_balanced(copy)
    assert looked_up(copy, "SELECT DISTINCT note FROM accounts") == ["59 " * 60]


def test_growth_and_shrinkage_during_the_read(tmp_path: Path, elsewhere: Opener) -> None:
    database, copy = tmp_path / "bank.sqlite", tmp_path / "copy.sqlite"
    bank(database)
    writer = elsewhere(database)
    writer.execute("INSERT INTO notes(body) VALUES(zeroblob(9000000))")
    with snapshot(database, tmp_path) as image, copy.open("wb") as file:
        for number, chunk in enumerate(image.chunks()):
            file.write(chunk)
            if number == 2:
                writer.execute("DELETE FROM notes")
                writer.execute("VACUUM")
                writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
            if number == 5:
                writer.execute("INSERT INTO notes(body) VALUES(zeroblob(30000000))")
                writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
    require_balanced(copy)
    assert looked_up(copy, "SELECT sum(length(body)) FROM notes") == [9000000]


def test_a_wal_that_is_begun_anew_during_the_read(tmp_path: Path, elsewhere: Opener) -> None:
    """A reader of a wholly backfilled WAL holds lock 0; a writer may overwrite the WAL: it must not be looked at."""
    database, copy = tmp_path / "bank.sqlite", tmp_path / "copy.sqlite"
    bank(database)
    writer = elsewhere(database)
    writer.execute("UPDATE accounts SET note = 'before'")
    (_, frames, backfilled), *_ = writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
    assert frames == backfilled > 0
    with snapshot(database, tmp_path) as image:
        chunks = image.chunks()
        first = bytes(next(chunks))
        for number in range(20):
            writer.execute("UPDATE accounts SET note = ?", f"after {number}")
        copy.write_bytes(first + b"".join(bytes(chunk) for chunk in chunks))
    require_balanced(copy)
    assert looked_up(copy, "SELECT DISTINCT note FROM accounts") == ["before"]


@pytest.mark.parametrize("backfilled_before", [False, True])
def test_commits_between_our_begin_and_our_look_at_the_index(
    tmp_path: Path, elsewhere: Opener, monkeypatch: pytest.MonkeyPatch, backfilled_before: bool
) -> None:
    database, copy = tmp_path / "bank.sqlite", tmp_path / "copy.sqlite"
    bank(database)
    writer = elsewhere(database)
    writer.execute("UPDATE accounts SET note = 'before'")
    if backfilled_before:
        writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
    look = wal_index.read_wal_index

    def commits_first(descriptor: int) -> Any:
        writer.execute("UPDATE accounts SET note = 'after'")
        writer.execute("INSERT INTO notes(body) VALUES(zeroblob(3000000))")
        writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        return look(descriptor)

    monkeypatch.setattr(engine, "read_wal_index", commits_first)
    with snapshot(database, tmp_path) as image:
        chunks = image.chunks()
        first = bytes(next(chunks))
        for number in range(5):
            writer.execute("UPDATE accounts SET note = ?", f"later {number}")
            writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        copy.write_bytes(first + b"".join(bytes(chunk) for chunk in chunks))
    require_balanced(copy)
    assert looked_up(copy, "SELECT DISTINCT note FROM accounts") == ["after"]
    assert looked_up(copy, "SELECT sum(length(body)) FROM notes") == [3000000]


@pytest.mark.slow
@pytest.mark.parametrize("page_size", [4096, 65536])
def test_a_database_beyond_one_gibibyte(tmp_path: Path, elsewhere: Opener, page_size: int) -> None:
    """The page that holds byte 2^30 is never written (<https://www.sqlite.org/fileformat2.html>, section 1.4)."""
    database, copy = tmp_path / "big.sqlite", tmp_path / "copy.sqlite"
    writer = elsewhere(database)
    for pragma in (f"page_size={page_size}", "journal_mode=wal", "synchronous=OFF"):
        writer.execute(f"PRAGMA {pragma}")
    writer.execute("CREATE TABLE blobs(id INTEGER PRIMARY KEY, body BLOB)")
    for _ in range(11):
        writer.execute("INSERT INTO blobs(body) VALUES(zeroblob(99999999))")
    writer.execute("UPDATE blobs SET body = randomblob(1000) WHERE id = 2")
    image = taken(database, copy)
    assert image.bytes > 1 << 30
    assert check_database(copy).rows == {"blobs": 11}


def test_an_empty_database_and_an_empty_file(tmp_path: Path) -> None:
    empty, copy = tmp_path / "empty.sqlite", tmp_path / "copy.sqlite"
    empty.touch()
    assert taken(empty, copy).bytes == 0
    assert check_database(copy).rows == {}
    connection = sqlite3.connect(empty)
    connection.execute("PRAGMA journal_mode=wal")
    connection.close()
    taken(empty, copy)
    assert check_database(copy).rows == {}


def test_a_stopped_site_is_left_as_it_was(tmp_path: Path) -> None:
    database, copy = tmp_path / "bank.sqlite", tmp_path / "copy" / "copy.sqlite"
    copy.parent.mkdir()
    bank(database)
    before = (database.stat(), database.read_bytes())
    taken(database, copy)
    require_balanced(copy)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["bank.sqlite"]
    after = (database.stat(), database.read_bytes())
    assert after[1] == before[1]
    assert (after[0].st_mtime_ns, after[0].st_mode, after[0].st_ino) == (
        before[0].st_mtime_ns,
        before[0].st_mode,
        before[0].st_ino,
    )


def test_a_site_that_was_killed_keeps_its_wal(tmp_path: Path) -> None:
    database, copy = tmp_path / "bank.sqlite", tmp_path / "copy.sqlite"
    bank(database)
    with writers(database, 1):
        pass  # killed at the end
    wal = database.with_name("bank.sqlite-wal")
    before = (database.read_bytes(), wal.read_bytes())
    assert before[1], "the writer left no WAL to keep"
    taken(database, copy)
    require_balanced(copy)
    assert (database.read_bytes(), wal.read_bytes()) == before


@pytest.mark.parametrize("read", [snapshot, reading_one_moment])
def test_a_site_that_is_stopped_meanwhile_leaves_no_wal(tmp_path: Path, elsewhere: Opener, read: Any) -> None:
    """Its last close was not the last: what is put in the file's place then must not be mixed with the WAL."""
    database = tmp_path / "bank.sqlite"
    bank(database)
    site = elsewhere(database)
    site.execute("INSERT INTO notes(body) VALUES('last')")
    with read(database, tmp_path):
        assert database.with_name("bank.sqlite-wal").stat().st_size
        site.close()
    assert [path.name for path in tmp_path.iterdir()] == ["bank.sqlite"]
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT body FROM notes WHERE body = 'last'").fetchall()


READER = """
import sys, time
from pathlib import Path
from portfolio_ops.sqlite.snapshot import snapshot
with snapshot(Path(sys.argv[1]), Path(sys.argv[2])) as image:
    next(image.chunks())
    print("pinned", flush=True)
    time.sleep(60)
"""


def test_a_reader_of_ours_that_dies_holds_nothing(tmp_path: Path, elsewhere: Opener) -> None:
    database = tmp_path / "bank.sqlite"
    bank(database)
    with writers(database):
        reader = subprocess.Popen(
            [sys.executable, "-c", READER, str(database), str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert reader.stdout is not None
        assert reader.stdout.readline() == "pinned\n"
        reader.send_signal(signal.SIGKILL)
        reader.communicate()
    assert elsewhere(database).execute("PRAGMA wal_checkpoint(TRUNCATE)") == [[0, 0, 0]]


def test_our_locks_hold_until_the_end(tmp_path: Path, elsewhere: Opener) -> None:
    """The trap of POSIX locks: had we closed a descriptor of the -shm early, this checkpoint would succeed."""
    database = tmp_path / "bank.sqlite"
    bank(database)
    other = elsewhere(database, timeout=0.1)
    other.execute("UPDATE accounts SET note = 'x'")
    with snapshot(database, tmp_path) as image:
        for _ in image.chunks():
            ((busy, _, _),) = other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert busy == 1, "the WAL was truncated under the reader"
    assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)") == [[0, 0, 0]]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    database, descriptors = tmp_path / "bank.sqlite", Path("/proc/self/fd")
    bank(database)
    taken(database, tmp_path / "copy.sqlite")
    before = len(list(descriptors.iterdir()))
    for _ in range(20):
        taken(database, tmp_path / "copy.sqlite")
    assert len(list(descriptors.iterdir())) == before


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_bytes(b"this is no database at all, " * 100)
    for path, error in [(tmp_path / "none.sqlite", NotFoundError), (text, RefusedError), (tmp_path, RefusedError)]:
        with pytest.raises(error), snapshot(path, tmp_path):
            pass
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PortfolioOpsError), snapshot(tmp_path / "fifo", tmp_path):
        pass


def test_a_database_held_exclusively_is_busy(
    tmp_path: Path, elsewhere: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portfolio_ops.sqlite.connection._BUSY_MILLISECONDS", 200)
    database = tmp_path / "bank.sqlite"
    bank(database, journal_mode="delete")
    elsewhere(database).execute("BEGIN EXCLUSIVE")
    with pytest.raises(BusyError, match="stayed locked"), snapshot(database, tmp_path):
        pass


def test_a_wal_that_was_cut_by_hand_is_an_error_not_a_backup(tmp_path: Path, elsewhere: Opener) -> None:
    database = tmp_path / "bank.sqlite"
    bank(database)
    elsewhere(database).execute("UPDATE accounts SET note = 'x'")
    os.truncate(database.with_name("bank.sqlite-wal"), 5000)
    with pytest.raises(PortfolioOpsError, match="the WAL ends before"), snapshot(database, tmp_path):
        pass


def test_the_bundled_sqlite_has_the_wal_reset_repair() -> None:
    assert tuple(int(part) for part in apsw.sqlite_lib_version().split(".")) >= (3, 51, 3)


@pytest.mark.parametrize("lacking", ["the folder", "a side file", "the side file of what a link leads to"])
def test_a_right_that_is_missing_is_told_as_that(lacking: str) -> None:
    require_root("a database whose side files are another user's")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as held:
        folder = Path(name)
        database = folder / "bank.sqlite"
        bank(database)
        database.chmod(0o666)
        folder.chmod(0o755 if lacking == "the folder" else 0o777)
        if lacking != "the folder":
            site = held.enter_context(contextlib.closing(sqlite3.connect(database)))
            site.execute("INSERT INTO notes(body) VALUES('x')")
            site.commit()
            side(database, "-wal").chmod(0o666)
            side(database, "-shm").chmod(0o600)
        if "link" in lacking:
            (folder / "link.sqlite").symlink_to(database.name)
            database = folder / "link.sqlite"
        child = os.fork()
        if child == 0:
            os.setresuid(1002, 1002, 1002)
            try:
                with reading(database):
                    pass
            except NotPermittedError:
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_database_that_goes_as_it_is_opened_is_not_there(tmp_path: Path) -> None:
    error = explained(apsw.CantOpenError("unable to open database file"), tmp_path / "portfolio.sqlite")
    assert isinstance(error, NotFoundError)
    assert "is the volume mounted?" in error.suggestion
