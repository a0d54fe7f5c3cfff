"""Full snapshots side by side: ours, `sqlite3 .backup` + gzip, and `zstd -3 -T0` of the idle file (the limit).

    python -m benchmarks.snapshot --size 1000 --rounds 3

Runs alternate (A B C A B C), whole processes, medians; the page cache is warm for all. Needs sqlite3, gzip and zstd.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.data import make_database

OURS = """
import sys
from pathlib import Path
from portfolio_ops.sqlite.snapshot import snapshot
from portfolio_ops.store.publish import Draft
folder = Path(sys.argv[2])
with Draft(folder) as draft, snapshot(Path(sys.argv[1]), folder) as image:
    draft.write(image.chunks(), size=image.bytes)
    print(draft.path.stat().st_size)
"""

WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("PRAGMA synchronous=NORMAL")
rate, start, count, worst = float(sys.argv[2]), time.monotonic(), 0, 0.0
while True:
    before = time.monotonic()
    connection.execute("UPDATE comments SET at = at + 1 WHERE id = ?", (count * 7919 % 200000,))
    count += 1
    pause = start + count / rate - time.monotonic()
    if pause > 0:
        time.sleep(pause)
"""


def timed(command: Sequence[str | Path]) -> tuple[float, int]:
    """Wall seconds, and peak memory in bytes of the process."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed with {process.returncode}")
    return time.monotonic() - began, usage.ru_maxrss * 1024


def ours(database: Path, folder: Path) -> tuple[float, int]:
    return timed([sys.executable, "-c", OURS, database, folder])


def limit(database: Path, folder: Path) -> tuple[float, int]:
    return timed(["zstd", "-q", "-3", "-T0", "-f", database, "-o", folder / "limit.zst"])


def shell(database: Path, folder: Path) -> tuple[float, int]:
    target = folder / "shell.sqlite"
    copied = timed(["sqlite3", database, f".backup '{target}'"])
    packed = timed(["gzip", "-f", target])
    return copied[0] + packed[0], max(copied[1], packed[1])


def loaded(database: Path, folder: Path) -> tuple[float, int]:
    """Ours while a writer commits 500 times a second."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, database, "500"])
    try:
        time.sleep(0.5)
        return ours(database, folder)
    finally:
        writer.kill()
        writer.wait()


def main() -> None:
    """Print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1000, help="database size in MB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="ours,zstd,backup+gzip,ours at 500/s", help="which to run, with commas")
    options = parser.parse_args()
    runs = {"ours": ours, "zstd": limit, "backup+gzip": shell, "ours at 500/s": loaded}
    chosen = {name: runs[name] for name in options.only.split(",")}
    with tempfile.TemporaryDirectory() as name:
        folder, database = Path(name), Path(name) / "portfolio.sqlite"
        make_database(database, options.size * 1_000_000)
        print(f"database {database.stat().st_size:,} bytes, {options.rounds} rounds, {os.cpu_count()} cores")
        figures: dict[str, list[tuple[float, int]]] = {each: [] for each in chosen}
        for _ in range(options.rounds):
            for each, run in chosen.items():
                figures[each].append(run(database, folder))
    base = statistics.median(figures["ours"][number][0] for number in range(options.rounds))
    for each, rows in figures.items():
        seconds = [row[0] for row in rows]
        middle = statistics.median(seconds)
        print(
            f"{each:16} median {middle:7.2f} s (min {min(seconds):.2f}, max {max(seconds):.2f})  "
            f"ours/this {base / middle:5.2f}  peak memory {max(row[1] for row in rows) / 1e6:6.0f} MB"
        )


if __name__ == "__main__":
    main()
