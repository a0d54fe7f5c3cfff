"""A server as systemd starts it: with its listening socket at descriptor 3."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Site

_ACTIVATED = """
import os, sys
for number, given in enumerate(map(int, sys.argv[1].split(","))):
    os.dup2(given, 3 + number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-c", "from portfolio_ops.cli.main import main; main()", *sys.argv[2:]])
"""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float = 60) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Activated:
    """A listening socket, and the servers that are started for it, one after the other."""

    def __init__(self, site: Site, path: Path, *families: socket.socket) -> None:
        self.site, self.path = site, path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1024)
        self.sockets = [self.listener, *families]
        self.servers: list[subprocess.Popen[bytes]] = []
        self._callers: list[socket.socket] = []

    def start(self, *options: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a server as the service manager would."""
        numbers = [each.fileno() for each in self.sockets]
        server = subprocess.Popen(
            [
                *(sys.executable, "-c", _ACTIVATED, ",".join(map(str, numbers))),
                *("--config", str(self.site.file), "serve", *options),
            ],
            pass_fds=numbers,
            stderr=subprocess.PIPE,
            env={**os.environ, "LISTEN_FDS": str(len(numbers)), **(environment or {})},
        )
        self.servers.append(server)
        return server

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """One call over the unix socket. A body that is no bytes is sent as JSON."""
        with contextlib.closing(UnixConnection(self.path)) as connection:
            sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            all_headers = {} if sent is None else {"Content-Type": "application/json"}
            connection.request(method, path, sent, {**all_headers, **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def connect(self) -> socket.socket:
        """A bare connection; closed when the server is stopped."""
        connection = socket.socket(socket.AF_UNIX)
        self._callers.append(connection)
        connection.settimeout(60)
        connection.connect(str(self.path))
        return connection

    def stop(self) -> str:
        """End the servers that run; gives what the last one said on stderr."""
        said = b""
        for caller in self._callers:
            caller.close()
        for server in self.servers:
            if server.poll() is None:
                server.send_signal(signal.SIGTERM)
            _, said = server.communicate(timeout=60)
        self.servers = []
        return said.decode()


@pytest.fixture
def triggers(site: Site) -> Path:
    """The folder in which backups are asked for."""
    folder = site.root / "run/triggers"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def activated(site: Site, triggers: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Activated]:  # noqa: ARG001
    """The socket of a site's API; its server is started by the test."""
    held = Activated(site, tmp_path_factory.mktemp("s") / "api.sock")
    yield held
    held.stop()
    held.listener.close()


@pytest.fixture
def api(activated: Activated) -> Activated:
    """The same, served."""
    activated.start()
    return activated


@pytest.fixture
def configure(site: Site) -> Callable[[str], None]:
    """Adds lines to the site's file."""

    def add(lines: str) -> None:
        with site.file.open("a") as file:
            file.write(f"\n{lines}\n")

    return add
