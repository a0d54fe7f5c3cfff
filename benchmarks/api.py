"""The HTTP API: its first answer, from nothing, and those after it, of a site with 200 artifacts.

Cold: a call to a socket behind which no server runs yet, until its answer. Warm: calls one after the other. A trigger
waits for its backup; of that, what `backup gallery` takes in the same run is no cost of the API.
There is no peer: none of the usual tools has such an interface.
"""

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import TOOL, Bench, configured, database_of, run, size_words, timed
from benchmarks.rows import Aim, Figure, Measured, Row
from benchmarks.status import fill

PEERS = ()
WORK = "HTTP API"

_ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), "1"
os.execv(sys.executable, [sys.executable, "-c", "from portfolio_ops.cli.main import main; main()", *sys.argv[2:]])
"""
_REST = 5.0  # after the last event's backup: for some time the next waits, so that who asks without end is slowed down
_ARTIFACTS = 200


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def call(path: Path, method: str, target: str, body: bytes | None = None) -> tuple[int, float]:
    """One call: its status, and the seconds until all of the answer was read."""
    began = time.perf_counter()
    with contextlib.closing(_Connection(path)) as connection:
        connection.request(method, target, body)
        answer = connection.getresponse()
        answer.read()
        return answer.status, time.perf_counter() - began


@contextlib.contextmanager
def served(config: Path, path: Path) -> Iterator[None]:
    """A listening socket, and a server that is started for it now."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        command = [sys.executable, "-c", _ACTIVATED, str(listener.fileno()), "--config", str(config), "serve"]
        server = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def measure(bench: Bench) -> Measured:
    """Answers, and what a trigger takes beside its backup."""
    folder = bench.folder / "api"
    config, path = configured(folder), folder / "api.sock"
    bench.copy(bench.scale.small, database_of(folder))
    fill(folder / "site/backups", config.stem, _ARTIFACTS)
    run([TOOL, "--config", config, "backup", "daily"])
    cold, status, backups, triggered, alone = [], [], [], [], []
    for number in range(bench.scale.rounds):
        with served(config, path):
            cold.append(_good(call(path, "GET", "/api/admin/backup-status")))
            status += [_good(call(path, "GET", "/api/admin/backup-status")) for _ in range(bench.scale.calls)]
            backups.append(_good(call(path, "GET", "/api/admin/backups")))
            time.sleep(_REST)
            body = f'{{"galleryName": "round {number}"}}'.encode()
            triggered.append(_good(call(path, "POST", "/api/admin/backup-on-gallery-add", body)))
        alone.append(timed([TOOL, "--config", config, "backup", "gallery", f"alone {number}"]).seconds)
    of = f"of {_ARTIFACTS} artifacts"
    by_command = Figure.of("ours, `backup gallery`", alone)
    trigger = f"a gallery's trigger, with its backup of {size_words(bench.scale.small)}"

    def row(measured: str, values: list[float], most: float, words: str) -> Row:
        aim = Aim(words, most, ratio=False, below=True)
        return Row(WORK, measured, "s", Figure.of("ours", values), aim=aim)

    return Measured(
        (
            row(f"`backup-status` {of}, no server runs yet", cold, 1.5, "< 1.5 s"),
            row(f"`backup-status` {of}, warm", status, 0.05, "< 50 ms"),
            Row(WORK, f"`backups` {of}, warm", "s", Figure.of("ours", backups)),
            Row(WORK, trigger, "s", Figure.of("ours", triggered), by_command),
        )
    )


def _good(answer: tuple[int, float]) -> float:
    assert answer[0] == 200, answer
    return answer[1]
