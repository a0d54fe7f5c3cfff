"""What is stored after 1.2 % of a database's pages changed: by our archive, by Litestream, and by restic.

Visitors edit comments all over the database, ten in a commit, 50 commits a second. Ours and Litestream follow.
restic gets the file when it is idle, before and after, in a repository of format 2 with its default compression.
"""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.archivers import Archiver, Litestream, Ours
from benchmarks.bench import Bench, Command, database_of, megabytes, run, size_words
from benchmarks.followed import Running
from benchmarks.machine import program
from benchmarks.rows import Aim, Figure, Measured, Row
from benchmarks.works import INCREMENT

PEERS = ("restic", "litestream")

_SHARE = 0.012
_PAGE = 4096
_SETTLE = 3.0
_PASSWORD = {"RESTIC_PASSWORD": "benchmark"}

# A comment is a small part of a page: so many edits, each somewhere else, change about as many pages.
_EDIT = """
import random, sqlite3, sys, time
from benchmarks.data import make_text
database, edits = sys.argv[1], int(sys.argv[2])
chooser = random.Random(5)
texts = make_text(chooser)
connection = sqlite3.connect(database, timeout=30, isolation_level=None)
connection.execute("PRAGMA synchronous=NORMAL")
ids = [row[0] for row in connection.execute("SELECT id FROM comments")]
chosen = chooser.sample(ids, edits)
began = time.monotonic()
for number in range(0, edits, 10):
    time.sleep(max(0.0, began + number / 500 - time.monotonic()))
    connection.execute("BEGIN IMMEDIATE")
    for each in chosen[number : number + 10]:
        text = next(texts) + " " + next(texts)
        connection.execute("UPDATE comments SET body = substr(?, 1, length(body)) WHERE id = ?", (text, each))
    connection.execute("COMMIT")
"""
_CHECKPOINT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
connection.close()
"""


def _edit(database: Path) -> None:
    """Change the pages; then all of it is in the main file."""
    run([sys.executable, "-c", _EDIT, database, str(round(_SHARE * database.stat().st_size / _PAGE))])


def changed_share(before: Path, after: Path) -> float:
    """Which part of the pages differs."""
    pages = differ = 0
    with before.open("rb") as old, after.open("rb") as new:
        while page := new.read(_PAGE):
            pages += 1
            differ += page != old.read(_PAGE)
    return differ / pages


def _followed(archiver: Archiver, database: Path, folder: Path) -> float:
    """MB that an archiver stores for the edits."""
    with Running(archiver, folder) as running:
        running.wait_for(archiver.has_begun)
        time.sleep(_SETTLE)
        before = archiver.stored()["increments"]
        _edit(database)
        running.wait_for(_followed_and_rests(archiver, before))
        stored = archiver.stored()["increments"] - before
        running.end()
    return stored / 1e6


def _followed_and_rests(archiver: Archiver, before: float) -> Callable[[], bool]:
    """Whether it has stored something since, and nothing more since it was last asked."""
    last = before

    def rests() -> bool:
        nonlocal last
        time.sleep(_SETTLE)
        then, last = last, archiver.stored()["increments"]
        return before < then == last

    return rests


def _copied(database: Path, folder: Path) -> tuple[float, float]:
    """MB that restic stores for them, and which part of the pages they changed."""
    repository = folder / "repository"
    restic: Command = [program("restic"), "--repo", repository, "--quiet", "--no-cache"]
    run([*restic, "init"], environment=_PASSWORD)
    run([*restic, "backup", database], environment=_PASSWORD)
    before, old = megabytes(repository), database.with_name("before")
    shutil.copyfile(database, old)
    _edit(database)
    run([sys.executable, "-c", _CHECKPOINT, database])
    run([*restic, "backup", database], environment=_PASSWORD)
    return megabytes(repository) - before, changed_share(old, database)


def measure(bench: Bench) -> Measured:
    """Bytes stored, of the large size."""
    ours, litestream, restic, shares = [], [], [], []
    for number in range(bench.scale.rounds):
        for who in ("ours", "litestream", "restic"):
            folder = bench.folder / f"increment-{number}-{who}"
            database = bench.copy(bench.scale.size, database_of(folder))
            if who == "ours":
                ours.append(_followed(Ours(folder), database, folder))
            elif who == "litestream":
                litestream.append(_followed(Litestream(folder), database, folder))
            else:
                kept, share = _copied(database, folder)
                restic.append(kept)
                shares.append(share)
            shutil.rmtree(folder)
    figure = Figure.of("ours", ours)
    note = f"{max(shares):.2%} of the pages differed afterwards."
    stored = f"stored for {size_words(bench.scale.size)}"
    level = " Litestream: level 0 alone, without what its compaction keeps again for longer."
    return Measured(
        (
            Row(INCREMENT, stored, "MB", figure, Figure.of("restic", restic), Aim("≤ 1/40 of its bytes", 1 / 40), note),
            Row(
                INCREMENT,
                stored,
                "MB",
                figure,
                Figure.of("Litestream", litestream),
                Aim("≤ 0.6 of its bytes", 0.6),
                note + level,
            ),
        )
    )
