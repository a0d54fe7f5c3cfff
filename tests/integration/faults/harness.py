"""Jobs with one system call that fails, or at which they are killed; the calls are found by tracing a good run.

strace(1) makes the n-th call of a kind fail, or kills the process there, whoever makes it: Python, SQLite or zstd. Only
calls that touch the site's files count. What must hold afterwards is the same for all jobs.
"""

import hashlib
import io
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from portfolio_ops import config
from portfolio_ops.config import Site
from portfolio_ops.errors import ExitCode
from portfolio_ops.logs.read import LogReader, Period
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Artifact, decode_content
from tests.conftest import make_database

_SPACE, _DISK, _RIGHTS = ("ENOSPC", "EDQUOT"), ("EIO",), ("EACCES",)
ERRORS = {
    "openat": (*_RIGHTS, *_DISK, "EMFILE", "ENOSPC"),
    "read": _DISK,
    "pread64": _DISK,
    "preadv": _DISK,
    "getdents64": _DISK,
    "newfstatat": _DISK,
    "fstat": _DISK,
    "statfs": _DISK,
    "fstatfs": _DISK,
    "write": (*_SPACE, *_DISK),
    "pwrite64": (*_SPACE, *_DISK),
    "copy_file_range": (*_SPACE, *_DISK),
    "sendfile": (*_SPACE, *_DISK),
    "ftruncate": (*_SPACE, *_DISK),
    "fallocate": ("EOPNOTSUPP", *_DISK),
    "fsync": (*_DISK, "ENOSPC"),
    "fdatasync": (*_DISK, "ENOSPC"),
    "rename": (*_DISK, *_RIGHTS, "ENOSPC"),
    "renameat2": (*_DISK, *_RIGHTS, "ENOSPC"),
    "link": (*_DISK, *_RIGHTS, "ENOSPC"),
    "linkat": (*_DISK, *_RIGHTS, "ENOSPC"),
    "unlink": (*_DISK, *_RIGHTS),
    "unlinkat": (*_DISK, *_RIGHTS),
    "mkdir": (*_RIGHTS, "ENOSPC"),
    "rmdir": _RIGHTS,
    "fchmod": ("EPERM",),
    "fchown": ("EPERM",),
    "fsetxattr": (*_SPACE, "EOPNOTSUPP"),
    "flock": ("EIO",),
    "fcntl": ("EIO", "ENOLCK"),
    "mmap": ("ENOMEM",),
}
"""What each call may fail with, as its man page says."""

CHANGES = frozenset(
    {
        *("write", "pwrite64", "copy_file_range", "sendfile", "ftruncate", "fallocate", "fsync", "fdatasync", "openat"),
        *("rename", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "rmdir", "fsetxattr"),
    }
)
"""Before or after these a kill leaves something else behind."""

_TABLE = 40
_HOURS = 2 * 3600
_LINE = re.compile(r"(\d+) +(\w+)\(")


@dataclass(frozen=True)
class Step:
    """The n-th call of a kind, and its line in the trace."""

    call: str
    number: int
    line: str

    def __str__(self) -> str:
        return f"{self.call} {self.number}: {self.line[:160]}"


@dataclass(frozen=True)
class Result:
    """How a run ended."""

    code: int
    out: str
    err: str
    trace: str


class Yard:
    """A site that is laid out anew for each run."""

    def __init__(
        self, folder: Path, command: list[str], prepare: Callable[["Yard"], None], disk: Path | None = None
    ) -> None:
        self.command = command
        self._template, self._trace = folder / "template", folder / "trace"
        self.home = (disk or folder) / "case"
        self.file = self.home / "shop.toml"
        self._make()
        prepare(self)
        shutil.copytree(self.home, self._template, symlinks=True)

    @property
    def site(self) -> Site:
        return config.load(self.file)

    def _make(self) -> None:
        root = self.home / "site"
        for name in ("data", "logs", "run/triggers", "backups"):
            (root / name).mkdir(parents=True)
        (root / "logs/backend.log").write_bytes(b"".join(b"line %d of the log\n" % number for number in range(2000)))
        make_database(root / "data/portfolio.sqlite", images=20)
        backend = '[backend]\nstop = ["true"]\nstart = ["true"]\nstatus = ["false"]\npatience = "1s"\n'
        self.file.write_text(f'[site]\nroot = "{root}"\n{backend}')

    def lay_out(self) -> None:
        """The site as it was prepared."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self._template, self.home, symlinks=True)

    def before(self) -> "State":
        """What each run finds. Looking opens the database, so the site must be laid out again after it."""
        self.lay_out()
        return state_of(self.site)

    def run(self, *inject: str, traced: bool = True) -> Result:
        """The job, with a fault or without."""
        with self.begun(*inject, traced=traced) as process:
            out, err = process.communicate(timeout=120)
        return Result(process.returncode, out, err, self.trace() if traced else "")

    def trace(self) -> str:
        """The calls of the last traced run, as far as it has come."""
        return self._trace.read_text() if self._trace.exists() else ""

    def begun(self, *inject: str, traced: bool = True) -> "subprocess.Popen[str]":
        """The job, as it begins."""
        self._trace.unlink(missing_ok=True)
        ours = [sys.executable, "-c", "from portfolio_ops.cli.main import main; main()", "--config", str(self.file)]
        strace = ["strace", "-f", "-y", "-s", "0", "-o", str(self._trace), "-e", f"trace={','.join(ERRORS)}"]
        for each in inject:
            strace += ["-e", f"inject={each}"]
        return subprocess.Popen(
            [*(strace if traced else []), *ours, *self.command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # The same number of calls each time.
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def was_hit(self, result: Result) -> bool:
        """Whether the fault befell the site's files alone; each process and thread has its own n-th call."""
        injected = [line for line in result.trace.splitlines() if "(INJECTED)" in line]
        return bool(injected) and all(f"{self.home}/" in line for line in injected)

    def steps(self) -> list[Step]:
        """Every call of a good run that touches the site's files."""
        self.lay_out()
        good = self.run()
        assert good.code in {0, 10}, good.err
        counted: Counter[str] = Counter()
        found, main = [], None
        for line in good.trace.splitlines():
            if (matched := _LINE.match(line)) is None:
                continue
            main = main or matched[1]
            if matched[1] != main:
                continue
            counted[matched[2]] += 1
            if f"{self.home}/" in line:
                found.append(Step(matched[2], counted[matched[2]], line.partition(" ")[2].strip()))
        return found


def faults(steps: list[Step]) -> Iterator[tuple[Step, str]]:
    """Each step with each error that may befall it."""
    for step in steps:
        for error in ERRORS[step.call]:
            if error == "ENOSPC" and step.call == "openat" and "O_CREAT" not in step.line:
                continue
            yield step, error


@dataclass(frozen=True)
class State:
    """What must not change, or only in one way."""

    database: str
    journal_mode: str
    owner: tuple[int, int, int]
    artifacts: dict[str, str]
    logs: bytes


def state_of(site: Site) -> State:
    """Read everything back."""
    status = site.database.stat()
    connection = sqlite3.connect(site.database)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        dump = hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    finally:
        connection.close()
    found = catalogue.scan(site.backups, site.name)
    assert not found.problems, found.problems
    artifacts = {}
    for artifact in found.artifacts:
        content = _content(artifact)
        assert hashlib.sha256(content).hexdigest() == artifact.metadata.content.sha256, artifact.path
        artifacts[artifact.path.name] = hashlib.sha256(artifact.path.read_bytes()).hexdigest()
    # That a rotation was interrupted is no fault here: no line is lost or told twice all the same.
    logs = b"".join(LogReader(site, "logs/backend.log", Period(None, None), lambda _: None).chunks())
    return State(dump, mode, (status.st_uid, status.st_gid, status.st_mode), artifacts, logs)


def _content(artifact: Artifact) -> bytes:
    sink = io.BytesIO()
    with artifact.path.open("rb") as file:
        decode_content(file, artifact.payload.bytes, sink)
    return sink.getvalue()


def require_spoken(result: Result, case: str) -> None:
    """A failure is one of the documented, in words with a cure, and never a traceback."""
    assert "Traceback" not in result.err, (case, result.err)
    assert result.code in set(ExitCode), (case, result.code, result.err)
    if result.code not in {ExitCode.OK, ExitCode.FINDINGS}:
        # What is wrong with one of many artifacts stands in the table of all.
        assert "error: " in result.err or "<3>" in result.err or len(result.out) > _TABLE, (case, result)


def check_later(yard: Yard, case: str) -> None:
    """The hourly check, hours after the run; where something lies about, for it is not quick."""
    left = list(yard.site.root.rglob(".tmp-*"))
    for path in left:
        os.utime(path, (time.time() - _HOURS,) * 2)
    if left:
        command, yard.command = yard.command, ["status", "--check"]
        checked = yard.run(traced=False)
        yard.command = command
        assert checked.code in {ExitCode.OK, ExitCode.FINDINGS}, (case, checked.err)


def require_tidy(site: Site, case: str) -> None:
    """Nothing unfinished lies about, but in the state, from which the hourly check removes it after an hour."""
    left = [path for path in site.root.rglob(".tmp-*") if site.state not in path.parents]
    assert not left, (case, left)
