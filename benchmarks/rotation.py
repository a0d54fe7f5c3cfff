"""Rotation of a large log under load: ours, and logrotate with `copytruncate` and `compress`, which is gzip.

A writer appends a line every 200 microseconds and keeps its longest write. It has its log open with O_APPEND and does
not reopen it, as a backend in a container. On ext4 made on a loop device if this is root, else in the temporary folder.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import TOOL, Bench, Command, configured, size_words
from benchmarks.machine import program
from benchmarks.rows import Aim, Figure, Measured, Row
from benchmarks.works import ROTATION

PEERS = ("logrotate", "gzip")

_WRITER = """
import json, os, signal, sys, time
log, going, count, longest = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND), True, 0, 0.0
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
while going:
    line = b"%012d GET /gallery/winter-light HTTP/1.1 200 5120\\n" % count
    before = time.perf_counter()
    os.write(log, line)
    longest = max(longest, time.perf_counter() - before)
    count += 1
    time.sleep(0.0002)
print(json.dumps({"lines": count, "longest": longest}))
"""


@contextmanager
def ext4(folder: Path, megabytes: int) -> Iterator[Path]:
    """A filesystem of its own, so that both work on the same."""
    if os.geteuid() != 0:
        yield folder
        return
    image, target = folder / "image", folder / "ext4"
    target.mkdir()
    subprocess.run(["truncate", "-s", f"{megabytes}M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


def make_log(path: Path, size: int) -> None:
    """Lines as a backend writes them, `size` bytes of them."""
    lines = b"".join(
        b"2026-11-%02dT%02d:%02d:%02d.%03dZ GET /api/galleries/%d/images/%d 200 %d bytes from 10.0.%d.%d in %d ms\n"
        % (n % 28 + 1, n % 24, n % 60, n * 7 % 60, n % 1000, n % 97, n, n * 31 % 90000, n % 256, n % 199, n % 250)
        for n in range(100_000)
    )
    with path.open("wb") as file:
        for _ in range(size // len(lines) + 1):
            file.write(lines)
        file.flush()
        os.fsync(file.fileno())


@dataclass(frozen=True)
class _Rotation:
    """Seconds, the writer's longest write in milliseconds, and how many of its lines are gone."""

    seconds: float
    stall: float
    lost: int


def _rotated(command: Command, log: Path) -> tuple[float, float, int]:
    """Wall seconds of a rotation under load, the writer's longest write, and how many lines it wrote."""
    with subprocess.Popen([sys.executable, "-c", _WRITER, log], stdout=subprocess.PIPE) as writer:
        time.sleep(0.5)
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.monotonic() - began
        time.sleep(0.2)
        writer.send_signal(signal.SIGTERM)
        report = json.loads(writer.communicate()[0])
    return seconds, float(report["longest"]), int(report["lines"])


def _count(data: Iterable[bytes]) -> int:
    return sum(line[12:] == b" GET /gallery/winter-light HTTP/1.1 200 5120\n" for line in data)


def _lines_of(command: Command) -> int:
    """How many of the writer's lines a command prints, whole."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        return _count(reader.stdout)


def _ours(config: Path, log: Path, size: int) -> _Rotation:
    make_log(log, size)
    seconds, longest, lines = _rotated([TOOL, "--config", config, "logs", "rotate"], log)
    # The live file keeps less than a block of what is archived; `logs show` counts each byte once.
    kept = _lines_of([TOOL, "--config", config, "logs", "show"])
    [archive] = (log.parents[1] / "backups/logs-archive").glob("*.zst")
    archive.unlink()
    log.unlink()
    return _Rotation(seconds, longest * 1000, lines - kept)


def _logrotate(config: Path, log: Path, size: int) -> _Rotation:
    settings = config.with_name("logrotate.conf")
    settings.write_text(f"{log} {{\n copytruncate\n compress\n rotate 7\n}}\n")
    settings.chmod(0o644)
    make_log(log, size)
    command: Command = [program("logrotate"), "--force", "--state", config.with_name("logrotate.state"), settings]
    seconds, longest, lines = _rotated(command, log)
    archive = log.with_name(f"{log.name}.1.gz")
    kept = _lines_of([program("gzip"), "-dc", archive])
    with log.open("rb") as live:
        kept += _count(live)
    archive.unlink()
    log.unlink()
    return _Rotation(seconds, longest * 1000, lines - kept)


def measure(bench: Bench) -> Measured:
    """Time, the writer's longest wait, and the lines that were lost."""
    size = bench.scale.size
    folder = bench.folder / "rotation"
    folder.mkdir()
    with ext4(folder, 3 * size + 500) as disk:
        config = configured(disk)
        log = disk / "site/logs/backend.log"
        found = bench.rounds(
            {
                "ours": lambda: _ours(config, log, size * 1_000_000),
                "logrotate + gzip": lambda: _logrotate(config, log, size * 1_000_000),
            }
        )

    def row(measured: str, unit: str, what: str, aim: Aim) -> Row:
        ours, theirs = (Figure.of(who, [getattr(each, what) for each in rounds]) for who, rounds in found.items())
        return Row(ROTATION, measured, unit, ours, theirs, aim)

    return Measured(
        (
            row(f"time for {size_words(size)}", "s", "seconds", Aim("≤ 1/4 of its time", 1 / 4)),
            row("lines lost, of 5,000 a second at most", "lines", "lost", Aim("0", 0, ratio=False, worst=True)),
            row("the writer's longest write", "ms", "stall", Aim("< 10 ms", 10, ratio=False, below=True, worst=True)),
        )
    )
