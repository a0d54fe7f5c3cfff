"""The endpoints. Nothing is backed up here: a request is written down, and the job's own unit makes the backup."""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from portfolio_ops.api import answers, openapi
from portfolio_ops.api.guard import Guard
from portfolio_ops.api.maker import Maker
from portfolio_ops.config import Site
from portfolio_ops.errors import BusyError, PortfolioOpsError, explained
from portfolio_ops.store import inlet, requests

BODY_MOST = 64 << 10
"""Bytes of a request's body."""

_DISCARDED_MOST = 8 << 20
_REMEMBERED = 2.0
_LOOK_FIRST, _LOOK_LAST = 0.01, 0.04
_REQUESTS = "/api/admin/backup-requests"

_Endpoint = Callable[[Request], Awaitable[Response]]


class _TooLargeError(Exception):
    """The body is larger than is taken."""


class _Remembered:
    """What was found a moment ago, for all who ask at the same time: they wait for one look."""

    def __init__(self, look: Callable[[], Any]) -> None:
        self._look, self._lock = look, asyncio.Lock()
        self._at = float("-inf")
        self._found: Any = None

    def forget(self) -> None:
        """Look again, the next time: something has changed."""
        self._at = float("-inf")

    async def __call__(self) -> Any:
        async with self._lock:
            if time.monotonic() - self._at > _REMEMBERED:
                self._found, self._at = await run_in_threadpool(self._look), time.monotonic()
            return self._found


class Api:
    """The endpoints of one site.

    Attributes:
        stopping: Set when the server is to end: nobody is kept waiting then.
    """

    def __init__(self, site: Site, guard: Guard, maker: Maker) -> None:
        self._site, self._guard, self._maker = site, guard, maker
        self.stopping = asyncio.Event()
        self._status = _Remembered(lambda: answers.backup_status(site))
        self._backups = _Remembered(lambda: answers.backups(site))
        self._findings = _Remembered(lambda: answers.findings(site))

    def application(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/api/admin/backup-on-gallery-add", self._trigger(self._gallery), methods=["POST"]),
            Route("/api/admin/trigger-backup", self._trigger(self._daily), methods=["POST"]),
            Route(_REQUESTS + "/{id}", self._read(self._request), methods=["GET"]),
            Route("/api/admin/backup-status", self._read(self._backup_status), methods=["GET"]),
            Route("/api/admin/backups", self._read(self._all_backups), methods=["GET"]),
            Route("/openapi.json", self._read(self._description), methods=["GET"]),
            Route("/healthz", self._health, methods=["GET"]),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such})
        app.router.redirect_slashes = False
        return app

    def _trigger(self, endpoint: _Endpoint) -> _Endpoint:
        """What begins a backup: less often than what only reads."""

        async def guarded(request: Request) -> Response:
            if wait := self._guard.triggers.wait():
                return _too_many(wait)
            try:
                return await endpoint(request)
            except _TooLargeError:
                words = f"A request's body may have {BODY_MOST:,} bytes"
                return answers.fault(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words, "REQUEST_TOO_LARGE")
            except (PortfolioOpsError, OSError) as error:
                return _not_made(error if isinstance(error, PortfolioOpsError) else explained(error))

        return self._admitted(guarded)

    def _read(self, endpoint: _Endpoint) -> _Endpoint:
        async def guarded(request: Request) -> Response:
            try:
                return await endpoint(request)
            except (PortfolioOpsError, OSError):
                words = "Failed to retrieve backup status"
                return answers.fault(HTTPStatus.INTERNAL_SERVER_ERROR, words, "STATUS_ERROR")

        return self._admitted(guarded)

    def _admitted(self, endpoint: _Endpoint) -> _Endpoint:
        async def guarded(request: Request) -> Response:
            refusal = self._guard.refusal(request)
            if wait := self._wait(refusal):
                return _too_many(wait)
            match refusal:
                case 0:
                    return await endpoint(request)
                case HTTPStatus.UNAUTHORIZED as status:
                    headers = {"WWW-Authenticate": "Bearer"}
                    return answers.fault(status, "Unauthorized", "UNAUTHORIZED", headers=headers)
                case status:
                    return answers.fault(status, "Forbidden", "FORBIDDEN")

        return guarded

    def _wait(self, refusal: int) -> float:
        """Take a call from the right bucket: who may not call cannot use up what is there for who may."""
        return (self._guard.strangers if refusal else self._guard.calls).wait()

    async def _gallery(self, request: Request) -> Response:
        document = await _json(request)
        if not isinstance(document, dict) or not document.get("galleryName"):
            return answers.fault(HTTPStatus.BAD_REQUEST, "Gallery name required", "INVALID_REQUEST")
        name = document["galleryName"]
        if reason := requests.fault_of(name):
            return answers.fault(HTTPStatus.BAD_REQUEST, f"{reason[0].upper()}{reason[1:]}", "INVALID_REQUEST")
        return await self._asked(requests.GALLERY, name, "Gallery backup created successfully", {"galleryName": name})

    async def _daily(self, request: Request) -> Response:
        await _body(request)  # the requirements' call has none; whatever there is says nothing
        return await self._asked(requests.DAILY, "", "Manual backup created successfully", {})

    async def _asked(self, wants: str, name: str, words: str, said: dict[str, Any]) -> Response:
        """Write a request down, and answer when its backup is there, or when the time for that is over."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        wanted = requests.Request(secrets.token_hex(16), wants, name, now)
        await run_in_threadpool(inlet.put, self._site.root, wanted)
        answer = await self._outcome(wanted.id)
        for remembered in (self._status, self._backups, self._findings):
            remembered.forget()
        said = {**said, "request": wanted.id}
        if answer.state == requests.DONE:
            return JSONResponse({"success": True, "message": words, **said, **answers.made(answer)})
        if answer.state == requests.FAILED:
            return _failed(answer)
        where = f"{_REQUESTS}/{wanted.id}"
        said |= {"success": True, "message": "The backup is being made", "state": answer.state, "statusUrl": where}
        return JSONResponse(said, HTTPStatus.ACCEPTED, {"Location": where})

    async def _outcome(self, identity: str) -> requests.Answer:
        """What became of a request, as far as that is known when the time to wait for it is over."""
        until, pause = time.monotonic() + self._site.api.wait.total_seconds(), _LOOK_FIRST
        while True:
            self._maker.tend()
            answer = requests.answer_to(self._site.state, identity)
            if answer is not None and answer.state != requests.WAITING:
                return answer
            if time.monotonic() > until or self.stopping.is_set():
                return requests.Answer(requests.WAITING)
            await asyncio.sleep(pause)
            pause = min(_LOOK_LAST, pause * 1.2)

    async def _request(self, request: Request) -> Response:
        """What became of an earlier call."""
        identity = request.path_params["id"]
        answer = requests.answer_to(self._site.state, identity) if requests.is_id(identity) else None
        if answer is None and requests.is_id(identity) and inlet.holds(self._site.root, identity):
            answer = requests.Answer(requests.WAITING)
        if answer is None:
            return answers.fault(HTTPStatus.NOT_FOUND, "No such request, or one of more than a day ago", "NOT_FOUND")
        said: dict[str, Any] = {"success": True, "request": identity, "state": answer.state}
        if answer.state == requests.DONE:
            said |= answers.made(answer)
        if answer.state == requests.FAILED:
            said |= {"error": answer.error, "code": answer.code}
        return JSONResponse(said)

    async def _backup_status(self, _: Request) -> Response:
        return JSONResponse(await self._status())

    async def _all_backups(self, _: Request) -> Response:
        return JSONResponse(await self._backups())

    async def _description(self, _: Request) -> Response:
        return JSONResponse(openapi.DESCRIPTION)

    async def _health(self, request: Request) -> Response:
        """Whether all is well, for a monitor that may have no token; what is wrong, for who may know."""
        refusal = self._guard.refusal(request)
        if wait := self._wait(refusal):
            return _too_many(wait)
        try:
            findings = await self._findings()
        except (PortfolioOpsError, OSError) as error:
            findings = [error.message if isinstance(error, PortfolioOpsError) else explained(error).message]
        said: dict[str, Any] = {"success": not findings, "status": "findings" if findings else "ok"}
        if not refusal:
            said["findings"] = findings
        return JSONResponse(said, HTTPStatus.SERVICE_UNAVAILABLE if findings else HTTPStatus.OK)


async def _body(request: Request) -> bytes:
    """The whole body. What is too much is read and forgotten, up to a limit: who still writes hears no answer."""
    kept, length = bytearray(), 0
    async for chunk in request.stream():
        length += len(chunk)
        if length <= BODY_MOST:
            kept += chunk
        if length > _DISCARDED_MOST:
            break
    if length > BODY_MOST:
        raise _TooLargeError
    return bytes(kept)


async def _json(request: Request) -> Any:
    """The body's value; None for what is not JSON."""
    body = await _body(request)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _too_many(wait: float) -> Response:
    headers = {"Retry-After": str(int(wait) + 1)}
    return answers.fault(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests", "TOO_MANY_REQUESTS", headers=headers)


def _failed(answer: requests.Answer) -> Response:
    if answer.code == BusyError.code:
        return answers.fault(HTTPStatus.CONFLICT, "Another run is busy", "BUSY", error=answer.error)
    return answers.fault(HTTPStatus.INTERNAL_SERVER_ERROR, "Backup failed", "BACKUP_ERROR", error=answer.error)


def _not_made(failure: PortfolioOpsError) -> Response:
    return _failed(requests.Answer(requests.FAILED, error=failure.message, code=failure.code))


async def _no_such(_: Request, error: Exception) -> Response:
    """What is none of the endpoints."""
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    code = HTTPStatus(status).name
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else None
    return answers.fault(status, HTTPStatus(status).phrase, code, headers=headers)
