"""How long it takes to find out what can be restored from an archive as a site that never rests leaves it.

    python -m benchmarks.points --days 30 --rounds 3 --against ../older-checkout

Of the last day or two each second, of a week each minute, of the rest each hour, and a backup a day. Flushes are as
long as they would be, but holes: nothing of what they hold is read. Whole processes, medians; `cold`: all files were
put out of the page cache before. `first`: nothing is remembered yet. With `--against`, the code of another checkout
takes turns with ours.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from portfolio_ops.sqlite.cuts import Cut, chained, encode_fields
from portfolio_ops.sqlite.increment import RAW, Head, Link, encode_head
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.store import timeline
from portfolio_ops.store.artifact import Content, Kind, Metadata, encode_trailer
from portfolio_ops.store.timeline import HOUR, MINUTE

REPOSITORY = Path(__file__).parents[1]
SITE, PAGE = "shop", 4096
HOUR_LONG, DAY = timedelta(hours=1), timedelta(days=1)
_PER_GENERATION = 20  # flushes
_TOOL = "import sys; from portfolio_ops.cli.main import main; main()"


class Past:
    """Positions that go on and on, file by file."""

    def __init__(self, backups: Path, start: datetime, flush: int) -> None:
        self.backups, self.flush = backups, flush
        self.name = timeline.new_id(start - timedelta(seconds=1))
        self.folder = timeline.folder_of(backups, self.name)
        self.folder.mkdir(parents=True)
        self.position, self.count = Position(bytes(8).hex(), 0), 0
        self.link: Link | None = None
        self.salts = secrets.token_hex(8)
        self.cuts = 0

    def file(self, start: datetime, resolution: int, moments: Iterator[datetime]) -> None:
        """A file of increments; its flushes are holes."""
        head = Head(SITE, self.name, PAGE, resolution, self.link)
        data, chain = encode_head(head)
        path = self.folder / timeline.name_of(start, resolution)
        with path.open("xb") as file:
            file.write(data)
            for seen in moments:
                since, self.position = self.position, self._next()
                cut = Cut(seen, since, self.position, 100, 100, self.flush, bytes(32), 0, (1, 1), b"")
                fields = encode_fields(cut)
                chain = chained(chain, fields)
                file.write(fields + chain)
                file.seek(self.flush, os.SEEK_CUR)
                self.cuts += 1
            file.truncate(file.tell())
        os.utime(path, (seen.timestamp(), seen.timestamp()))
        self.link = Link(chain, self.position)

    def _next(self) -> Position:
        self.count += 1
        if self.count % _PER_GENERATION == 0:
            self.salts = secrets.token_hex(8)
        return Position(self.salts, 100 * (1 + self.count % _PER_GENERATION))

    def backup(self, taken: datetime) -> None:
        """A backup that stands where the last file ends. Its content is a few bytes."""
        position = {"salts": self.position.salts, "frame": self.position.frame}
        content, payload = Content("0" * 64, 1 << 20), b"x" * 100
        metadata = Metadata(Kind.DAILY, SITE, taken, content, {"position": position})
        folder = self.backups / Kind.DAILY.folder
        folder.mkdir(parents=True, exist_ok=True)
        trailer = encode_trailer(metadata, Content("0" * 64, len(payload)))
        (folder / f"portfolio-{taken:%Y-%m-%d}.sqlite.zst").write_bytes(payload + trailer)


def steps(start: datetime, end: datetime, step: int) -> Iterator[datetime]:
    """Moments at the end of each step of so many seconds."""
    while start < end:
        yield start + timedelta(seconds=step) - timedelta(milliseconds=3)
        start += timedelta(seconds=step)


def make_archive(folder: Path, days: int, flush: int) -> Past:
    """The archive of a site called `shop`, as the daily ageing leaves it half a day later."""
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    hour = now.replace(minute=0, second=0, microsecond=0)
    backups = folder / "site/backups"
    (folder / "site/data").mkdir(parents=True)
    (folder / f"{SITE}.toml").write_text(f'[site]\nroot = "{folder / "site"}"\n')
    day = midnight - days * DAY
    past = Past(backups, day, flush)
    past.backup(day)
    while day < midnight - 7 * DAY:
        past.file(day, HOUR, steps(day, day + DAY, HOUR))
        day += DAY
        past.backup(day)
    start = day
    while start < hour:
        resolution = MINUTE if start < hour - 36 * HOUR_LONG else RAW
        past.file(start, resolution, steps(start, start + HOUR_LONG, resolution))
        start += HOUR_LONG
        if start.hour == 0:
            past.backup(start)
    past.file(hour, RAW, steps(hour, now, RAW))
    return past


def forget(folder: Path) -> None:
    """Put the files out of the page cache."""
    os.sync()
    for path in (path for path in folder.rglob("*") if path.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def timed(checkout: Path, words: list[str]) -> tuple[float, int, str]:
    """Wall seconds, peak memory and what a command of a checkout says."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", _TOOL, *words], stdout=subprocess.PIPE, cwd=checkout)
    assert process.stdout is not None
    said = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in {0, 10}:
        raise SystemExit(f"{words} failed with {process.returncode}: {said.decode()}")
    return time.monotonic() - began, usage.ru_maxrss * 1024, json.dumps(json.loads(said)["data"], sort_keys=True)


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--flush", type=int, default=30_000, help="bytes of a flush")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout of this repository")
    options = parser.parse_args()
    checkouts = {"ours": REPOSITORY} | ({} if options.against is None else {"theirs": options.against.resolve()})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        past = make_archive(folder, options.days, options.flush)
        when = (datetime.now(UTC) - timedelta(hours=5)).isoformat()
        restore = ["restore", "database", "--at", when, "--to", str(folder / "copy"), "--dry-run"]
        commands = {"list points": ["list", "points"], "restore --at": restore, "status": ["status"]}
        print(f"{past.cuts:,} moments in {len(list(past.folder.iterdir()))} files, {os.cpu_count()} cores")
        for title, words in commands.items():
            for kind in ("first", "cold", "warm") if title == "list points" else ("cold", "warm"):
                figures: dict[str, list[tuple[float, int]]] = {each: [] for each in checkouts}
                answers = set()
                for _ in range(1 if kind == "first" else options.rounds):
                    for each, checkout in checkouts.items():
                        if kind != "warm":
                            forget(folder)
                        *figure, said = timed(checkout, ["--config", str(folder / f"{SITE}.toml"), "--json", *words])
                        figures[each].append((figure[0], int(figure[1])))
                        answers.add(said)
                show(f"{title}, {kind}", figures)
                if title == "list points" and len(answers) > 1:
                    raise SystemExit("they say different things")


def show(title: str, figures: dict[str, list[tuple[float, int]]]) -> None:
    """One line for each checkout, and how they compare."""
    middle = {each: statistics.median(row[0] for row in rows) for each, rows in figures.items()}
    cells = [
        f"{each} {middle[each]:7.2f} s {max(row[1] for row in rows) / 1e6:5.0f} MB" for each, rows in figures.items()
    ]
    ratio = f"  theirs/ours {middle['theirs'] / middle['ours']:6.1f}" if "theirs" in middle else ""
    print(f"{title:22} {'   '.join(cells)}{ratio}", flush=True)


if __name__ == "__main__":
    main()
