"""Make the golden artifacts of this version, once: `.venv/bin/python -m tests.golden.make`, as root. See README.md.

What is there is never made again: a released format is what it was.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from portfolio_ops import __version__
from tests.integration.model import writer
from tests.integration.model.place import Place
from tests.integration.model.product import Product
from tests.integration.model.writer import State

HERE = Path(__file__).parent
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


class History:
    """A small site that lives through some days, and what was kept of it."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        self.product = Product(self.place.site.file, folder)
        self.product.ahead = -(8.5 * DAY).total_seconds()
        self.moments: list[dict[str, Any]] = []
        self.log = b""
        self.exported: State = {}

    def run(self, *words: str) -> Any:
        done = self.product.call("--json", *words)
        assert done.code == 0, done
        return done.data

    def wait(self, span: timedelta) -> None:
        self.product.ahead += span.total_seconds()

    def archived(self, *statements: str) -> None:
        """A change, and the moment that keeps it."""
        self.place.change(*statements)
        self.run("archive", "once")
        at = max(window["last"] for window in self.run("list", "points")["windows"])
        self.moments.append({"at": at, "state": self.place.live})

    def live(self) -> None:
        """Seconds, then days in which these become minutes and hours; each kind of artifact; a time without a WAL."""
        self.place.open()
        for number in range(6):
            self.archived(f"INSERT INTO comments(image, body) VALUES({number}, 'first day')")
            self.wait(20 * MINUTE)
        self.wait(5 * DAY)
        for number in range(6):
            self.archived(f"UPDATE comments SET body = 'a later day {number}' WHERE id = {number + 1}")
            self.wait(MINUTE / 3)
        self.wait(3 * DAY)
        self.archived("INSERT INTO comments(image, body) VALUES(1, 'the last day')")
        self.run("backup", "daily")
        self.run("backup", "gallery", "Été 2025")
        self.run("backup", "social")
        self.exported = self.place.live
        for lines in (range(100), range(100, 150)):
            written = b"".join(b"GET /galleries/%d 200\n" % line for line in lines)
            self.place.append(written)
            self.log += written
            self.run("logs", "rotate")
        for number in range(3):
            self.archived(
                f"DELETE FROM likes WHERE image = {number}", "INSERT INTO likes VALUES(77, hex(randomblob(4)))"
            )
        self.place.close()
        self.place.change("PRAGMA journal_mode=delete")
        for number in range(3):
            self.archived(f"INSERT INTO comments(image, body) VALUES({number}, 'without a WAL')")


def main() -> None:
    """Make them, and write down what they must give back."""
    target = HERE / __version__
    if target.exists():
        sys.exit(f"{target} is there, and stays as it is")
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "site")
        history.live()
        backups = history.place.site.backups
        shutil.rmtree(history.place.site.state)
        files = {str(path.relative_to(backups)): _described(path) for path in sorted(backups.rglob("*.zst"))}
        for name, each in files.items():
            if name.startswith("social/"):
                each["state"] = history.exported
        shutil.copytree(backups, target / "backups")
        expected = {
            "files": files,
            "moments": [_restored(history, each) for each in history.moments],
            "log": hashlib.sha256(history.log).hexdigest(),
        }
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def _described(path: Path) -> dict[str, Any]:
    """What the plain tool makes of a file."""
    content = subprocess.run(["zstd", "-q", "-d", "-c", path], check=True, capture_output=True).stdout
    return {
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "content_sha256": hashlib.sha256(content).hexdigest(),
        "content_bytes": len(content),
    }


def _restored(history: History, moment: dict[str, Any]) -> dict[str, Any]:
    """A moment with the hash of the database's file as it is restored, if it still has one of its own."""
    copy = history.place.copy()
    plan = history.run("restore", "database", "--at", moment["at"], "--to", str(copy))["plan"]
    digest, state = hashlib.sha256(copy.read_bytes()).hexdigest(), writer.read(copy)
    exact = plan["moment"]["found"] == moment["at"]
    assert state == moment["state"] or not exact
    return {"at": moment["at"], "found": plan["moment"]["found"], "file_sha256": digest, "state": state}


if __name__ == "__main__":
    main()
