"""Real filesystems on loop devices, sites on them, and processes that write logs."""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from portfolio_ops import config
from portfolio_ops.config import Site
from portfolio_ops.host.journal import Log
from portfolio_ops.host.messages import Message
from portfolio_ops.logs.rotate import rotate_log
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Artifact, Kind

_WRITER = """
import os, sys, time
name, pause = sys.argv[2], float(sys.argv[3])
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
padding = "x" * 120
number, parent = 0, os.getppid()
while os.getppid() == parent and not os.path.exists(sys.argv[4]):
    for _ in range(20):
        os.write(log, f"{name} {number} {padding[number % 120:]}\\n".encode())
        number += 1
    time.sleep(pause)
print(number)
"""


class Recorder(Log):
    """A journal that tests can read."""

    def __init__(self) -> None:
        super().__init__(site="shop", job="logs-rotate")
        self.events: list[tuple[Any, str, dict[str, Any]]] = []

    def event(self, kind: Message, text: str, **fields: str | float) -> bool:
        self.events.append((kind, text, fields))
        return True

    def progress(self, text: str) -> None:
        pass

    def of(self, message: Any) -> list[tuple[str, dict[str, Any]]]:
        return [(text, fields) for found, text, fields in self.events if found == message]


class Yard:
    """One site with one log, and shorthands for what tests do to it."""

    def __init__(self, folder: Path, logs: tuple[str, ...] = ("logs/backend.log",)) -> None:
        root = folder / "site"
        (root / "logs").mkdir(parents=True)
        file = folder / "shop.toml"
        names = ", ".join(f'"{log}"' for log in logs)
        file.write_text(f'[site]\nroot = "{root}"\n[logs]\nfiles = [{names}]\n')
        self.file = file
        self.site: Site = config.load(file)
        self.folder = self.site.backups / Kind.LOGS.folder
        self.folder.mkdir(parents=True)
        self.site.state.mkdir()
        self.log = self.site.logs[0]
        self.journal = Recorder()

    def append(self, data: bytes, log: Path | None = None) -> bytes:
        with (log or self.log).open("ab") as file:
            file.write(data)
        return data

    def rotate(self, log: Path | None = None) -> list[Artifact]:
        return rotate_log(self.site, log or self.log, self.folder, self.journal)

    def archives(self) -> list[Artifact]:
        found = catalogue.scan(self.site.backups, self.site.name, [Kind.LOGS])
        assert not found.problems
        return list(found.artifacts)

    def archived(self) -> bytes:
        """All archives' bytes, one after the other, decoded without the product's help."""
        return b"".join(self.content(artifact) for artifact in self.archives())

    @staticmethod
    def content(artifact: Artifact) -> bytes:
        with artifact.path.open("rb") as file:
            return zstandard.ZstdDecompressor().stream_reader(file).read()


class Writers:
    """Processes that append numbered lines until stopped."""

    def __init__(self, log: Path, names: str, *, pause: float = 0.001) -> None:
        log.touch()
        self._stop = log.with_name(f".stop-{next(_numbers)}")
        self._processes = {
            name: subprocess.Popen(
                [sys.executable, "-c", _WRITER, str(log), name, str(pause), str(self._stop)], stdout=subprocess.PIPE
            )
            for name in names
        }

    def stop(self) -> dict[str, int]:
        """How many lines each wrote."""
        self._stop.touch()
        return {name: int(process.communicate(timeout=60)[0]) for name, process in self._processes.items()}


_numbers = itertools.count()


def lines_of(data: bytes) -> dict[str, list[int]]:
    """The numbers of each writer's lines, in the order in which they stand; a torn line raises."""
    found: dict[str, list[int]] = {}
    assert data.endswith(b"\n")
    for line in data.decode().splitlines():
        name, number, padding = line.split(" ")
        assert padding == "x" * (120 - int(number) % 120), line
        found.setdefault(name, []).append(int(number))
    return found


@pytest.fixture
def yard_on(filesystem: Callable[[str], Path]) -> Iterator[Callable[..., Yard]]:
    """Makes a site on a filesystem of a kind."""
    folders: list[Path] = []

    def make(kind: str, **options: Any) -> Yard:
        folder = filesystem(kind) / f"yard-{os.getpid()}-{next(_numbers)}"
        folder.mkdir()
        folders.append(folder)
        return Yard(folder, **options)

    yield make
    for folder in folders:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture
def writers() -> type[Writers]:
    """Starts processes that write."""
    return Writers


@pytest.fixture
def numbered_lines() -> Callable[[bytes], dict[str, list[int]]]:
    """Takes apart what they wrote."""
    return lines_of


@pytest.fixture(autouse=True)
def _no_thread_left() -> None:
    """Tests here fork: a thread of a test before would make that unsafe."""
    assert threading.active_count() == 1
