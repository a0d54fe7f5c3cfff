"""The API against its own description: whatever is sent, nothing is answered that does not stand there."""

from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CheckFunction, not_a_server_error

from portfolio_ops.api import openapi
from portfolio_ops.api.app import Api
from portfolio_ops.api.guard import Bucket, Guard
from portfolio_ops.api.maker import Maker
from portfolio_ops.config import Site
from portfolio_ops.store import inlet, requests

GALLERY = "/api/admin/backup-on-gallery-add"
TOKEN = {"Authorization": "Bearer secret-7"}


class _Nobody(Maker):
    """Makes nothing: what is asked for stays."""

    def tend(self) -> None:
        pass


def application(site: Site, token: str) -> Any:
    """The endpoints in this process. They do not wait, and nobody is limited: it is the answers that count here."""
    guard = Guard(token)
    guard.calls = guard.triggers = guard.strangers = Bucket(float("inf"), 1)
    return Api(replace(site, api=replace(site.api, wait=timedelta(0))), guard, _Nobody(site)).application()


@pytest.fixture
def triggers(site: Site) -> Path:
    folder = site.root / "run/triggers"
    folder.mkdir(parents=True)
    return folder


OPERATIONS = [(path, method) for path, methods in openapi.DESCRIPTION["paths"].items() for method in methods]


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    # Only one operation takes something that can be wrong.
    [*((*each, GenerationMode.POSITIVE) for each in OPERATIONS), (GALLERY, "post", GenerationMode.NEGATIVE)],
)
@pytest.mark.usefixtures("triggers")
def test_every_answer_is_described(site: Site, path: str, method: str, mode: GenerationMode) -> None:
    operation = schemathesis.openapi.from_asgi("/openapi.json", application(site, ""))[path][method]

    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def answered(case: Case[Any]) -> None:
        response = case.call()
        # That something needs a person is an answer, and described.
        described: list[CheckFunction] = [not_a_server_error] if path == "/healthz" else []
        case.validate_response(response, excluded_checks=described)
        # What was accepted is kept, every one of it, and can be read back.
        taken: list[requests.Request] = []
        assert inlet.drain(site.root, taken.append) == []
        assert len(taken) == (response.status_code == HTTPStatus.ACCEPTED)

    answered()


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_nothing_is_done_without_the_token(site: Site, triggers: Path, path: str, method: str) -> None:
    app = application(site, "secret-7")
    operation = schemathesis.openapi.from_asgi("/openapi.json", app, headers=TOKEN)[path][method]

    @settings(max_examples=20, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def refused(case: Case[Any]) -> None:
        case.headers.pop("Authorization", None)
        status = case.call().status_code
        assert status == HTTPStatus.UNAUTHORIZED or path == "/healthz"
        assert not list(triggers.iterdir())

    refused()
