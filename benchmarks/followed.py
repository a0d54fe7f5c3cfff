"""A process that writes to a database, and one that archives it meanwhile."""

import contextlib
import json
import select
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from benchmarks.archivers import Archiver, Figures
from benchmarks.bench import ROOT

PATIENCE = 300.0
_LAST_WAIT, _LOOK = 10.0, 0.05


class Writer:
    """The process that writes, open for as long as the block runs. See `benchmarks.site`."""

    def __init__(self, database: Path, rate: float, seconds: float) -> None:
        self._wal = Path(f"{database}-wal")
        self._latencies = database.with_name("latencies")
        words = map(str, (database, rate, seconds, self._latencies))
        command = [sys.executable, "-m", "benchmarks.site", *words]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=ROOT)
        self.largest_wal = 0
        self._line()

    def _line(self) -> bytes:
        """What it says next; meanwhile, look at its WAL."""
        assert self._process.stdout is not None
        while not select.select([self._process.stdout], [], [], _LOOK)[0]:
            self.look()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the site failed with {self._process.wait()}")
        return line

    def look(self) -> None:
        """Note how large its WAL is."""
        with contextlib.suppress(FileNotFoundError):
            self.largest_wal = max(self.largest_wal, self._wal.stat().st_size)

    def load(self) -> tuple[int, Figures]:
        """Let it write; gives how many commits there were, and what they were like."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        said, times = json.loads(self._line()), array("d")
        times.frombytes(self._latencies.read_bytes())
        for error, count in said["errors"].items():
            print(f"  the site saw {count} times: {error}", flush=True)
        ordered = sorted(times)
        figures = {
            name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0))
        }
        figures |= {"rate": said["commits"] / said["seconds"], "errors": sum(said["errors"].values())}
        return int(said["commits"]), figures

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()


class Running:
    """An archiver's process, from the beginning until it was told to end."""

    def __init__(self, archiver: Archiver, folder: Path) -> None:
        self._log = folder / "archiver.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(archiver.command(), stdout=log, stderr=subprocess.STDOUT)
        self.id = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            try:
                self._process.wait(_LAST_WAIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def wait_for(self, true: Callable[[], bool]) -> None:
        """Let it come so far."""
        deadline = time.monotonic() + PATIENCE
        while not true():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the archiver did not come so far:\n{self._log.read_text()}")
            time.sleep(_LOOK)

    def end(self) -> None:
        """Tell it to end, and let it do what it does then."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"the archiver does not end:\n{self._log.read_text()}") from None
        if code:
            raise SystemExit(f"the archiver failed with {code}:\n{self._log.read_text()}")
        for complaint in self._complaints():
            print(f"  the archiver says: {complaint}", flush=True)

    def _complaints(self) -> Iterator[str]:
        """What it said that is a warning or worse."""
        for line in self._log.read_text().splitlines():
            if line.startswith(("<0>", "<1>", "<2>", "<3>", "<4>")) or "level=WARN" in line or "level=ERROR" in line:
                yield line
