"""What all benchmarks share: how much they do, where, and how a command is timed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[1]
TOOL = Path(sys.executable).with_name("portfolio-ops")
Command = Sequence[str | Path]
Key = TypeVar("Key")
Got = TypeVar("Got")

_MAKE = """
import sys
from pathlib import Path
from benchmarks.site import make_site
make_site(Path(sys.argv[1]), int(sys.argv[2]))
"""


@dataclass(frozen=True)
class Scale:
    """How much is done. Sizes are in millions of bytes.

    Attributes:
        size: Of the large database and the large log.
        sizes: Of the databases along the curve of snapshots.
        small: Of the database that archivers follow.
        rates: Commits a second, along the archivers' curve.
        load, idle: Seconds of each, while an archiver is followed.
        artifacts, sites: Counts, along the curves of `status`.
        commits: How many a day has that is restored from the archive: one for each of so many seconds.
        calls: Of the HTTP API.
        days: Of the archive whose points are listed.
    """

    quick: bool = False
    rounds: int = 3
    size: int = 1000
    sizes: tuple[int, ...] = (10, 50, 200, 1000)
    small: int = 50
    rates: tuple[int, ...] = (50, 500, 2000)
    load: float = 20.0
    idle: float = 10.0
    artifacts: tuple[int, ...] = (100, 1000, 10_000)
    sites: tuple[int, ...] = (1, 10, 50)
    commits: int = 86_400
    calls: int = 200
    days: int = 30


QUICK = Scale(
    quick=True,
    rounds=1,
    size=50,
    sizes=(10, 50),
    rates=(50, 500),
    load=4.0,
    idle=4.0,
    artifacts=(100, 1000),
    sites=(1, 5),
    commits=3600,
    calls=50,
    days=1,
)


@dataclass(frozen=True)
class Bench:
    """Room to work in, and how much is to be done.

    Attributes:
        folder: Of one benchmark alone; whoever made it removes it.
        templates: Where databases lie that are copied.
    """

    scale: Scale
    folder: Path
    templates: Path

    def database(self, megabytes: int) -> Path:
        """A portfolio's database of about this size. It is made once, and must be left as it is."""
        path = self.templates / f"{megabytes}.sqlite"
        if not path.exists():
            unfinished = path.with_suffix(".new")
            run([sys.executable, "-c", _MAKE, unfinished, str(megabytes * 1_000_000)])
            unfinished.rename(path)
        return path

    def copy(self, megabytes: int, target: Path) -> Path:
        """A database of this size to work on, at a path below a folder that may be missing."""
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.database(megabytes), target)
        os.sync()  # or it is written while something is measured
        return target

    def rounds(self, contenders: Mapping[Key, Callable[[], Got]]) -> dict[Key, list[Got]]:
        """Let them take turns (A B A B), so that whatever the machine does beside meets them alike."""
        found: dict[Key, list[Got]] = {who: [] for who in contenders}
        for _ in range(self.scale.rounds):
            for who, measure in contenders.items():
                found[who].append(measure())
        return found


@dataclass(frozen=True)
class Timing:
    """What a command took: wall seconds, the most memory of its largest process in bytes, and what it said."""

    seconds: float
    peak: int
    said: bytes = b""

    @property
    def megabytes(self) -> float:
        """Its memory in millions of bytes."""
        return self.peak / 1e6


def timed(command: Command, good: Collection[int] = (0,), *, folder: Path = ROOT) -> Timing:
    """Run a command to its end.

    Raises:
        SystemExit: Its exit code is none of the good ones.
    """
    reading, writing = os.pipe()
    launcher = [sys.executable, "-I", "-S", Path(__file__).with_name("launch.py"), str(writing), *command]
    with os.fdopen(reading) as report:
        try:
            done = subprocess.run(launcher, pass_fds=[writing], cwd=folder, capture_output=True, check=False)
        finally:
            os.close(writing)
        if done.returncode not in good:
            words = " ".join(map(str, command))
            raise SystemExit(f"`{words}` failed with {done.returncode}: {done.stderr.decode(errors='replace')}")
        return Timing(**json.load(report), said=done.stdout)


def run(command: Command, *, folder: Path = ROOT, environment: Mapping[str, str] | None = None) -> bytes:
    """Run what is not measured, and give what it says.

    Raises:
        SystemExit: It failed.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        words = " ".join(map(str, command))
        raise SystemExit(f"`{words}` failed with {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def seconds(timings: Sequence[Timing]) -> list[float]:
    """The wall seconds of each."""
    return [timing.seconds for timing in timings]


def database_of(folder: Path) -> Path:
    """The database of the site below a folder."""
    return folder / "site/data/portfolio.sqlite"


def configured(folder: Path) -> Path:
    """The configuration of the site below a folder."""
    root = folder / "site"
    for each in ("data", "logs", "backups", "run/triggers"):
        (root / each).mkdir(parents=True, exist_ok=True)
    file = folder / "bench.toml"
    file.write_text(f'[site]\nroot = "{root}"\n')
    return file


def megabytes(path: Path) -> float:
    """A file's or a folder's length in millions of bytes."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files) / 1e6


def size_words(number: int) -> str:
    """So many megabytes, in words."""
    return f"{number // 1000} GB" if number % 1000 == 0 else f"{number:,} MB"
