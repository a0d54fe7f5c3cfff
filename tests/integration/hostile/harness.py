"""A site whose data and logs belong to an attacker, with secrets beside it that must not be touched.

The attacker has the site's own uid, as whoever broke into the backend's container has: it may do in `data/`, `logs/`
and `run/triggers/` whatever that uid may, and has made device nodes there (a container's root may). Everything lies on
a small filesystem of its own, so that nothing here can fill the machine's disk. Commands run in a fork of this process,
which has the product loaded already: there are hundreds of them.
"""

import hashlib
import importlib
import os
import pkgutil
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import zstandard

import portfolio_ops
from portfolio_ops.cli import main
from tests.conftest import make_database
from tests.integration.faults.harness import Result, require_spoken

for _module in pkgutil.walk_packages(portfolio_ops.__path__, "portfolio_ops."):
    importlib.import_module(_module.name)  # once, and not in each fork

OWNER = 6001
"""The uid and gid of the site, and of the attacker."""

EVERY, FIRST = int(os.environ.get("FAULTS_EVERY", "50")), int(os.environ.get("FAULTS_FIRST", "0"))
"""FAULTS_EVERY takes every n-th case (`make faults` takes all), FAULTS_FIRST says at which to begin."""

MARKER = b"TOP-SECRET-4b1d"
BOUND = 60.0
"""Seconds after which a command counts as one that runs for ever."""

_READ_MOST = 64 << 20  # an attacker's terabyte holds no secret of others
_FREE_LEAST = 0.25  # of the filesystem: a site of some hundred kilobytes has no business beyond that
_MEMORY_MOST = 4 << 30
_LOG = b"".join(b"line %d of the log\n" % number for number in range(500))


_Case = TypeVar("_Case")


def sampled(cases: Iterable[_Case], *, weight: int = 1) -> list[_Case]:
    """Those of a list of cases that are tried; with a weight, so many times as many."""
    step = max(1, EVERY // weight)
    return list(cases)[FIRST % step :: step]


def require_untouched(ground: "Ground", before: "Before", result: Result, case: str) -> None:
    """What holds after each attack."""
    assert ground.outside_now() == before.outside, case
    left = seen(ground.root / "backups", kept=True)
    assert before.backups.items() <= left.items(), case
    require_spoken(result, case)
    assert MARKER.decode() not in result.out + result.err, (case, result)
    for folder in ("backups", "run"):
        assert not leaks(ground.root / folder), case


@dataclass(frozen=True)
class Seen:
    """All that can be changed of a file."""

    inode: int
    mode: int
    owner: tuple[int, int]
    links: int
    length: int
    changed: int
    content: str


@dataclass
class Ground:
    """The filesystem with the site and its secrets.

    Attributes:
        place: Where it is mounted.
        disk: A disk, to which device nodes of the attacker lead.
        image: What is on that.
    """

    place: Path
    disk: Path
    image: Path
    _template: Path = field(init=False)

    def __post_init__(self) -> None:
        self._template = self.place / "template"
        self._make_outside()
        self._make_site()

    @property
    def root(self) -> Path:
        return self.place / "site"

    @property
    def outside(self) -> Path:
        return self.place / "outside"

    @property
    def config(self) -> Path:
        return self.place / "shop.toml"

    def _make_outside(self) -> None:
        """Secrets of the attacker's uid (another site's, say) and of root: the names are those of the site's files."""
        for owner, folder in ((OWNER, self.outside / "theirs"), (0, self.outside / "roots")):
            folder.mkdir(parents=True)
            make_database(folder / "portfolio.sqlite", images=3, journal_mode="wal" if owner else "delete")
            connection = sqlite3.connect(folder / "portfolio.sqlite")
            connection.execute("UPDATE comments SET body = ?", (MARKER.decode(),))
            connection.execute("UPDATE galleries SET title = ?", (MARKER.decode(),))
            connection.commit()
            connection.close()
            (folder / "backend.log").write_bytes((MARKER + b" line\n") * 500)
            for path in (folder, *folder.iterdir()):
                os.chown(path, owner, owner)
                path.chmod(0o700 if path.is_dir() else 0o600)

    def _make_site(self) -> None:
        for name in ("data", "logs", "run/triggers", "backups"):
            (self.root / name).mkdir(parents=True)
        (self.root / "logs/backend.log").write_bytes(_LOG)
        backend = '[backend]\nstop = ["true"]\nstart = ["true"]\nstatus = ["false"]\npatience = "1s"\n'
        self.config.write_text(f'[site]\nroot = "{self.root}"\n{backend}')
        make_database(self.root / "data/portfolio.sqlite", images=20)
        subprocess.run(["chown", "-R", f"{OWNER}:{OWNER}", str(self.root)], check=True)
        for command in (["backup", "daily"], ["backup", "social"], ["archive", "once"], ["logs", "rotate"]):
            result = self.run(command)
            assert result.code == 0, result.err
        (self.root / "logs/backend.log").write_bytes(_LOG)
        (self.root / "run/triggers/winter").touch()
        os.chown(self.root / "run/triggers/winter", OWNER, OWNER)
        self.root.rename(self._template)

    def lay_out(self, journal_mode: str = "wal") -> None:
        """The site as it was prepared: with the WAL of a site that was killed, or without one."""
        if self.root.exists():
            shutil.rmtree(self.root)
        subprocess.run(["cp", "-a", str(self._template), str(self.root)], check=True)
        database = self.root / "data/portfolio.sqlite"
        if journal_mode != "wal":
            connection = sqlite3.connect(database)
            connection.execute(f"PRAGMA journal_mode={journal_mode}")
            connection.close()
            return
        _crashed(database)

    def before(self) -> "Before":
        """What there is before a command."""
        return Before(self.outside_now(), seen(self.root / "backups", kept=True))

    def outside_now(self) -> dict[str, Seen]:
        """All that must stay as it is."""
        subprocess.run(["blockdev", "--flushbufs", str(self.disk)], check=True)
        return {**seen(self.outside), "disk": _seen(self.image)}

    def free(self) -> float:
        """The share of the filesystem that is free."""
        status = os.statvfs(self.place)
        return status.f_bavail / status.f_blocks

    def run(self, command: list[str], *, as_root: bool = True) -> Result:
        """A command, as root types it or as a unit runs it; what it may not do to the disk, or for ever, fails here."""
        out, err = self.place / "stdout", self.place / "stderr"
        pid = os.fork()
        if pid == 0:
            _become(command, self.config, out, err, as_root=as_root)
        deadline, least, ended = time.monotonic() + BOUND, 1.0, 0
        try:
            while not ended:
                ended, status = os.waitpid(pid, os.WNOHANG)
                least = min(least, self.free())
                assert time.monotonic() < deadline, f"{command} runs for ever"
                assert least > _FREE_LEAST, f"{command} fills the disk"
                if not ended:
                    time.sleep(0.002)
        finally:
            if not ended:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return Result(code, out.read_text(errors="replace"), err.read_text(errors="replace"), "")


@dataclass(frozen=True)
class Before:
    """What there was before a command."""

    outside: dict[str, Seen]
    backups: dict[str, Seen]


def _crashed(database: Path) -> None:
    """A commit in the WAL, left by a process that was killed."""
    pid = os.fork()
    if pid == 0:
        os.setresgid(OWNER, OWNER, OWNER)
        os.setresuid(OWNER, OWNER, OWNER)
        connection = sqlite3.connect(database)
        connection.execute("UPDATE galleries SET title = title || '.'")
        connection.commit()
        os._exit(0)
    os.waitpid(pid, 0)


def _become(command: list[str], config: Path, out: Path, err: Path, *, as_root: bool) -> None:
    """The command, in a child process; never returns."""
    code = 70
    try:
        os.setsid()
        for number, path in ((0, Path(os.devnull)), (1, out), (2, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_MOST, _MEMORY_MOST))
        if not as_root:
            os.setgroups([OWNER])
            os.setresgid(OWNER, OWNER, OWNER)
            os.setresuid(OWNER, OWNER, OWNER)
        os.umask(0o027)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        sys.argv = ["portfolio-ops", "--config", str(config), *command]
        try:
            main.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  (a fork must not come back)
        traceback.print_exc(file=sys.stderr)
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def seen(folder: Path, *, kept: bool = False) -> dict[str, Seen]:
    """Everything below a folder.

    Args:
        kept: Only artifacts: what the product itself remembers beside them may change.
    """
    paths = sorted(folder.rglob("*"))
    return {
        str(path.relative_to(folder)): _seen(path)
        for path in paths
        if not kept or (path.suffix == ".zst" and not path.is_dir())
    }


def _seen(path: Path) -> Seen:
    status = path.lstat()
    content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    owner = status.st_uid, status.st_gid
    return Seen(status.st_ino, status.st_mode, owner, status.st_nlink, status.st_size, status.st_mtime_ns, content)


def leaks(folder: Path) -> list[Path]:
    """The files below a folder in which the secret stands, also if it is compressed; not the secret itself, moved."""
    files = [path for path in folder.rglob("*") if not path.is_symlink() and path.is_file()]
    return [path for path in files if path.stat().st_nlink == 1 and _holds_secret(path)]


def _holds_secret(path: Path) -> bool:
    with path.open("rb") as file:
        data = file.read(_READ_MOST)
    if path.suffix == ".zst" or data[:4] == zstandard.MAGIC_NUMBER.to_bytes(4, "little"):
        with path.open("rb") as file:
            return MARKER in zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    return MARKER in data
