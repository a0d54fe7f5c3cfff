"""The product's commands, each run in a forked process: with a clock of its own, and killed or short of room if wanted.

A process that starts anew costs 0.3 s; a fork of one that has loaded the product costs some milliseconds. What a
command starts is a process like any other.
"""

import contextlib
import ctypes
import io
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import portfolio_ops
from portfolio_ops.cli.main import run
from portfolio_ops.jobs import child
from tests.integration.bomb import in_child
from tests.integration.model import clock

_REPOSITORY = Path(__file__).parents[3]
_PACKAGE = Path(portfolio_ops.__file__).parent
_EVERYWHERE = tuple(str(path.relative_to(_PACKAGE)) for path in sorted(_PACKAGE.rglob("*.py")))
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)


@dataclass(frozen=True)
class Killed:
    """The process dies at its n-th event, without any clean-up (`bomb.py`); where there are fewer, it does not."""

    event: int


@dataclass(frozen=True)
class Full:
    """Only so many KiB are free on the disk meanwhile."""

    kib: int


Fate = Killed | Full | None


@dataclass(frozen=True)
class Result:
    """How a command ended.

    Attributes:
        code: Its exit code; None where it was killed.
    """

    words: tuple[str, ...]
    code: int | None
    out: bytes
    err: str

    @property
    def data(self) -> Any:
        """What it said with --json."""
        return json.loads(self.out)["data"]

    def __str__(self) -> str:
        return (
            f"{' '.join(self.words)}: exit {self.code}\n{self.out.decode(errors='replace')[-1500:]}{self.err[-1500:]}"
        )


class Product:
    """The tool for one site.

    Attributes:
        ahead: Seconds by which its clock is ahead of this machine's.
    """

    def __init__(self, file: Path, place: Path) -> None:
        clock.load()
        self._file, self._place = file, place
        self.ahead = 0.0

    def call(self, *words: str, fate: Fate = None) -> Result:
        """Run one command; gives how it ended, once all processes are gone that it started."""
        with _room(self._place, fate):
            return self.calls([words], fate.event if isinstance(fate, Killed) else 0)[0]

    def calls(self, commands: Sequence[Sequence[str]], fuse: int = 0) -> list[Result]:
        """Run commands one after the other in one process."""
        read_end, write_end = os.pipe()
        keeper = os.fork()
        if keeper == 0:
            status = 1
            try:
                os.close(read_end)
                # What a killed command has started goes on as ours, and is waited for.
                ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
                with os.fdopen(write_end, "wb") as pipe:

                    def work() -> None:
                        for words in commands:
                            pipe.write(json.dumps(self._run(words)).encode() + b"\n")
                            pipe.flush()

                    if fuse:
                        in_child(work, fuse, _EVERYWHERE)
                    else:
                        work()
                with contextlib.suppress(ChildProcessError):
                    while True:
                        os.waitpid(-1, 0)
                status = 0
            finally:
                os._exit(status)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as answers:
            told = [json.loads(line) for line in answers]
        _, status = os.waitpid(keeper, 0)
        assert status == 0, "the process that keeps the others failed"
        results = [
            Result(tuple(words), code, bytes.fromhex(out), err)
            for words, (code, out, err) in zip(commands, told, strict=False)
        ]
        for result in results:
            assert "Traceback" not in result.err, result
        return results + [Result(tuple(words), None, b"", "") for words in commands[len(results) :]]

    def _run(self, words: Sequence[str]) -> tuple[int, str, str]:
        """One command in this process, which has the product's clock from then on."""
        _keep_time(self.ahead)
        out, err = io.BytesIO(), os.memfd_create("stderr")
        os.dup2(err, 2)  # what the command starts speaks there, too
        sys.stdin = io.StringIO()
        sys.stdout = io.TextIOWrapper(out, write_through=True)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        try:
            code = run(["--config", str(self._file), *words])
        except BaseException:  # noqa: BLE001  (whatever it is, it is told)
            code = -1
            traceback.print_exc()
        sys.stdout.flush()
        told = os.pread(err, 1 << 20, 0).decode(errors="replace")
        os.close(err)
        return code, out.getvalue().hex(), told


_timed = False


def _keep_time(ahead: float) -> None:
    """Give this process the product's clock, and whatever the product starts from here on."""
    global _timed  # noqa: PLW0603  (a process has one clock, and this one was forked for it)
    if _timed:
        return
    _timed = True
    clock.shift(ahead)
    loaded = "import portfolio_ops.cli.archive; from tests.integration.model.clock import shift"
    child._COMMAND = f"{loaded}; shift({ahead!r}); {child._COMMAND}"
    os.environ["PYTHONPATH"] = str(_REPOSITORY)


@contextlib.contextmanager
def _room(place: Path, fate: Fate) -> Iterator[None]:
    """Leave so much room as is wanted on the disk of a place for as long as the block runs."""
    if not isinstance(fate, Full):
        yield
        return
    ballast = place / "ballast"
    status = os.statvfs(place)
    size = status.f_bavail * status.f_frsize - (fate.kib << 10)
    try:
        with ballast.open("wb") as file:
            while size > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError:  # what the filesystem itself needs for so large a file
                    size -= 16 << 10
                else:
                    break
        yield
    finally:
        ballast.unlink()
