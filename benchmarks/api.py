"""The HTTP API: its first answer, from nothing, and those after it.

    python -m benchmarks.api --rounds 5 --calls 200 --artifacts 200

Cold: a call to a socket behind which no server runs yet, until its answer. Warm: calls one after the other. A trigger
waits for its backup; of that, what `backup gallery` takes in the same run is no cost of the API.
There is no peer: none of the usual tools has such an interface.
"""

import argparse
import contextlib
import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.data import make_database

_ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), "1"
os.execv(sys.executable, [sys.executable, "-c", "from portfolio_ops.cli.main import main; main()", *sys.argv[2:]])
"""
_REST = 5.0  # after the last event's backup: for some time the next waits, so that who asks without end is slowed down
_COLD_MOST, _WARM_MOST = 1.5, 0.05


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--artifacts", type=int, default=200, help="backups that are there already")
    parser.add_argument("--size", type=int, default=50, help="database size in MB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = folder / "site"
        for each in ("data", "logs", "run/triggers"):
            (root / each).mkdir(parents=True)
        make_database(root / "data/portfolio.sqlite", arguments.size * 1_000_000)
        config, path = folder / "bench.toml", folder / "api.sock"
        config.write_text(f'[site]\nroot = "{root}"\n')
        tool = [sys.executable, "-c", "from portfolio_ops.cli.main import main; main()", "--config", str(config)]
        _fill(tool, root, arguments.artifacts)
        cold, status, backups, triggered, alone = [], [], [], [], []
        for number in range(arguments.rounds):
            with served(config, path):
                cold.append(_good(call(path, "GET", "/api/admin/backup-status")))
                status += [_good(call(path, "GET", "/api/admin/backup-status")) for _ in range(arguments.calls)]
                backups.append(_good(call(path, "GET", "/api/admin/backups")))
                time.sleep(_REST)
                body = f'{{"galleryName": "round {number}"}}'.encode()
                triggered.append(_good(call(path, "POST", "/api/admin/backup-on-gallery-add", body)))
            began = time.perf_counter()
            subprocess.run([*tool, "backup", "gallery", f"alone {number}"], check=True, capture_output=True)
            alone.append(time.perf_counter() - began)
    print(f"{arguments.rounds} rounds, {arguments.artifacts} artifacts, {arguments.size} MB, {os.cpu_count()} cores")
    _row("cold: no server runs yet", cold, _COLD_MOST)
    _row("warm: backup-status", status, _WARM_MOST)
    _row("warm: backups, all of them", backups, None)
    _row("gallery, with its backup", triggered, None)
    _row("`backup gallery` alone", alone, None)
    beyond = statistics.median(triggered) - statistics.median(alone)
    print(f"{'a trigger beyond its backup':32} median {beyond * 1000:8.1f} ms")


def _fill(tool: list[str], root: Path, count: int) -> None:
    """So many artifacts: one is made, the others are links to it."""
    subprocess.run([*tool, "backup", "daily"], check=True, capture_output=True)
    [made] = (root / "backups/daily").glob("*.zst")
    for number in range(count - 1):
        os.link(made, made.with_name(f"{made.name.split('.')[0]}-{number:06}.sqlite.zst"))


def _good(answer: tuple[int, float]) -> float:
    assert answer[0] == 200, answer
    return answer[1]


def _row(what: str, seconds: list[float], most: float | None) -> None:
    ordered = sorted(seconds)
    worst = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    words = (
        ""
        if most is None
        else f"   {'ok' if statistics.median(ordered) < most else 'MISSED'} (below {most * 1000:.0f})"
    )
    print(f"{what:32} median {statistics.median(ordered) * 1000:8.1f} ms, p99 {worst * 1000:8.1f} ms{words}")


if __name__ == "__main__":
    main()
