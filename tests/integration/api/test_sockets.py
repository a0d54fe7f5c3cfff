"""Which sockets are served, and which are refused."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from portfolio_ops.config import Site
from tests.integration.api.conftest import Activated

SERVE = [sys.executable, "-c", "from portfolio_ops.cli.main import main; main()"]


def served(site: Site, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [*SERVE, "--config", str(site.file), "serve"]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "no socket was handed over"),
        ({"LISTEN_FDS": "1"}, "no socket was handed over"),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, "the sockets were handed to process 1"),
    ],
)
def test_what_was_handed_to_nobody_or_to_another(site: Site, environment: dict[str, str], words: str) -> None:
    done = served(site, environment)
    assert done.returncode == 2
    assert words in done.stderr
    assert "systemctl start portfolio-api@" in done.stderr


@pytest.mark.parametrize("count", ["0", "3", "-1", "x", "99999999999999999999999"])
def test_a_wrong_count_is_refused(activated: Activated, count: str) -> None:
    server = activated.start(environment={"LISTEN_FDS": count})
    _, said = server.communicate(timeout=60)
    assert server.returncode == 2
    assert b"sockets were handed over" in said


def test_what_is_not_listening_is_refused(activated: Activated) -> None:
    ours, theirs = socket.socketpair()
    activated.sockets = [ours]
    server = activated.start()
    _, said = server.communicate(timeout=60)
    theirs.close()
    ours.close()
    assert server.returncode == 2
    assert b"is not a listening stream socket" in said


@pytest.fixture
def tcp() -> socket.socket:
    """A listening socket on the loopback interface."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


def test_the_network_is_not_served_without_a_token(activated: Activated, tcp: socket.socket) -> None:
    activated.sockets = [tcp]
    server = activated.start()
    _, said = server.communicate(timeout=60)
    tcp.close()
    assert server.returncode == 2
    assert b"a TCP socket is served with a token only" in said


def test_an_empty_token_is_none(
    activated: Activated, configure: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    configure('[api]\ntoken = "credential:api-token"')
    folder = tmp_path_factory.mktemp("credentials")
    (folder / "api-token").write_text("\n")
    server = activated.start(environment={"CREDENTIALS_DIRECTORY": str(folder)})
    _, said = server.communicate(timeout=60)
    assert server.returncode == 2
    assert b"is empty" in said


def test_a_token_never_stands_in_the_configuration(activated: Activated, configure: Callable[[str], None]) -> None:
    configure('[api]\ntoken = "secret-7"')
    server = activated.start()
    _, said = server.communicate(timeout=60)
    assert server.returncode == 2
    assert b"credential:api-token" in said
    assert b"secret-7" not in said
