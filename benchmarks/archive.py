"""A site while it is archived: without an archiver, with ours, and with Litestream 0.5.

Each case has a fresh copy of one database, the same load, and processes of its own. Litestream has its defaults
(monitor and sync each second) and a replica in another folder. An archiver's CPU is counted from the first commit until
3 s after the last, and again until all has been merged that is to be (Litestream: each 30 s). At the end each archive
is restored and compared with the live database, table by table.
"""

import compileall
import contextlib
import hashlib
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import portfolio_ops
from benchmarks import meter
from benchmarks.archivers import ELSEWHERE, Archiver, Figures, Litestream, Ours
from benchmarks.bench import Bench, database_of, size_words
from benchmarks.followed import Running, Writer
from benchmarks.rows import Aim, Curve, Figure, Line, Measured, Row
from benchmarks.works import IDLE, LATENCY

PEERS = ("litestream",)
LOAD = "archiver under load"

_SETTLE = 3.0
_NONE, _OURS, _LITESTREAM = "no archiver", "ours", "Litestream"
CASES: dict[str, Callable[[Path], Archiver] | None] = {_NONE: None, _OURS: Ours, _LITESTREAM: Litestream}
_NO_WAKE_UPS = 0.1  # a second: a service's sign of life comes each 20 s

# What is drawn against the rate: key, name, title, what the axis says, and whether it is logarithmic.
_CURVES = (
    ("p50", "commit-p50", "A commit of the site, median", "milliseconds", True),
    ("p99", "commit-p99", "A commit of the site, 99th percentile", "milliseconds", True),
    ("p99.9", "commit-p999", "A commit of the site, 99.9th percentile", "milliseconds", True),
    ("cpu", "archiver-cpu", "The archiver's CPU time, without its compaction", "seconds per 1,000 commits", True),
    ("increments", "archiver-stored", "Increments stored, without compaction", "MB per 1,000 commits", True),
    ("wal", "archiver-wal", "The site's largest WAL", "MB", True),
)

Found = Mapping[float, Mapping[str, list[Figures]]]


def _measured(name: str, bench: Bench, rate: float) -> Figures:
    """One case at one rate, in a folder of its own."""
    make = CASES[name]
    with tempfile.TemporaryDirectory(dir=bench.folder) as each:
        folder = Path(each)
        database = bench.copy(bench.scale.small, database_of(folder))
        with Writer(database, rate, bench.scale.load) as writer:
            if make is None:
                time.sleep(_SETTLE)
                _, figures = writer.load()
                writer.look()
                return figures | {"wal": writer.largest_wal / 1e6}
            archiver = make(folder)
            with Running(archiver, folder) as running:
                running.wait_for(archiver.has_begun)
                running.wait_for(lambda: archiver.is_undisturbed(bench.scale.load + 3 * _SETTLE))
                figures = _followed(writer, archiver, running, bench.scale.idle)
                running.end()
            live = contents(database)
        restored = archiver.restore(folder / "restored")
        if contents(folder / "restored") != live:
            raise SystemExit(f"{name}: what was restored is not what the live database holds")
        return figures | {"restore": restored.seconds, "wal": writer.largest_wal / 1e6}


def _followed(writer: Writer, archiver: Archiver, running: Running, idle: float) -> Figures:
    """The load and the silence after it, while an archiver follows."""
    time.sleep(_SETTLE)
    begun, before = meter.cpu_seconds(running.id), archiver.stored()
    commits, figures = writer.load()
    time.sleep(_SETTLE)
    loaded, increments = meter.cpu_seconds(running.id), archiver.stored()["increments"] - before["increments"]
    running.wait_for(archiver.has_merged)
    time.sleep(_SETTLE)
    merged, stored = meter.cpu_seconds(running.id), archiver.stored()
    thousands = commits / 1000
    figures |= {
        "cpu": (loaded - begun) / thousands,
        "cpu-merged": (merged - begun) / thousands,
        "increments": increments / 1e6 / thousands,
        "stored": sum(stored[kind] - before.get(kind, 0) for kind in stored if kind != ELSEWHERE) / 1e6 / thousands,
    }
    switches, began = meter.switches(running.id), time.monotonic()
    time.sleep(idle)
    seconds = time.monotonic() - began
    figures["idle-switches"] = (meter.switches(running.id) - switches) / seconds
    figures["idle-cpu"] = (meter.cpu_seconds(running.id) - merged) / seconds * 100
    writer.look()
    anonymous, of_files = meter.resident_bytes(running.id)
    return figures | {
        "anonymous": anonymous / 1e6,
        "resident": (anonymous + of_files) / 1e6,
        "peak": meter.peak_bytes(running.id) / 1e6,
    }


def contents(database: Path) -> dict[str, str]:
    """For each of the site's tables a hash of all that it holds."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        names = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_litestream%' ESCAPE '\\'"
        )
        found = {}
        for (name,) in names.fetchall():
            digest = hashlib.sha256()
            for row in connection.execute(f"SELECT * FROM {name}"):
                digest.update(repr(row).encode())
            found[name] = digest.hexdigest()
        return found


def measure(bench: Bench) -> Measured:
    """Each case at each rate."""
    # As an installed package has it: else each of our processes would compile itself, and keep the memory of that.
    compileall.compile_dir(Path(portfolio_ops.__file__).parent, quiet=1)
    found: dict[float, dict[str, list[Figures]]] = {}
    for rate in bench.scale.rates:
        found[rate] = bench.rounds({name: _at(name, bench, rate) for name in CASES})
    highest = max(found)
    rows = [row for rate in found for row in (*_latencies(found, rate), *_stored(found, rate))]
    return Measured((*rows, *_idle(found), *_load(bench, found, highest)), _curves(bench, found))


def _at(name: str, bench: Bench, rate: float) -> Callable[[], Figures]:
    return lambda: _measured(name, bench, rate)


def _figure(found: Found, rate: float, who: str, key: str) -> Figure:
    return Figure.of(who, [each[key] for each in found[rate][who]])


def _latencies(found: Found, rate: float) -> list[Row]:
    at = f"{rate:,.0f} commits/s"
    rows = [
        Row(
            LATENCY,
            f"{percentile}, {at}",
            "ms",
            _figure(found, rate, _OURS, percentile),
            _figure(found, rate, _LITESTREAM, percentile),
            Aim("below Litestream's", 1.0, below=True),
        )
        for percentile in ("p50", "p99", "p99.9")
    ]
    ours, none = (_figure(found, rate, who, "p99") for who in (_OURS, _NONE))
    return [*rows, Row(LATENCY, f"p99, {at}", "ms", ours, none, Aim("below that without one", 1.0, below=True))]


def _stored(found: Found, rate: float) -> list[Row]:
    at = f"stored for 1,000 commits at {rate:,.0f} a second"

    def row(measured: str, key: str, note: str) -> Row:
        ours, theirs = (_figure(found, rate, who, key) for who in (_OURS, _LITESTREAM))
        return Row(LOAD, f"{measured}, {at}", "MB", ours, theirs, Aim("≤ 0.6 of its bytes", 0.6), note)

    return [
        row("in all", "stored", "Litestream: level 0, of the last 5 min, and level 1, which has the same for longer."),
        row("increments", "increments", "Litestream: level 0 alone."),
    ]


def _idle(found: Found) -> list[Row]:
    """Of all rates together: the silence is the same after each."""

    def row(measured: str, unit: str, key: str, aim: Aim | None) -> Row:
        ours, theirs = (
            Figure.of(who, [each[key] for cases in found.values() for each in cases[who]])
            for who in (_OURS, _LITESTREAM)
        )
        return Row(IDLE, measured, unit, ours, theirs, aim)

    return [
        row(
            "context switches a second",
            "/s",
            "idle-switches",
            Aim("0, that is below 0.1", _NO_WAKE_UPS, ratio=False, below=True),
        ),
        row("CPU", "%", "idle-cpu", Aim("less", 1.0, below=True)),
        row("resident memory", "MB", "resident", Aim("less", 1.0, below=True)),
        row("memory of its own (anonymous)", "MB", "anonymous", None),
    ]


def _load(bench: Bench, found: Found, rate: float) -> list[Row]:
    at = f"{rate:,.0f} commits/s, {size_words(bench.scale.small)}"

    def row(measured: str, unit: str, key: str, note: str = "") -> Row:
        ours, theirs = (_figure(found, rate, who, key) for who in (_OURS, _LITESTREAM))
        return Row(LOAD, f"{measured}, {at}", unit, ours, theirs, note=note)

    return [
        row("CPU per 1,000 commits", "s", "cpu-merged", "With Litestream's compaction of these commits to level 1."),
        row("peak memory", "MB", "peak", "Of the daemon, since it began."),
        row("restore of the last moment, before checks", "s", "restore"),
    ]


def _curves(bench: Bench, found: Found) -> tuple[Curve, ...]:
    def lines(key: str) -> tuple[Line, ...]:
        return tuple(
            Line.of(who, {rate: [each[key] for each in cases[who]] for rate, cases in found.items()})
            for who in (_OURS, _LITESTREAM, _NONE)
            if all(key in each for cases in found.values() for each in cases[who])
        )

    x = f"commits a second, on a database of {size_words(bench.scale.small)}"
    return tuple(Curve(name, title, x, y, lines(key), log_y) for key, name, title, y, log_y in _CURVES)
