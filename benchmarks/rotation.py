"""Rotation of a large log under load, side by side: ours, and copytruncate with gzip, as logrotate does it.

    python -m benchmarks.rotation --size 1000 --rounds 3

A writer appends a line every 200 microseconds and keeps its longest write. Runs alternate, whole processes, medians.
On ext4 made on a loop device if this is root, else in the temporary folder. Needs gzip.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

WRITER = """
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

TRUNCATE = """
import os, shutil, subprocess, sys
log, copy = sys.argv[1], sys.argv[2]
shutil.copyfile(log, copy)
os.truncate(log, 0)
subprocess.run(["gzip", copy], check=True)
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


def rotated(command: list[str | Path], log: Path) -> tuple[float, float, int]:
    """Wall seconds of a rotation under load, the writer's longest write, and how many lines it wrote."""
    with subprocess.Popen([sys.executable, "-c", WRITER, log], stdout=subprocess.PIPE) as writer:
        time.sleep(0.5)
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        time.sleep(0.2)
        writer.send_signal(signal.SIGTERM)
        report = json.loads(writer.communicate()[0])
    return seconds, float(report["longest"]), int(report["lines"])


def count_lines(data: Iterable[bytes]) -> int:
    return sum(chunk.count(b"GET /gallery/winter-light") for chunk in data)


def lines_of(command: list[str | Path]) -> int:
    """How many of the writer's lines a command prints."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        return count_lines(reader.stdout)


def ours(root: Path, config: Path, size: int) -> tuple[float, float, int]:
    log = root / "logs/backend.log"
    make_log(log, size)
    tool = Path(sys.executable).with_name("portfolio-ops")
    seconds, longest, lines = rotated([tool, "--config", config, "logs", "rotate"], log)
    # The live file keeps less than a block of what is archived; `logs show` counts each byte once.
    kept = lines_of([tool, "--config", config, "logs", "show"])
    [archive] = (root / "backups/logs-archive").glob("*.zst")
    archive.unlink()
    log.unlink()
    return seconds, longest, lines - kept


def shell(root: Path, _: Path, size: int) -> tuple[float, float, int]:
    log, copy = root / "logs/backend.log", root / "copy.log"
    make_log(log, size)
    seconds, longest, lines = rotated([sys.executable, "-c", TRUNCATE, log, copy], log)
    archive = Path(f"{copy}.gz")
    kept = lines_of(["gzip", "-dc", archive]) + count_lines([log.read_bytes()])
    archive.unlink()
    log.unlink()
    return seconds, longest, lines - kept


def main() -> None:
    """Print medians, ratios, the writer's longest wait and the lines that were lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1000, help="log size in MB")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    runs = {"ours": ours, "copytruncate+gzip": shell}
    figures: dict[str, list[tuple[float, float, int]]] = {name: [] for name in runs}
    with tempfile.TemporaryDirectory() as name, ext4(Path(name), 3 * options.size + 500) as disk:
        root, config = disk / "site", Path(name) / "bench.toml"
        (root / "logs").mkdir(parents=True)
        config.write_text(f'[site]\nroot = "{root}"\n')
        for _ in range(options.rounds):
            for each, run in runs.items():
                figures[each].append(run(root, config, options.size * 1_000_000))
    base = statistics.median(row[0] for row in figures["ours"])
    for each, rows in figures.items():
        middle = statistics.median(row[0] for row in rows)
        print(
            f"{each:18} median {middle:7.2f} s  this/ours {middle / base:5.2f}  "
            f"writer's longest write {max(row[1] for row in rows) * 1000:7.1f} ms (medians "
            f"{statistics.median(row[1] for row in rows) * 1000:.1f})  lines lost {sum(row[2] for row in rows)}"
        )


if __name__ == "__main__":
    main()
