"""The API against its own description: whatever is sent, nothing is answered that does not stand there."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CheckFunction, not_a_server_error

from portfolio_ops.api import openapi
from portfolio_ops.store import inlet, requests
from tests.conftest import make_database

GALLERY = "/api/admin/backup-on-gallery-add"
TOKEN = {"Authorization": "Bearer secret-7"}


@contextlib.contextmanager
def served(root: Path, token: str) -> Iterator[str]:
    """A server in a process of its own, on the loopback interface; gives where its description is.

    Not in this one, which tests that fork share: a server leaves threads behind.
    """
    for name in ("data", "run/triggers"):
        (root / name).mkdir(parents=True)
    make_database(root / "data/portfolio.sqlite", images=1)
    file = root / "shop.toml"
    file.write_text(f'[site]\nroot = "{root}"\n')
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        command = [sys.executable, "-m", "tests.integration.api.unlimited", str(file), token]
        with subprocess.Popen(command, stdin=listener.fileno(), cwd=Path(__file__).parents[3]) as server:
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/openapi.json"
            finally:
                server.terminate()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("described")


@pytest.fixture(scope="module")
def described(root: Path) -> Iterator[Any]:
    with served(root / "open", "") as url:
        yield schemathesis.openapi.from_url(url, wait_for_schema=30)


@pytest.fixture(scope="module")
def guarded(root: Path) -> Iterator[Any]:
    with served(root / "closed", "secret-7") as url:
        yield schemathesis.openapi.from_url(url, wait_for_schema=30, headers=TOKEN)


OPERATIONS = [(path, method) for path, methods in openapi.DESCRIPTION["paths"].items() for method in methods]


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    # Only one operation takes something that can be wrong.
    [*((*each, GenerationMode.POSITIVE) for each in OPERATIONS), (GALLERY, "post", GenerationMode.NEGATIVE)],
)
def test_every_answer_is_described(described: Any, root: Path, path: str, method: str, mode: GenerationMode) -> None:
    operation = described[path][method]

    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def answered(case: Case[Any]) -> None:
        response = case.call()
        # That something needs a person is an answer, and described.
        an_answer: list[CheckFunction] = [not_a_server_error] if path == "/healthz" else []
        case.validate_response(response, excluded_checks=an_answer)
        # What was accepted is kept, every one of it, and can be read back.
        taken: list[requests.Request] = []
        assert inlet.drain(root / "open", taken.append) == []
        assert len(taken) == (response.status_code == HTTPStatus.ACCEPTED)

    answered()


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_nothing_is_done_without_the_token(guarded: Any, root: Path, path: str, method: str) -> None:
    operation = guarded[path][method]

    @settings(max_examples=20, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def refused(case: Case[Any]) -> None:
        case.headers.pop("Authorization", None)
        status = case.call().status_code
        assert status == HTTPStatus.UNAUTHORIZED or path == "/healthz"
        assert not list((root / "closed/run/triggers").iterdir())

    refused()
