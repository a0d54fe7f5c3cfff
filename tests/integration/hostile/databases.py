"""Databases that are none, or that were made to lead whoever opens them astray."""

import os
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

from tests.integration.hostile.attacks import DATABASE, TERABYTE
from tests.integration.hostile.harness import OWNER, Ground

_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT"


def _patched(*changes: tuple[int, bytes]) -> Callable[[Ground, Path], None]:
    """Bytes of the file overwritten: mostly of its header (fileformat2.html, section 1.3)."""

    def put(_: Ground, path: Path) -> None:
        with path.open("r+b") as file:
            for at, data in changes:
                file.seek(at)
                file.write(data)

    return put


def _noise(_: Ground, path: Path) -> None:
    head = path.read_bytes()[:100]
    path.write_bytes(head + os.urandom(200_000))


def _freelist_loop(_: Ground, path: Path) -> None:
    """The freelist's first trunk names itself as the next, and as all of its leaves."""
    data = bytearray(path.read_bytes())
    trunk = len(data) // 4096
    data[32:40] = struct.pack(">II", trunk, 1 << 30)
    data[(trunk - 1) * 4096 :] = struct.pack(">II", trunk, 1022) + struct.pack(">I", trunk) * 1022
    path.write_bytes(data)


def _tree_loop(_: Ground, path: Path) -> None:
    """A table whose root is an inner page, that is its own child."""
    with sqlite3.connect(path) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name='comments'").fetchone()[0]
    connection.close()
    page = bytearray(4096)
    page[:12] = struct.pack(">BHHHBI", 5, 0, 1, 4090, 0, root)
    page[12:14] = struct.pack(">H", 4090)
    page[4090:4096] = struct.pack(">IB", root, 5).ljust(6, b"\0")
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(page)


def _schema(*statements: str) -> Callable[[Ground, Path], None]:
    """What its own user may do to it by SQL; `{outside}` and `{root}` are the folders."""

    def put(ground: Ground, path: Path) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA writable_schema=ON")
        for statement in statements:
            connection.execute(statement.replace("{outside}", str(ground.outside)).replace("{root}", str(ground.root)))
        connection.close()

    return put


def _behind(kind: str, name: str, sql: str) -> Callable[[Ground, Path], None]:
    """More statements behind a definition in the schema: whoever runs that text runs them too."""
    quoted = sql.replace("'", "''")
    return _schema(f"UPDATE sqlite_schema SET sql = sql || '; {quoted}' WHERE type = '{kind}' AND name = '{name}'")


def _journal(named: Callable[[Ground], Path] | None, *, page: int = 4096, records: int = 0, pages: int = 0) -> Callable:  # type: ignore[type-arg]
    """A hot journal that names a file as its super-journal: SQLite reads that, and deletes it (atomiccommit.html)."""

    def put(ground: Ground, path: Path) -> None:
        size = pages or path.stat().st_size // 4096
        data = (_JOURNAL_MAGIC + struct.pack(">IIIII", records, 0, size, 512, page)).ljust(512, b"\0")
        if named is not None:
            name = os.fsencode(named(ground))
            data += struct.pack(">I", (1 << 30) // 4096 + 1) + name
            data += struct.pack(">II", len(name), sum(name)) + _JOURNAL_MAGIC
        path.with_name(f"{path.name}-journal").write_bytes(data)

    return put


def _daily(ground: Ground) -> Path:
    return next((ground.root / "backups/daily").glob("*.zst"))


def _super(make: Callable[[Path], object]) -> Callable[[Ground, Path], None]:
    """A super-journal of the right name beside the database, which is no file."""

    def put(ground: Ground, path: Path) -> None:
        name = path.with_name(f"{path.name}-mj01234597C")
        make(name)
        _journal(lambda _: name)(ground, path)

    return put


def _terabyte(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(TERABYTE)


def _index(frames: int, pages: int, salts: bytes = bytes(8)) -> Callable[[Ground, Path], None]:
    """A wal-index with a checksum that is right, and numbers that are not (walformat.html, section 2)."""

    def put(_: Ground, path: Path) -> None:
        head = struct.pack("=IIIBBHII8s8s", 3007000, 0, 1, 1, 0, 4096, frames, pages, bytes(8), salts)
        s0 = s1 = 0
        for first, second in struct.iter_unpack("=II", head):
            s0 = (s0 + first + s1) & 0xFFFFFFFF
            s1 = (s1 + second + s0) & 0xFFFFFFFF
        copy = head + struct.pack("=II", s0, s1)
        path.with_name(f"{path.name}-shm").write_bytes((copy * 2).ljust(32768, b"\0"))
        with path.with_name(f"{path.name}-wal").open("r+b") as file:
            file.truncate(TERABYTE if frames > 1 << 20 else 1 << 20)

    return put


WAL: dict[str, Callable[[Ground, Path], None]] = {
    "pages without end in the index": _index(1, 0xFFFFFFFF),
    "frames without end in the index": _index(0xFFFFFFF0, 100),
    "both": _index(0xFFFFFFF0, 0xFFFFFFFF),
    "none of the frames": _index(200, 10, b"saltsalt"),
}
"""With the WAL of a killed site."""

PLAIN: dict[str, Callable[[Ground, Path], None]] = {
    "noise": _noise,
    "page size 0": _patched((16, b"\0\0")),
    "page size 3": _patched((16, b"\0\3")),
    "page size 65536": _patched((16, b"\0\1")),
    "a header that says WAL": _patched((18, b"\2\2")),
    "a header of the future": _patched((18, b"\x09\x09")),
    "more pages than there are": _patched((28, b"\x7f\xff\xff\xff")),
    "a first page of noise": _patched((100, os.urandom(3996))),
    "a freelist that is a loop": _freelist_loop,
    "a tree that is a loop": _tree_loop,
    "a header alone": lambda _, path: os.truncate(path, 100),
    "half of it": lambda _, path: os.truncate(path, path.stat().st_size // 2 + 11),
    "an endless view": _schema(
        "DROP TABLE comments", f"CREATE VIEW comments AS {_ENDLESS} x AS id, x AS image, 'x' AS body FROM c"
    ),
    "an endless trigger": _schema(
        f"CREATE TRIGGER t BEFORE INSERT ON comments BEGIN {_ENDLESS} count(*) FROM c; END".replace(
            _ENDLESS, "INSERT INTO likes " + _ENDLESS
        ).replace("count(*)", "x, 'v'")
    ),
    "a virtual table": _schema("DROP TABLE comments", "CREATE VIRTUAL TABLE comments USING fts5(body)"),
    "a generated column": _schema(
        "DROP TABLE comments",
        "CREATE TABLE comments(id INTEGER PRIMARY KEY, image INTEGER, body TEXT AS (hex(zeroblob(100000000))))",
        "INSERT INTO comments(image) VALUES(1), (2), (3)",
    ),
    "a huge blob": _schema("INSERT INTO comments(image, body) VALUES(1, zeroblob(20000000))"),
    "a name that is a path": _schema(
        'CREATE TABLE "../../../tmp/x; ATTACH"(y)', 'INSERT INTO "../../../tmp/x; ATTACH" VALUES(1)'
    ),
    "a schema of two thousand tables": _schema(
        "BEGIN", *[f"CREATE TABLE t{number}(x)" for number in range(2000)], "COMMIT"
    ),
    "statements behind a table": _behind(
        "table",
        "comments",
        "ATTACH '{outside}/theirs/portfolio.sqlite' AS s; ATTACH '{root}/backups/leak.sqlite' AS l; "
        "CREATE TABLE l.x AS SELECT * FROM s.comments; DELETE FROM s.comments",
    ),
    "statements behind an index": _behind(
        "index", "comments_image", "ATTACH '{outside}/theirs/portfolio.sqlite' AS s; DELETE FROM s.comments"
    ),
    "a journal": _journal(None),
    "a journal of no page size": _journal(None, page=0),
    "a journal without end": _journal(None, records=0xFFFFFFFF, pages=0xFFFFFFFF),
    "a journal that names a backup": _journal(_daily),
    "a journal that names a secret": _journal(lambda ground: ground.outside / "theirs/backend.log"),
    "a journal that names a folder": _journal(lambda ground: ground.outside / "theirs"),
    "a journal that names a FIFO": _super(os.mkfifo),
    "a journal that names a terabyte": _super(_terabyte),
    "a journal that names a link": _super(lambda path: path.symlink_to("../../outside/theirs/backend.log")),
}
"""Without a WAL."""


def spoil(ground: Ground, name: str) -> None:
    """Do one of these to the site's database."""
    path = ground.root / DATABASE
    if name in WAL:
        ground.lay_out()
        WAL[name](ground, path)
    else:
        ground.lay_out("delete")
        PLAIN[name](ground, path)
    for each in path.parent.iterdir():
        os.chown(each, OWNER, OWNER, follow_symlinks=False)
