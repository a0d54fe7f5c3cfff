"""Restores of a whole backup: ours before its checks, ours with them, and `zstd -d`, which is the limit.

`zstd -d` makes nothing durable; ours does.
"""

import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.archivers import Restored, staged
from benchmarks.bench import TOOL, Bench, configured, database_of, run, size_words, timed
from benchmarks.machine import program
from benchmarks.rows import Figure, Measured, Row

PEERS = ("zstd",)
WORK = "restore of a whole backup"


def decompressed(artifact: Path, target: Path) -> Restored:
    """What the plain program takes."""
    return Restored(timed([program("zstd"), "-q", "-d", artifact, "-o", target]).seconds, 0.0)


def fresh(restore: Callable[[Path], Restored], target: Path) -> Restored:
    """A restore to a new file, which goes."""
    os.sync()
    found = restore(target)
    target.unlink()
    return found


def measure(bench: Bench) -> Measured:
    """A backup of the large size."""
    folder = bench.folder / "restore"
    config = configured(folder)
    bench.copy(bench.scale.size, database_of(folder))
    run([TOOL, "--config", config, "backup", "daily"])
    [artifact] = (folder / "site/backups/daily").glob("*.zst")
    target = folder / "restored"
    found = bench.rounds(
        {
            "ours": lambda: fresh(lambda path: staged(config, path), target),
            "zstd -d": lambda: fresh(lambda path: decompressed(artifact, path), target),
        }
    )
    database_of(folder).unlink()
    limit = Figure.of("zstd -d", [each.seconds for each in found["zstd -d"]])
    before = Figure.of("ours", [each.seconds for each in found["ours"]])
    checked = Figure.of("ours", [each.seconds + each.checks for each in found["ours"]])
    of = f"time of {size_words(bench.scale.size)}"
    return Measured(
        (
            Row(WORK, f"{of}, before the database's checks", "s", before, limit),
            Row(WORK, f"{of}, with integrity and foreign keys checked", "s", checked, limit),
        )
    )
