"""Data for the benchmarks: a portfolio's database and a backend's log, of text that compresses as text does."""

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

_SYLLABLES = "ka lo mi ren ta sul ve dor an pel is qua tor em bri non sha eth ol wi".split()
_ROW_BYTES = 700


def _words(chooser: random.Random, count: int) -> list[str]:
    return ["".join(chooser.choices(_SYLLABLES, k=chooser.randint(1, 4))) for _ in range(count)]


def make_text(chooser: random.Random) -> Iterator[str]:
    """Comments, one after the other, as many as are wanted."""
    vocabulary = _words(chooser, 4000)
    while True:
        yield " ".join(chooser.choices(vocabulary, k=chooser.randint(20, 120)))


def make_database(path: Path, size: int, *, seed: int = 1) -> None:
    """A WAL-mode database of about `size` bytes: three parts comments, one part image metadata with random digests."""
    chooser = random.Random(seed)
    vocabulary = _words(chooser, 4000)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("CREATE TABLE comments(id INTEGER PRIMARY KEY, image INTEGER, at INTEGER, body TEXT)")
    connection.execute("CREATE TABLE images(id INTEGER PRIMARY KEY, digest BLOB, title TEXT, thumbnail BLOB)")
    connection.execute("CREATE INDEX comments_image ON comments(image)")
    for start in range(0, size // _ROW_BYTES, 5000):
        comments = [
            (
                start + number,
                chooser.randint(1, 100_000),
                1_760_000_000 + start + number,
                " ".join(chooser.choices(vocabulary, k=chooser.randint(20, 120))),
            )
            for number in range(3750)
        ]
        images = [
            (
                start + number,
                chooser.randbytes(32),
                " ".join(chooser.choices(vocabulary, k=5)),
                chooser.randbytes(chooser.randint(100, 900)),
            )
            for number in range(1250)
        ]
        connection.executemany("INSERT OR REPLACE INTO comments VALUES(?, ?, ?, ?)", comments)
        connection.executemany("INSERT OR REPLACE INTO images VALUES(?, ?, ?, ?)", images)
        connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
