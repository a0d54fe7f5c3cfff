"""Each command twice: the second time nothing below the site changes, no byte, mode, owner or name.

But for what a command's contract says: what is remembered of runs, and one artifact of a command that makes one.

The commands are asked of the command line itself: one that is new fails here until it has an entry.
"""

import contextlib
import hashlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from portfolio_ops.cli.main import cli
from portfolio_ops.store.artifact import Kind
from portfolio_ops.store.lock import PINNED, is_held
from tests.integration.api.conftest import Activated
from tests.integration.archive.archiver import digest_of
from tests.integration.faults.harness import Yard
from tests.integration.model.product import Product

NOTHING, STATE = "nothing", "state"
"""What may change the second time: nothing at all; or what is remembered of runs, in the state folder."""


@dataclass(frozen=True)
class Entry:
    """A command that may be run again.

    Attributes:
        words: Its arguments; `{copies}` is a folder beside the site, `{daily}` and `{social}` are artifacts.
        may: What may change the second time: NOTHING, STATE, or a kind, of which each run makes one artifact.
        database: What becomes of the live one the second time: the same `bytes`, or the same `content`.
        codes: How the first and the second run end.
        stopped: Whether the site's program must not run.
    """

    words: str
    may: str | Kind
    database: str = "bytes"
    codes: tuple[int, int] = (0, 0)
    stopped: bool = False


ENTRIES: dict[str, list[Entry]] = {
    "alert": [Entry("alert portfolio-drill@shop.service", NOTHING)],
    "archive accept": [Entry("archive accept", NOTHING)],
    "archive base": [Entry("archive base", Kind.WAL)],
    "archive gallery": [Entry("archive gallery", STATE)],
    "archive once": [Entry("archive once", STATE)],
    "archive run": [Entry("archive run", STATE)],
    "archive verify": [Entry("archive verify", NOTHING)],
    "backup daily": [Entry("backup daily", Kind.DAILY)],
    "backup gallery": [Entry("backup gallery winter", Kind.EVENT)],
    "backup requested": [Entry("backup requested", STATE)],
    "backup social": [Entry("backup social", Kind.SOCIAL)],
    "config check": [Entry("config check", NOTHING)],
    "config show": [Entry("config show", NOTHING)],
    "doctor": [Entry("doctor", NOTHING, codes=(10, 10))],
    "drill": [Entry("drill", STATE)],
    "list": [Entry("list", NOTHING), Entry("list points", NOTHING)],
    "logs rotate": [Entry("logs rotate", STATE)],
    "logs show": [Entry("logs show", NOTHING)],
    "prune": [Entry("prune --explain", NOTHING), Entry("prune --yes", STATE)],
    "report": [Entry("report", NOTHING)],
    "restore database": [
        Entry("restore database latest --to {copies}/new.sqlite", NOTHING, codes=(0, 4)),
        Entry("restore database {daily} --in-place --dry-run", STATE, codes=(4, 4)),
        Entry("restore database {daily} --in-place --yes", Kind.EVENT, stopped=True),
    ],
    "restore social": [
        Entry("restore social --into {copies}/new.sqlite --yes", STATE),
        Entry("restore social {social} --yes", Kind.SOCIAL, database="content"),
        Entry("restore social {social} --merge --yes", Kind.SOCIAL, database="content"),
    ],
    "restore undo": [Entry("restore undo --yes", Kind.EVENT, database="first", stopped=True)],
    "serve": [Entry("serve --idle 1s", NOTHING)],
    "show": [Entry("show latest", NOTHING)],
    "status": [Entry("status", NOTHING, codes=(10, 10)), Entry("status --check", STATE, codes=(10, 10))],
    "verify": [Entry("verify --all", STATE)],
}
CASES = [pytest.param(entry, id=entry.words) for entries in ENTRIES.values() for entry in entries]


def commands_of(command: click.Command, *words: str) -> Iterator[str]:
    """Every command below one, hidden ones too."""
    if not isinstance(command, click.Group):
        yield " ".join(words)
        return
    context = click.Context(command)
    names = {*command.list_commands(context), *(["alert"] if not words else [])}
    for name in names:
        found = command.get_command(context, name)
        assert found is not None
        yield from commands_of(found, *words, name)


def test_every_command_has_an_entry_here() -> None:
    assert {*commands_of(cli)} == ENTRIES.keys()


def prepare(yard: Yard) -> None:
    """One artifact of each kind, a timeline, a log that is archived in part, a restore to be undone, and a request."""
    product = Product(yard.file, yard.home)
    for words in ("backup daily", "backup social", "archive once", "logs rotate"):
        assert product.call(*words.split()).code == 0
    with contextlib.closing(sqlite3.connect(yard.site.database)) as connection:
        connection.execute("DELETE FROM comments WHERE id > 10")
        connection.commit()
    assert product.call("restore", "database", "latest", "--in-place", "--yes").code == 0
    with yard.site.logs[0].open("ab") as log:
        log.write(b"a new line\nand a part of one")
    (yard.site.root / "run/triggers/spring").touch()


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Yard:
    return Yard(tmp_path_factory.mktemp("twice"), [], prepare)


@dataclass(frozen=True)
class Tree:
    """All that there is below a folder: of each name its kind, mode, owner and content."""

    found: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, root: Path) -> "Tree":
        """The present, but for the index of a WAL, which is shared memory: readers note their locks in it."""
        paths = [path for path in root.rglob("*") if not path.name.endswith("-shm")]
        return cls({str(path.relative_to(root)): _described(path) for path in paths})

    def changed(self, later: "Tree") -> set[str]:
        """The names that came, went, or are another."""
        names = self.found.keys() | later.found.keys()
        return {name for name in names if self.found.get(name) != later.found.get(name)}


def _described(path: Path) -> tuple[Any, ...]:
    status = path.lstat()
    content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
    attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path)}
    return status.st_mode, status.st_uid, status.st_gid, content, attributes


@pytest.mark.parametrize("entry", CASES)
def test_the_second_time_nothing_changes(
    entry: Entry, yard: Yard, tmp_path_factory: pytest.TempPathFactory, elsewhere: Callable[..., Any]
) -> None:
    yard.lay_out()
    folder = tmp_path_factory.mktemp("s")  # short: a socket's path must be
    site, product = yard.site, Product(yard.file, yard.home)
    artifacts = {kind: [path.name for path in (site.backups / kind.folder).glob("*.zst")] for kind in Kind}
    words = entry.words.format(copies=folder, daily=artifacts[Kind.DAILY][0], social=artifacts[Kind.SOCIAL][0]).split()
    original = digest_of(site.database)
    if not entry.stopped:
        elsewhere(site.database).execute("INSERT INTO likes VALUES(-1, 'the site runs')")
    assert run(product, yard, words, folder) == entry.codes[0]
    before, content = Tree.of(site.root), None if not entry.stopped else digest_of(site.database)
    assert run(product, yard, words, folder) == entry.codes[1]
    after = Tree.of(site.root)
    changed = before.changed(after)
    state = str(site.state.relative_to(site.root))
    if entry.may != NOTHING:
        changed = {name for name in changed if not name.startswith(f"{state}/")}
        assert {name for name in before.found if name.startswith(state)} == {
            name for name in after.found if name.startswith(state)
        }
    database = str(site.database.relative_to(site.root))
    if entry.database != "bytes":
        changed -= {database, f"{database}-wal"}
        assert {name: after.found[name][:3] for name in (database,)} == {database: before.found[database][:3]}
    if entry.database == "first":
        assert digest_of(site.database) == original != content
    if isinstance(entry.may, Kind):
        [made] = changed
        assert made not in before.found
        assert (site.root / made).parent == site.backups / entry.may.folder
        assert made.endswith(".zst")
    else:
        assert not changed


def run(product: Product, yard: Yard, words: list[str], folder: Path) -> int | None:
    """One command, to its end."""
    if words[0] == "serve":
        return _served(yard, words, folder)
    if words[:2] == ["archive", "run"]:
        return _followed(yard, words)
    return product.call(*words).code


def _served(yard: Yard, words: list[str], folder: Path) -> int:
    """A server that is called once, and ends when nobody calls any more."""
    place = folder / f"{time.monotonic_ns()}.sock"
    activated = Activated(yard.site, place)
    try:
        server = activated.start(*words[1:])
        assert activated.call("GET", "/api/admin/backup-status").status == 200
        server.communicate(timeout=30)
        return server.returncode
    finally:
        activated.stop()
        with contextlib.suppress(OSError, AttributeError):
            activated.listener.shutdown(socket.SHUT_RDWR)
        activated.listener.close()


def _followed(yard: Yard, words: list[str]) -> int:
    """The daemon, from when it follows the database until it is told to stop."""
    command = [sys.executable, "-c", "from portfolio_ops.cli.main import main; main()", "--config", str(yard.file)]
    with subprocess.Popen([*command, *words], stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 30
            while not is_held(yard.site.state, PINNED):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            return process.wait(30)
        finally:
            process.kill()
