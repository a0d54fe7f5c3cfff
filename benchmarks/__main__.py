"""Measure ours and its peers side by side, and keep what was found in `benchmarks/results.json`.

    python -m benchmarks                              everything, in somewhat more than an hour (`make bench`)
    python -m benchmarks --quick                      everything in small, in some minutes (`make bench QUICK=1`)
    python -m benchmarks --only snapshot,status       these; the others' results stay
    python -m benchmarks --only snapshot --sizes 10,100,1000,4000

`python -m benchmarks.page` writes the documentation's page from what is kept. Megabytes are millions of bytes.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine, report, results
from benchmarks.bench import QUICK, Bench, Scale
from benchmarks.rows import Measured

NAMES = ("snapshot", "rotation", "status", "restore", "increment", "moment", "archive", "api", "points")


class Benchmark(NamedTuple):
    """One module of this folder."""

    measure: Callable[[Bench], Measured]
    peers: tuple[str, ...]


def benchmark(name: str) -> Benchmark:
    """Its module is loaded when it is wanted."""
    module = importlib.import_module(f"benchmarks.{name}")
    return Benchmark(module.measure, module.PEERS)


def main() -> int:
    """Measure what is wanted; what fails is told, and the others go on."""
    options = _options()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in NAMES]:
        sys.exit(f"no benchmark is named {', '.join(unknown)}; there are {', '.join(NAMES)}")
    scale = _scale(options)
    failed = []
    with tempfile.TemporaryDirectory(prefix="bench-") as templates:
        for name in names:
            print(f"\n=== {name}", flush=True)
            try:
                with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                    _measure(name, Bench(scale, Path(folder), Path(templates)), _command(name, options))
            except (SystemExit, OSError, subprocess.SubprocessError, AssertionError) as error:
                print(f"{name} FAILED: {error}", file=sys.stderr, flush=True)
                failed.append(name)
            os.sync()  # what was removed must not be a cost of the next one
    if failed:
        print(f"\nnot measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(NAMES), help="which to run, with commas")
    parser.add_argument("--quick", action="store_true", help="small sizes and one round, to see that all works")
    parser.add_argument("--rounds", type=int, help="of each comparison")
    parser.add_argument("--size", type=int, help="of the large database and log, in MB")
    parser.add_argument("--sizes", help="along the curve of snapshots, in MB, with commas")
    return parser.parse_args()


def _scale(options: argparse.Namespace) -> Scale:
    given = {name: getattr(options, name) for name in ("rounds", "size") if getattr(options, name) is not None}
    if options.sizes is not None:
        given["sizes"] = tuple(map(int, options.sizes.split(",")))
    return replace(QUICK if options.quick else Scale(), **given)


def _command(name: str, options: argparse.Namespace) -> str:
    """What repeats one benchmark as it is run now."""
    words = ["python", "-m", "benchmarks", "--only", name]
    words += ["--quick"] if options.quick else []
    for option in ("rounds", "size", "sizes"):
        value = getattr(options, option)
        words += [] if value is None else [f"--{option}", str(value)]
    return " ".join(words)


def _measure(name: str, bench: Bench, command: str) -> None:
    """Run one, print what it found, and keep it."""
    measure, peers = benchmark(name)
    versions, began = machine.versions(peers), time.monotonic()
    measured = measure(bench)
    print(report.text(measured), flush=True)
    run = results.Run(
        f"{datetime.now(UTC):%Y-%m-%d}",
        command,
        bench.scale.quick,
        bench.scale.rounds,
        time.monotonic() - began,
        machine.describe(bench.folder),
        versions,
        measured,
    )
    results.save({**results.load(), name: run}, NAMES)


if __name__ == "__main__":
    sys.exit(main())
