"""The archivers that are measured side by side: ours, and Litestream 0.5."""

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from benchmarks.bench import ROOT, TOOL, Command, configured, database_of, timed
from benchmarks.machine import program
from portfolio_ops import config
from portfolio_ops.moment import utc
from portfolio_ops.restore.points import windows

_CONFIG = """
dbs:
  - path: {database}
    monitor-interval: 1s
    replica:
      type: file
      path: {replica}
      sync-interval: 1s
"""
_SNAPSHOTS, _FIRST = "9", f"{1:016x}"
_LEVEL_1, _LEVEL_2 = 30, 300  # seconds
_UNIT, _VARIABLE = ROOT / "systemd/portfolio-archive@.service", "Environment="

ELSEWHERE = "elsewhere"
"""What an archiver keeps outside of the archive."""

Figures = dict[str, float]


@dataclass(frozen=True)
class Restored:
    """Seconds until a moment was in a new file, before any checks of the database; and those of its checks."""

    seconds: float
    checks: float


class Archiver(Protocol):
    """A program that follows a site's database."""

    def command(self) -> Command:
        """What runs for as long as the site does."""

    def has_begun(self) -> bool:
        """Whether the whole database is stored, so that only increments follow."""

    def is_undisturbed(self, seconds: float) -> bool:
        """Whether for so long nothing comes that comes once only, and would be taken for a cost of the load."""

    def has_merged(self) -> bool:
        """Whether nothing is left to be done with what was stored last."""

    def stored(self) -> Figures:
        """Bytes, by what they are."""

    def restore(self, target: Path, moment: datetime | None = None) -> Restored:
        """Bring a moment, or else the last one, to a new file."""


class Ours:
    """`portfolio-ops archive run`.

    Args:
        folder: With `site/data/portfolio.sqlite`.
    """

    def __init__(self, folder: Path) -> None:
        self.config = configured(folder)
        self._wal = folder / "site/backups/wal"

    def command(self) -> Command:
        """The daemon, with the environment that its unit gives it."""
        lines = _UNIT.read_text().splitlines()
        environment = [line.removeprefix(_VARIABLE) for line in lines if line.startswith(_VARIABLE)]
        return [program("env"), *environment, TOOL, "--config", self.config, "archive", "run"]

    def has_begun(self) -> bool:
        """Whether there is a base."""
        return any(self._wal.glob("base-*.zst"))

    def is_undisturbed(self, seconds: float) -> bool:  # noqa: ARG002
        """All that comes once is the base."""
        return True

    def has_merged(self) -> bool:
        """An hour's file is whole at any time."""
        return True

    def stored(self) -> Figures:
        """The base, and all else below `wal/`."""
        base = _size(self._wal.glob("base-*.zst"))
        return {"base": base, "increments": _size(self._wal.rglob("*")) - base}

    def restore(self, target: Path, moment: datetime | None = None) -> Restored:
        """As far as a restore goes before it exchanges the database."""
        when = moment or max(window.last for window in windows(config.load(self.config)))
        return staged(self.config, target, when)


class Litestream:
    """`litestream replicate`.

    Its files are named after their first and last transaction. Level 0 has one for each sync of the last 5 min, level 1
    one for each 30 s, level 9 whole snapshots; the first file of the others has the whole database, too.

    Args:
        folder: With `site/data/portfolio.sqlite`.
    """

    def __init__(self, folder: Path) -> None:
        self._database, self._replica = database_of(folder), folder / "replica"
        self._config = folder / "litestream.yml"
        self._config.write_text(_CONFIG.format(database=self._database, replica=self._replica))

    def command(self) -> Command:
        """The daemon."""
        return [program("litestream"), "replicate", "-config", self._config]

    def has_begun(self) -> bool:
        """Whether there is a snapshot, and the database has come to level 1: later there come increments only."""
        return all(any(self._replica.glob(f"ltx/{level}/*.ltx")) for level in (1, 9))

    def is_undisturbed(self, seconds: float) -> bool:
        """Whether no file of level 2 is due, as at each fifth minute: the first of them is the whole database again."""
        left = _LEVEL_2 - time.time() % _LEVEL_2
        return seconds + _LEVEL_1 < left < _LEVEL_2 - 5 or seconds + _LEVEL_1 > _LEVEL_2 - 10

    def has_merged(self) -> bool:
        """Whether level 1 has come to the last of level 0."""
        lasts = [
            max((path.stem[-16:] for path in self._replica.glob(f"ltx/{level}/*.ltx")), default="") for level in (0, 1)
        ]
        return lasts[0] <= lasts[1]

    def stored(self) -> Figures:
        """The replica, and its own copy of level 0 beside the database."""
        files = set(self._replica.rglob("*.ltx"))
        base = {path for path in files if path.parent.name == _SNAPSHOTS or path.stem.startswith(_FIRST)}
        increments = {path for path in files - base if path.parent.name == "0"}
        beside = self._database.with_name(f".{self._database.name}-litestream")
        return {
            "base": _size(base),
            "increments": _size(increments),
            "merged": _size(files - base - increments),
            ELSEWHERE: _size(beside.rglob("*")),
        }

    def restore(self, target: Path, moment: datetime | None = None) -> Restored:
        """Its own, with the checks that it makes by default: none."""
        when = [] if moment is None else ["-timestamp", utc(moment)]
        command: Command = [
            program("litestream"),
            "restore",
            "-config",
            self._config,
            *when,
            "-o",
            target,
            self._database,
        ]
        return Restored(timed(command).seconds, 0.0)


def staged(file: Path, target: Path, moment: datetime | None = None) -> Restored:
    """Let ours restore a moment, or the newest backup."""
    words = [] if moment is None else [moment.isoformat()]
    timing = timed([sys.executable, "-m", "benchmarks.stage", file, target, *words])
    checks = float(json.loads(timing.said)["checks"])
    return Restored(timing.seconds - checks, checks)


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
