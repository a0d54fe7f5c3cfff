"""Restores side by side: ours before its checks, ours with them, and `zstd -d` (the limit).

    python -m benchmarks.restore --size 1000 --rounds 3

Runs alternate (A B C A B C), whole processes, medians. Needs zstd.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.data import make_database
from benchmarks.snapshot import timed

BACK_UP = """
import sys
from datetime import timedelta
from pathlib import Path
from portfolio_ops import config
from portfolio_ops.jobs.daily import backup_daily
backup_daily(config.load(Path(sys.argv[1])), wait=timedelta())
"""
RESTORE = """
import sys
from pathlib import Path
from portfolio_ops.host.journal import Log
from portfolio_ops.restore.stage import decode_to, stage_database
from portfolio_ops.store.artifact import read_artifact
{function}(read_artifact(Path(sys.argv[1])), Path(sys.argv[2]), Log(site="bench", job="restore"))
"""


def ours(function: str) -> Callable[[Path, Path], tuple[float, int]]:
    """One of our functions in a process of its own."""
    return lambda artifact, target: timed([sys.executable, "-c", RESTORE.format(function=function), artifact, target])


def limit(artifact: Path, target: Path) -> tuple[float, int]:
    """The plain program; it makes nothing durable."""
    return timed(["zstd", "-q", "-d", artifact, "-o", target])


def main() -> None:
    """Print a table of medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1000, help="database size in MB")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    runs = {"zstd -d": limit, "decoded": ours("decode_to"), "decoded+checked": ours("stage_database")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "site/data").mkdir(parents=True)
        make_database(folder / "site/data/portfolio.sqlite", options.size * 1_000_000)
        (folder / "bench.toml").write_text(f'[site]\nroot = "{folder / "site"}"\n')
        timed([sys.executable, "-c", BACK_UP, folder / "bench.toml"])
        [artifact] = (folder / "site/backups/daily").iterdir()
        figures: dict[str, list[tuple[float, int]]] = {each: [] for each in runs}
        for _ in range(options.rounds):
            for each, run in runs.items():
                os.sync()
                figures[each].append(run(artifact, folder / "restored"))
                (folder / "restored").unlink()
    base = statistics.median(row[0] for row in figures["zstd -d"])
    print(f"{options.size} MB, {options.rounds} rounds, {os.cpu_count()} cores")
    for each, rows in figures.items():
        seconds = [row[0] for row in rows]
        middle = statistics.median(seconds)
        print(
            f"{each:16} median {middle:7.2f} s (min {min(seconds):.2f}, max {max(seconds):.2f})  "
            f"this/zstd {middle / base:5.2f}  peak memory {max(row[1] for row in rows) / 1e6:6.0f} MB"
        )


if __name__ == "__main__":
    main()
