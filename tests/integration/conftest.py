"""A connection in another process, and filesystems of each kind.

POSIX locks do not hold within one process, and the standard library's SQLite is another than the product's: two
connections of one test process would not see each other's locks, and a test would prove nothing.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Site
from tests.require import require_root

_MKFS = {
    "ext4": ("256M", ["mkfs.ext4", "-q", "-b", "4096"]),
    "xfs": ("320M", ["mkfs.xfs", "-q"]),
    "btrfs": ("256M", ["mkfs.btrfs", "-q"]),
    "bigalloc": ("256M", ["mkfs.ext4", "-q", "-b", "4096", "-O", "bigalloc", "-C", "65536"]),
    "small": ("24M", ["mkfs.ext4", "-q", "-b", "4096", "-m", "0"]),
}

_SERVER = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=float(sys.argv[2]), isolation_level=None)
for line in sys.stdin:
    try:
        rows = connection.execute(*json.loads(line)).fetchall()
        print(json.dumps({"rows": rows}), flush=True)
    except sqlite3.Error as error:
        print(json.dumps({"error": str(error)}), flush=True)
connection.close()
"""


class Elsewhere:
    """A connection to a database, held by a process of its own."""

    def __init__(self, database: Path, timeout: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(database), str(timeout)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def execute(self, sql: str, *parameters: Any) -> list[Any]:
        """Run one statement there, and wait for it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([sql, parameters]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer["error"]
        rows: list[Any] = answer["rows"]
        return rows

    def close(self) -> None:
        """Close the connection as a site does that stops."""
        if self.process.poll() is None:
            self.process.communicate()

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def elsewhere() -> Iterator[Callable[..., Elsewhere]]:
    """Opens a database in another process: `elsewhere(path, timeout=30.0)`."""
    opened: list[Elsewhere] = []

    def opener(database: Path, timeout: float = 30.0) -> Elsewhere:
        opened.append(Elsewhere(database, timeout))
        return opened[-1]

    yield opener
    for each in opened:
        each.kill()


@pytest.fixture(scope="session")
def filesystem(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Mounts a filesystem of a kind, once a session: ext4, xfs, btrfs, bigalloc, small, tmpfs."""
    mounted: dict[str, Path] = {}
    images: list[Path] = []
    memory = tmp_path_factory.mktemp("images")  # no power is cut here: fsync(2) need not wait for a disk

    def mount(kind: str) -> Path:
        if kind not in mounted:
            require_root(f"whatever depends on a filesystem, here {kind}")
            target = tmp_path_factory.mktemp(kind)
            if kind == "tmpfs":
                subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256M", "tmpfs", str(target)], check=True)
            else:
                size, command = _MKFS[kind]
                if not images:
                    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200M", "tmpfs", str(memory)], check=True)
                image = memory / kind
                images.append(image)
                subprocess.run(["truncate", "-s", size, str(image)], check=True)
                subprocess.run([*command, str(image)], check=True, stdout=subprocess.DEVNULL)
                subprocess.run(["mount", "-o", "loop", str(image), str(target)], check=True)
            mounted[kind] = target
        return mounted[kind]

    yield mount
    for target in mounted.values():
        subprocess.run(["umount", str(target)], check=True)
    if images:
        subprocess.run(
            ["umount", "--lazy", str(memory)], check=True
        )  # a loop device may hold its image a little longer


@pytest.fixture
def small_disk(site: Site) -> Iterator[Site]:
    """The site's backups on a filesystem of 24 MiB."""
    require_root("a full disk")
    site.backups.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", site.backups], check=True)
    yield site
    subprocess.run(["umount", site.backups], check=True)
