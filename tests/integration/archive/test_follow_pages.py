"""The archive beside a site without a WAL: every restore point is exactly a state that the site was in."""

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.moment import exact
from portfolio_ops.restore import points
from portfolio_ops.restore.audit import State as PieceState
from portfolio_ops.restore.audit import audit
from portfolio_ops.restore.witnesses import newest_witness
from portfolio_ops.store import ended, image, timeline
from tests.integration.archive.oracle import TOOL, Yard, state_of
from tests.integration.archive.test_follow import check_every_point, last_state, newest_restored

# A transaction that is too large for its cache: it is in the file before it is committed, if it ever is.
SPILL = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("PRAGMA cache_size=3")
connection.execute("BEGIN IMMEDIATE")
for n in range(400):
    connection.execute("INSERT INTO w1(id, n, text) VALUES(?, ?, hex(randomblob(2000)))", (1000 + n, n))
print("written", flush=True)
time.sleep(60)
"""


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path, journal_mode="delete")
    yield made
    made.end()


def changed(yard: Yard, *statements: str) -> None:
    """Something that the site does, and that leaves the states of its writers as they are."""
    with contextlib.closing(sqlite3.connect(yard.database, timeout=30, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()


def committed(yard: Yard, number: int = 0) -> None:
    """Some commits of a writer."""
    yard.write(number, pause=0.01)
    yard.until(lambda: len(yard.writers[number].told) > 5, "it writes")
    yard.stop_writing(number)


def archived(yard: Yard) -> None:
    """What is committed by now is archived."""
    with contextlib.closing(sqlite3.connect(f"file:{yard.database}?mode=ro", uri=True)) as connection:
        connection.execute("SELECT count(*) FROM counters").fetchall()
        counter = int.from_bytes(yard.database.read_bytes()[24:28], "big")
    yard.until(lambda: counter in frames(yard), "it is archived")


def frames(yard: Yard) -> list[int]:
    """The change counters of the newest timeline's restore points."""
    found = timeline.read(yard.site.backups, timeline.ids(yard.site.backups)[-1], yard.site.name)
    return [cut.position.frame for increment in found.increments for cut in increment.cuts]


def called(yard: Yard, *words: str, code: int = 0) -> Any:
    """What the tool answers, in another process."""
    done = subprocess.run([TOOL, "--config", yard.file, "--json", *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)["data"]


def drilled(yard: Yard) -> list[str]:
    """What a drill found. It may wonder at rows that came since, which is inconclusive."""
    command: list[str | Path] = [TOOL, "--config", yard.file, "--json", "drill"]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)["data"]
    assert found["verdict"] in {"passed", "inconclusive"}
    evidence: list[str] = found["evidence"]
    return evidence


def test_two_writers_that_never_rest(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0, pause=0)
    yard.write(1, pause=0, pragmas="journal_mode=persist")
    time.sleep(3)
    called(yard, "backup", "daily")
    time.sleep(3)
    for number in (0, 1):
        yard.stop_writing(number)
    archived(yard)
    yard.end_archive()
    [states] = check_every_point(yard).values()
    assert len(states) >= 4
    assert states[-1] == last_state(yard)
    # However busy it was, the backup stands at a restore point, to which another one leads.
    witness = newest_witness(points.read(yard.site))
    assert witness is not None
    assert witness.artifact.metadata.kind.value == "daily"
    assert any(f"lead to what {witness.artifact.path.name} holds" in words for words in drilled(yard))


def test_killed_and_started_again_it_goes_on(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0, pragmas="journal_mode=truncate", pause=0.02)
    for how in (signal.SIGKILL, signal.SIGTERM):
        time.sleep(2)
        yard.end_archive(how)
        time.sleep(0.5)
        yard.start_archive()
    yard.stop_writing(0)
    archived(yard)
    yard.end_archive()
    [states] = check_every_point(yard).values()
    assert states[-1] == last_state(yard)
    assert yard.said().count("Going on with timeline") == 2


def test_started_again_and_again_at_rest_it_makes_no_other_base(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    for _ in range(2):
        yard.end_archive()
        yard.start_archive()
    committed(yard)
    archived(yard)
    (yard.site.state / "archive-pages").unlink()  # the state is known from the database itself then
    yard.end_archive(signal.SIGKILL)
    yard.start_archive()
    time.sleep(1)
    yard.end_archive()
    assert len(timeline.ids(yard.site.backups)) == len(yard.bases()) == 1
    [states] = check_every_point(yard).values()
    assert states[-1] == last_state(yard)


def test_what_it_cannot_prove_begins_a_timeline(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    committed(yard)
    archived(yard)
    hashes = (yard.site.state / "archive-pages").read_bytes()
    committed(yard)
    archived(yard)
    yard.end_archive()
    committed(yard)
    assert [piece.state for piece in audit(yard.site)[0]] == [PieceState.FOUND, PieceState.PENDING]
    (yard.site.state / "archive-pages").write_bytes(hashes)  # of a state before the last
    yard.start_archive()
    yard.wait_for_base(2)
    committed(yard)
    archived(yard)
    yard.end_archive()
    assert len(timeline.ids(yard.site.backups)) == 2
    found = check_every_point(yard)
    assert found[max(found)][-1] == last_state(yard)
    assert {piece.state for piece in audit(yard.site)[0]} == {PieceState.FOUND, PieceState.HOLE}


def test_it_grows_and_shrinks(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    sizes = []
    for statements in (
        ("CREATE TABLE other(body)", "INSERT INTO other VALUES(randomblob(900000))"),
        ("DELETE FROM other",),
        ("VACUUM",),
        ("INSERT INTO other VALUES(randomblob(300000))", "UPDATE counters SET n = n"),
        ("DROP TABLE other", "VACUUM"),
    ):
        changed(yard, *statements)
        committed(yard)
        archived(yard)
        sizes.append(yard.database.stat().st_size)
    yard.end_archive()
    assert sizes[0] > sizes[2] < sizes[3] > sizes[4]
    [states] = check_every_point(yard).values()
    assert states[-1] == last_state(yard)


def test_a_moment_is_restored_as_it_was(yard: Yard) -> None:
    """To the byte: its journal mode, too, and nothing beside it. What is missing, and how it is doing, is told."""
    yard.start_archive()
    yard.wait_for_base()
    images = []
    for _ in range(3):
        committed(yard)
        archived(yard)
        images.append((datetime.now(UTC).isoformat(), yard.database.read_bytes()))
    for number, (when, content) in enumerate(images):
        target = yard.folder / f"copy-{number}.sqlite"
        called(yard, "restore", "database", "--at", when, "--to", str(target))
        assert target.read_bytes() == content
        assert content[18:20] == b"\1\1"
        assert [path.name for path in yard.folder.glob(f"{target.name}*")] == [target.name]
    [window] = called(yard, "list", "points")["windows"]
    assert window["points"] >= 3
    assert [piece["state"] for piece in called(yard, "archive", "verify")["pieces"]] == ["found"]
    assert called(yard, "status", code=10)["archive"]["lag_seconds"] == 0
    yard.end_archive()
    committed(yard)
    assert [piece["state"] for piece in called(yard, "archive", "verify")["pieces"]] == ["found", "missing-pending"]
    assert called(yard, "status", code=10)["archive"]["lag_seconds"] > 0


def test_replaced_or_written_over_it_begins_a_timeline(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    before = yard.folder / "before"
    shutil.copy(yard.database, before)
    counters = dict(yard.commits)
    committed(yard)
    archived(yard)
    shutil.copy(yard.database, yard.folder / "same")
    (yard.folder / "same").replace(yard.database)
    yard.until(lambda: len(timeline.ids(yard.site.backups)) == 2, "another timeline begins")
    assert "was replaced" in yard.said()
    yard.wait_for_base(2)
    committed(yard)
    archived(yard)
    # An older one is copied over it, into the same file.
    yard.database.write_bytes(before.read_bytes())
    yard.until(lambda: len(timeline.ids(yard.site.backups)) == 3, "another timeline begins")
    assert "went back from change" in yard.said()
    yard.wait_for_base(3)
    yard.commits, yard.acknowledged = counters, {0: [], 1: []}
    committed(yard, 1)
    archived(yard)
    yard.end_archive()
    found = check_every_point(yard)
    assert len(found) == 3
    assert found[max(found)][-1] == last_state(yard)


def test_it_lets_go_of_a_file_that_is_exchanged(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    committed(yard)
    archived(yard)
    when, content = datetime.now(UTC).isoformat(), yard.database.read_bytes()
    committed(yard)
    archived(yard)
    called(yard, "restore", "database", "--at", when, "--in-place", "--yes")
    assert yard.database.read_bytes() == content
    yard.until(lambda: len(timeline.ids(yard.site.backups)) == 2, "another timeline begins")
    yard.wait_for_base(3)  # what was put away is one, too
    yard.end_archive()
    last = points.windows(yard.site)[-1]
    assert (last.timeline, last.points) == (timeline.ids(yard.site.backups)[-1], 1)


def last_moment(yard: Yard) -> str:
    """The last one that can be restored."""
    return exact(max(window.last for window in points.windows(yard.site)))


def newest_moment(yard: Yard) -> bytes:
    """The last state that the archive knows, restored."""
    target = yard.folder / "newest.sqlite"
    called(yard, "restore", "database", "--at", last_moment(yard), "--to", str(target))
    content = target.read_bytes()
    target.unlink()
    return content


def left_behind(yard: Yard) -> tuple[str, bytes]:
    """The archive has run and ended; gives its last moment, and what the database held then. It was changed since."""
    yard.start_archive()
    yard.wait_for_base()
    committed(yard)
    archived(yard)
    yard.end_archive()
    when, content = last_moment(yard), yard.database.read_bytes()
    committed(yard)
    return when, content


def test_what_a_restore_put_away_is_not_taken_for_the_present(yard: Yard) -> None:
    """The archive was off meanwhile, and the restored state is the one with which its timeline ended."""
    when, content = left_behind(yard)
    called(yard, "restore", "database", "--at", when, "--in-place", "--yes")
    assert yard.database.read_bytes() == content
    assert not image.path_of(yard.site.state).exists()
    yard.start_archive()
    time.sleep(2)
    assert newest_moment(yard) == content
    yard.end_archive()
    assert newest_moment(yard) == content


def test_a_copy_that_a_killed_archive_left_is_a_moment_of_the_past(yard: Yard) -> None:
    """It is archived as of when it was made; then the database is looked at, whatever was restored meanwhile."""
    when, content = left_behind(yard)
    shutil.copy(yard.database, image.path_of(yard.site.state))
    called(yard, "restore", "database", "--at", when, "--in-place", "--yes")
    yard.start_archive()
    yard.until(lambda: len(timeline.ids(yard.site.backups)) == 2, "another timeline begins")
    assert "went back from change" in yard.said()
    yard.wait_for_base(3)  # what was put away is one, too
    yard.end_archive()
    assert newest_moment(yard) == content


def test_another_journal_mode_is_another_timeline(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    committed(yard)
    archived(yard)
    changed(yard, "PRAGMA journal_mode=wal")
    yard.until(lambda: len(timeline.ids(yard.site.backups)) == 2, "another timeline begins")
    assert "given the database a WAL" in yard.said()
    assert not ended.noted(yard.site.state), "the site itself did it"
    yard.wait_for_base(2)
    committed(yard)
    time.sleep(1.5)
    yard.end_archive()
    changed(yard, "PRAGMA journal_mode=delete")
    yard.start_archive()
    yard.wait_for_base(3)
    changed(yard, "PRAGMA page_size=1024", "VACUUM")
    yard.until(lambda: len(timeline.ids(yard.site.backups)) == 4, "another timeline begins")
    yard.wait_for_base(4)
    committed(yard)
    archived(yard)
    yard.end_archive()
    found = check_every_point(yard)
    assert found[max(found)][-1] == last_state(yard)
    assert len({window.timeline for window in points.windows(yard.site)}) == 4
    assert all(window.ends for window in points.windows(yard.site)[:-1])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_half_a_transaction_is_never_archived(yard: Yard, how: signal.Signals) -> None:
    """Its process dies, and leaves a hot journal; or it goes on for long, and what it has written so far is seen."""
    yard.start_archive()
    yard.wait_for_base()
    committed(yard)
    archived(yard)
    command = [sys.executable, "-c", SPILL, str(yard.database)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        assert yard.database.stat().st_size > 500_000  # it is in the file
        process.send_signal(how)
        if how is signal.SIGSTOP:
            yard.until(lambda: "stayed locked for 10 s" in yard.said(), "it tells that it is locked")
        process.kill()
    committed(yard)
    archived(yard)
    yard.end_archive()
    found = check_every_point(yard)
    assert found[max(found)][-1] == last_state(yard)
    assert len(found) == 1


def test_rows_that_are_added_are_seen(yard: Yard) -> None:
    with yard.file.open("a") as file:
        file.write('\n[gallery]\ntable = "galleries"\nname = "slug"\n')
    changed(yard, "CREATE TABLE galleries(id INTEGER PRIMARY KEY, slug TEXT)")
    yard.start_archive()
    yard.wait_for_base()
    yard.until(lambda: "are events" in yard.said(), "it watches")
    changed(yard, "INSERT INTO galleries(slug) VALUES('first light')")
    yard.until(lambda: len(called(yard, "list", "event")["artifacts"]) == 1, "the backup is made")
    yard.end_archive()
    assert called(yard, "list", "event")["artifacts"][0]["name"] == "first light"


def test_nothing_is_left_beside_backups_that_nobody_follows(yard: Yard) -> None:
    called(yard, "backup", "daily")
    assert not image.path_of(yard.site.state).exists()
    yard.start_archive()
    yard.wait_for_base()
    called(yard, "backup", "daily")
    yard.until(lambda: not image.path_of(yard.site.state).exists(), "it is taken")
    yard.end_archive()
    assert [path.name for path in yard.site.state.iterdir() if path.name.startswith(".tmp-")] == []
    before = yard.database.stat()
    assert (before.st_uid, before.st_mode) == (os.geteuid(), yard.database.stat().st_mode)
    assert sorted(path.name for path in yard.database.parent.iterdir()) == [yard.database.name]


def test_at_rest_it_reads_nothing(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    committed(yard)
    archived(yard)
    assert yard.archive is not None
    proc = Path(f"/proc/{yard.archive.pid}")

    def done() -> tuple[str, ...]:
        words = (proc / "status").read_text().splitlines() + (proc / "io").read_text().splitlines()
        return tuple(line for line in words if line.startswith(("voluntary", "rchar", "syscr")))

    def rests() -> bool:
        before = done()
        time.sleep(3)
        return done() == before

    yard.until(rests, "it does nothing for 3 seconds")


def test_once(yard: Yard) -> None:
    for count in range(3):
        called(yard, "archive", "once")
        committed(yard)
        assert len(yard.bases()) == 1
        assert len(frames(yard)) == count
    assert len(timeline.ids(yard.site.backups)) == 1


@pytest.mark.soak
def test_anything_at_any_time(yard: Yard) -> None:
    """Random kills of the archive and of writers, VACUUMs, backups; the seed is printed."""
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
            modes = ["journal_mode=delete", "journal_mode=truncate", "journal_mode=persist", "synchronous=off"]
            pragmas = f"{chooser.choice(modes)};cache_size={chooser.choice([2, 2000])}"
            yard.write(number, pause=chooser.choice([0, 0.001, 0.02]), pragmas=pragmas)
            did(f"writer {number} begins: {pragmas}")
        elif what == 4:
            how = chooser.choice([signal.SIGKILL, signal.SIGTERM])
            yard.end_archive(how)
            yard.start_archive()
            did(f"{how.name}, and it began again")
        elif what == 5:
            called(yard, "backup", "daily")
            did("a backup")
        elif what < 8:
            statement = chooser.choice(["VACUUM", "BEGIN EXCLUSIVE"])
            connect = sqlite3.connect(yard.database, timeout=1, isolation_level=None)
            with contextlib.closing(connect) as other, contextlib.suppress(sqlite3.OperationalError):
                other.execute(statement)
                time.sleep(chooser.uniform(0, 0.5))
                did(statement)
    for number in list(yard.writers):
        yard.stop_writing(number)
    time.sleep(1.5)
    yard.end_archive()
    with (yard.folder / "archive.log").open("ab") as log:
        subprocess.run([TOOL, "--config", yard.file, "archive", "once"], check=True, stderr=log, timeout=60)
    found = check_every_point(yard)
    assert newest_restored(yard, found) == state_of(yard.database)
    assert not [piece for piece in audit(yard.site)[0] if piece.state is PieceState.LOST]
