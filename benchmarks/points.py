"""How long it takes to find out what can be restored from an archive as a site that never rests leaves it.

Of the last day or two each second, of a week each minute, of the rest each hour, and a backup a day. Flushes are as
long as they would be, but holes: nothing of what they hold is read. `cold`: all files were put out of the page
cache before. `first`: nothing is remembered yet.
"""

import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.bench import TOOL, Bench, Timing, seconds, timed
from benchmarks.rows import Figure, Measured, Row
from portfolio_ops.sqlite.cuts import Cut, chained, encode_fields
from portfolio_ops.sqlite.increment import RAW, Head, Link, encode_head
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.store import timeline
from portfolio_ops.store.artifact import Content, Kind, Metadata, encode_trailer
from portfolio_ops.store.timeline import HOUR, MINUTE

PEERS = ()
WORK = "finding what can be restored"
SITE, PAGE = "shop", 4096
HOUR_LONG, DAY = timedelta(hours=1), timedelta(days=1)
_PER_GENERATION = 20  # flushes
_FLUSH = 30_000  # bytes
_FINDINGS = 10


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


def measure(bench: Bench) -> Measured:
    """What `list points`, `status` and the plan of a restore take, cold and warm."""
    folder = bench.folder / "points"
    past = make_archive(folder, bench.scale.days, _FLUSH)
    when = (datetime.now(UTC) - timedelta(hours=5)).isoformat()
    restore = ["restore", "database", "--at", when, "--to", str(folder / "copy"), "--dry-run"]
    commands = {"list points": ["list", "points"], "restore --at --dry-run": restore, "status": ["status"]}
    of = f"{past.cuts:,} moments in {len(list(past.folder.iterdir()))} files"

    def called(words: list[str], *, cold: bool) -> Timing:
        if cold:
            forget(folder)
        return timed([TOOL, "--config", folder / f"{SITE}.toml", "--json", *words], (0, _FINDINGS))

    first = called(["list", "points"], cold=True)
    rows = [_row(f"`list points`, {of}, first", [first])]
    for title, words in commands.items():
        for cold in (True, False):
            timings = [called(words, cold=cold) for _ in range(bench.scale.rounds)]
            rows.append(_row(f"`{title}`, {of}, {'cold' if cold else 'warm'}", timings))
    memory = Figure.of("ours", [first.megabytes])
    return Measured((*rows, Row(WORK, f"peak memory of `list points`, {of}, first", "MB", memory)))


def _row(measured: str, timings: list[Timing]) -> Row:
    return Row(WORK, measured, "s", Figure.of("ours", seconds(timings)))
