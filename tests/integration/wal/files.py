"""Databases with a WAL, and what SQLite itself makes of them."""

import contextlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import apsw

from portfolio_ops.sqlite.wal_header import Checksum
from portfolio_ops.sqlite.wal_index import read_wal_index

PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]


def plain_checksum(data: bytes | bytearray, start: Checksum = (0, 0), *, big_endian: bool) -> Checksum:
    """The algorithm word for word, from SQLite's file-format page."""
    s0, s1 = start
    words = struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data)
    for index in range(0, len(words), 2):
        s0 = (s0 + words[index] + s1) % 2**32
        s1 = (s1 + words[index + 1] + s0) % 2**32
    return s0, s1


def sealed(wal: bytes | bytearray) -> bytes:
    """The same WAL with every checksum made right, of the header and of each whole frame; salts stay as they are."""
    magic, _, page_size = struct.unpack_from(">3I", wal)
    big_endian = bool(magic & 1)
    checksum = plain_checksum(wal[:24], big_endian=big_endian)
    parts = [wal[:24], struct.pack(">2I", *checksum)]
    at, size = 32, page_size + 24
    while page_size % 8 == 0 and at + size <= len(wal):
        checksum = plain_checksum(wal[at : at + 8] + wal[at + 24 : at + size], checksum, big_endian=big_endian)
        parts += [wal[at : at + 16], struct.pack(">2I", *checksum), wal[at + 24 : at + size]]
        at += size
    return b"".join(parts) + wal[at:]


@dataclass(frozen=True)
class Recovery:
    """What SQLite takes from a WAL: the pages of its frames, the database's size, and the last frame's checksum."""

    pages: list[int]
    size: int
    checksum: Checksum | None


def recovery(main: bytes, wal: bytes, scratch: Path) -> Recovery:
    """Let SQLite recover a copy, and read what it found from its wal-index."""
    with TemporaryDirectory(dir=scratch) as folder:
        database = Path(folder) / "copy.sqlite"
        database.write_bytes(main)
        database.with_name("copy.sqlite-wal").write_bytes(wal)
        connection = apsw.Connection(str(database))
        # Where part of its history is gone, it may be corrupt; recovery comes before that is found.
        with contextlib.suppress(apsw.CorruptError, apsw.NotADBError):
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        # Opened after the connection and closed after it, so that no lock of the connection's is dropped.
        shm = os.open(f"{database}-shm", os.O_RDONLY)
        index = read_wal_index(shm)
        pages = page_numbers(shm, index.frames)
        s0, s1 = struct.unpack("=2I", os.pread(shm, 8, 24))
        connection.close()
        os.close(shm)
    return Recovery(pages, index.pages, (s0, s1) if pages else None)


def page_numbers(shm: int, frames: int) -> list[int]:
    """The page of each frame, from a wal-index: 4062 of them in its first block of 32 KiB, 4096 in each other."""
    data = os.pread(shm, 4 * 4062, 136)
    for block in range(1, (frames + 33) // 4096 + 1):
        data += os.pread(shm, 4 * 4096, 32768 * block)
    return list(struct.unpack_from(f"={frames}I", data))


def replayed(main: bytes, wal: bytes, scratch: Path) -> bytes:
    """The main file after SQLite has brought the whole WAL into it."""
    with TemporaryDirectory(dir=scratch) as folder:
        database = Path(folder) / "copy.sqlite"
        database.write_bytes(main)
        database.with_name("copy.sqlite-wal").write_bytes(wal)
        connection = apsw.Connection(str(database))
        connection.execute("PRAGMA synchronous=OFF")
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall() == [(0, 0, 0)]
        connection.close()
        return database.read_bytes()


Step = Callable[[apsw.Connection, Random, int], None]


def _insert(connection: apsw.Connection, chooser: Random, page_size: int) -> None:
    rows = [(chooser.randbytes(chooser.randint(0, page_size)),) for _ in range(chooser.randint(1, 6))]
    with connection:
        connection.executemany("INSERT INTO rows(body) VALUES(?)", rows)


def _rewrite(connection: apsw.Connection) -> None:
    """Change every page, more than the cache holds: frames reach the WAL before the commit."""
    connection.execute("UPDATE rows SET body = noise(length(body))")


def _change(connection: apsw.Connection, chooser: Random, _: int) -> None:
    connection.execute("UPDATE rows SET body = noise(length(body)) WHERE id % 5 = ?", (chooser.randrange(5),))


def _roll_back(connection: apsw.Connection, _: Random, __: int) -> None:
    connection.execute("BEGIN")
    _rewrite(connection)
    connection.execute("ROLLBACK")


def _roll_back_in_part(connection: apsw.Connection, chooser: Random, page_size: int) -> None:
    connection.execute("BEGIN")
    _rewrite(connection)
    connection.execute("SAVEPOINT half")
    _rewrite(connection)
    _insert(connection, chooser, page_size)
    connection.execute("ROLLBACK TO half")
    _rewrite(connection)  # of pages whose frames are in the WAL: they are overwritten there
    connection.execute("COMMIT")


def _shrink(connection: apsw.Connection, chooser: Random, _: int) -> None:
    connection.execute("DELETE FROM rows WHERE id % 3 = ?", (chooser.randrange(3),))
    connection.execute("VACUUM")


def _checkpoint(connection: apsw.Connection, chooser: Random, _: int) -> None:
    mode = chooser.choice(["PASSIVE", "RESTART"])  # after either, the next write begins the WAL anew
    connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()


_STEPS: list[tuple[Step, int]] = [
    (_insert, 6),
    (_change, 4),
    (_roll_back, 4),
    (_roll_back_in_part, 2),
    (_shrink, 1),
    (_checkpoint, 1),
]


def history(page_size: int, seed: int, scratch: Path) -> tuple[bytes, bytes]:
    """The main file and the WAL of a database with some random history, as a crash leaves them."""
    chooser = Random(seed)
    with TemporaryDirectory(dir=scratch) as folder:
        database = Path(folder) / "made.sqlite"
        connection = apsw.Connection(str(database))
        for pragma in (f"page_size={page_size}", "journal_mode=wal", "synchronous=off", "cache_size=3"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("PRAGMA wal_autocheckpoint=0").fetchall()
        connection.execute("CREATE TABLE rows(id INTEGER PRIMARY KEY, body BLOB)")
        connection.create_scalar_function("noise", lambda *length: chooser.randbytes(int(length[0])))
        steps, weights = zip(*_STEPS, strict=True)
        for step in chooser.choices(steps, weights, k=chooser.randint(1, 25)):
            step(connection, chooser, page_size)
        if chooser.random() < 0.3:
            connection.execute("BEGIN")
            _rewrite(connection)
        main, wal = database.read_bytes(), database.with_name("made.sqlite-wal").read_bytes()
        connection.close()
    return main, wal
