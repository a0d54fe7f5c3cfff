"""Full snapshots: ours, `sqlite3 .backup` + gzip, and `zstd -3 -T0` of the idle file, which is the limit.

The page cache is warm for all. Ours is timed until the artifact is complete under its temporary name; what
`backup daily` does beyond that (it is read back, hashed and checked) is a row of its own.
"""

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import TOOL, Bench, Timing, configured, database_of, megabytes, size_words, timed
from benchmarks.machine import program
from benchmarks.rows import Aim, Curve, Figure, Line, Measured, Row
from benchmarks.works import SNAPSHOT

PEERS = ("sqlite3", "gzip", "zstd")

_OURS = """
import sys
from pathlib import Path
from portfolio_ops.sqlite.snapshot import snapshot
from portfolio_ops.store.publish import Draft
folder = Path(sys.argv[2])
with Draft(folder) as draft, snapshot(Path(sys.argv[1]), folder) as image:
    draft.write(image.chunks(), size=image.bytes)
    print(draft.path.stat().st_size)
"""
_WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("PRAGMA synchronous=NORMAL")
[rows] = connection.execute("SELECT max(id) FROM comments").fetchone()
rate, start, count = float(sys.argv[2]), time.monotonic(), 0
while True:
    connection.execute("UPDATE comments SET at = at + 1 WHERE id = ?", (count * 7919 % rows,))
    count += 1
    pause = start + count / rate - time.monotonic()
    if pause > 0:
        time.sleep(pause)
"""
_GZIP, _ZSTD = "sqlite3 .backup + gzip", "zstd -3 -T0"
_LOADS = {"at 50 commits/s": "50", "at 500 commits/s": "500", "while a writer commits without pause": "inf"}
_MOST_MEMORY = 128.0  # MB


@dataclass(frozen=True)
class _Snapshot:
    """Seconds, peak memory in MB, and what lies on the disk then, in MB."""

    seconds: float
    memory: float
    stored: float


def _ours(database: Path) -> _Snapshot:
    timing = timed([sys.executable, "-c", _OURS, database, database.parent])
    return _Snapshot(timing.seconds, timing.megabytes, int(timing.said) / 1e6)


def _limit(database: Path) -> _Snapshot:
    target = database.with_name("limit.zst")
    timing = timed([program("zstd"), "-q", "-3", "-T0", "-f", database, "-o", target])
    return _Snapshot(timing.seconds, timing.megabytes, _taken(target))


def _shell(database: Path) -> _Snapshot:
    target = database.with_name("shell.sqlite")
    parts = [timed([program("sqlite3"), database, f".backup '{target}'"]), timed([program("gzip"), "-f", target])]
    stored = _taken(target.with_name("shell.sqlite.gz"))
    return _Snapshot(sum(part.seconds for part in parts), max(part.megabytes for part in parts), stored)


def _taken(path: Path) -> float:
    """Its size; it goes."""
    size = megabytes(path)
    path.unlink()
    return size


@contextlib.contextmanager
def _busy(database: Path, rate: str) -> Iterator[None]:
    """While the block runs, a process commits; then the WAL is emptied."""
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, database, rate])
    try:
        time.sleep(0.5)
        yield
    finally:
        writer.kill()
        writer.wait()
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _loaded(database: Path, rate: str) -> _Snapshot:
    with _busy(database, rate):
        return _ours(database)


def _job(config: Path) -> Timing:
    timing = timed([TOOL, "--config", config, "backup", "daily"])
    [artifact] = (config.parent / "site/backups/daily").glob("*.zst")
    artifact.unlink()
    return timing


def measure(bench: Bench) -> Measured:
    """Rows at the large size, and how time and memory grow with it."""
    found: dict[int, dict[str, list[_Snapshot]]] = {}
    contenders = {"ours": _ours, _ZSTD: _limit, _GZIP: _shell}
    for size in sorted({*bench.scale.sizes, bench.scale.size}):
        database = bench.copy(size, bench.folder / f"snapshot-{size}/portfolio.sqlite")
        found[size] = bench.rounds({who: _with(take, database) for who, take in contenders.items()})
        database.unlink()
    folder = bench.folder / "snapshot"
    config, database = configured(folder), bench.copy(bench.scale.size, database_of(folder))
    loaded = bench.rounds(
        {"idle": lambda: _ours(database)} | {words: _with(_loaded, database, rate) for words, rate in _LOADS.items()}
    )
    jobs = bench.rounds({"ours": lambda: _job(config)})["ours"]
    database.unlink()
    rows = (*_rows(bench, found), *_load_rows(bench, loaded), _job_row(bench, jobs, found[bench.scale.size][_GZIP]))
    return Measured(rows, _curves(found))


def _with(take: Callable[..., _Snapshot], *arguments: Path | str) -> Callable[[], _Snapshot]:
    return lambda: take(*arguments)


def _figure(who: str, found: list[_Snapshot], what: str = "seconds") -> Figure:
    return Figure.of(who, [getattr(each, what) for each in found])


def _rows(bench: Bench, all_sizes: dict[int, dict[str, list[_Snapshot]]]) -> list[Row]:
    found, of = all_sizes[bench.scale.size], f"of {size_words(bench.scale.size)}"
    ours, gzip, zstd = (found[who] for who in ("ours", _GZIP, _ZSTD))
    sizes = [size_words(size) for size in all_sizes]

    def memory(who: str) -> Figure:
        """Of each round the most, at whatever size."""
        rounds = zip(*(by[who] for by in all_sizes.values()), strict=True)
        return Figure.of(who, [max(each.memory for each in one) for one in rounds])

    return [
        Row(SNAPSHOT, f"time {of}", "s", _figure("ours", ours), _figure(_GZIP, gzip), Aim("≤ 1/9 of its time", 1 / 9)),
        Row(
            SNAPSHOT,
            f"stored {of}",
            "MB",
            _figure("ours", ours, "stored"),
            _figure(_GZIP, gzip, "stored"),
            Aim("smaller", 1.0, below=True),
        ),
        Row(
            SNAPSHOT, f"time {of}", "s", _figure("ours", ours), _figure(_ZSTD, zstd), Aim("≤ 1.15 times its time", 1.15)
        ),
        Row(
            SNAPSHOT,
            f"peak memory, the most of {sizes[0]} to {sizes[-1]}",
            "MB",
            memory("ours"),
            memory(_ZSTD),
            Aim("≤ 128 MB at any size", _MOST_MEMORY, ratio=False, worst=True),
        ),
    ]


def _load_rows(bench: Bench, loaded: dict[str, list[_Snapshot]]) -> list[Row]:
    idle, aim = _figure("ours, idle", loaded["idle"]), Aim("≤ 1.3 times idle", 1.3)
    of = f"time of {size_words(bench.scale.size)}"
    return [Row(SNAPSHOT, f"{of} {words}", "s", _figure("ours", loaded[words]), idle, aim) for words in _LOADS]


def _job_row(bench: Bench, jobs: list[Timing], gzip: list[_Snapshot]) -> Row:
    return Row(
        SNAPSHOT,
        f"time of `backup daily` of {size_words(bench.scale.size)}, with all its checks",
        "s",
        Figure.of("ours", [job.seconds for job in jobs]),
        _figure(f"{_GZIP}, unchecked", gzip),
        note="Read back from the disk, hashed, integrity and foreign keys checked, published.",
    )


def _curves(found: dict[int, dict[str, list[_Snapshot]]]) -> tuple[Curve, ...]:
    def lines(what: str) -> tuple[Line, ...]:
        return tuple(
            Line.of(who, {size: [getattr(each, what) for each in by[who]] for size, by in found.items()})
            for who in ("ours", _ZSTD, _GZIP)
        )

    x = "size of the database, MB"
    return (
        Curve("snapshot-time", "Time of a full snapshot", x, "seconds", lines("seconds")),
        Curve("snapshot-memory", "Peak memory of a full snapshot", x, "MB", lines("memory"), log_y=False),
    )
