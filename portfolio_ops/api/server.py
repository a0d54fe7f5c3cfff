"""A server on sockets that were handed over: it has time for slow callers, but not for ever, and ends when it is idle.

The HTTP is uvicorn's. What it leaves open is closed here: each connection carries one call, which must have come whole
within some seconds; and the end of an idle server loses no call that is just coming in.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import h11
import uvicorn
from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol

from portfolio_ops.api.app import Api
from portfolio_ops.host import messages
from portfolio_ops.host.journal import Log, notify
from portfolio_ops.host.sockets import peer_of

_RECEIVE_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
"""For writing an answer, beyond the time in which it waits for a backup."""

_HEAD_MOST = 16 << 10  # bytes of a request's first line and headers
_CONNECTIONS_MOST = 800  # below the usual limit of 1,024 descriptors
_GRACE = 0.3
_PATH_SHOWN = 200

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class _Connection(H11Protocol):
    """One caller, one call."""

    answer_seconds = _ANSWER_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own narrowing
        super().connection_made(transport)
        self._limit = self.loop.call_later(_RECEIVE_SECONDS, self._late)
        if len(self.connections) > _CONNECTIONS_MOST:
            transport.abort()
            return
        self.client = (_peer(transport), 0)

    def _late(self) -> None:
        """Who has not said all by now is cut off. Who has is answered, and may take some time to read that."""
        if self.conn.their_state in {h11.IDLE, h11.SEND_BODY}:
            self.transport.abort()
        else:
            self._limit = self.loop.call_later(self.answer_seconds, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit.cancel()
        super().connection_lost(exc)


def _peer(transport: asyncio.Transport) -> str:
    try:
        return peer_of(transport.get_extra_info("socket"))
    except OSError:  # gone already
        return "somebody who has gone"


class _Told:
    """Puts every call into the journal, and turns what was not foreseen into an answer."""

    def __init__(self, api: Api, log: Log) -> None:
        self._app, self._log = api.application(), log

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        began, status = time.monotonic(), 0

        async def watched(message: _Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            pass
        except Exception as error:  # noqa: BLE001  (a caller learns nothing of it, the journal does)
            self._log.event(messages.API_FAULT, f"{_call(scope)} met with {type(error).__name__}: {error}")
            if not status:
                await _internal_error(watched)
        self._log.event(
            messages.API_ANSWERED,
            f"{_call(scope)} by {_caller(scope)}: {status or 'gone before an answer'}",
            status=status,
            peer=_caller(scope),
            duration=round(time.monotonic() - began, 3),
        )


def _call(scope: _Message) -> str:
    return f"{scope['method']} {scope['path'][:_PATH_SHOWN]}"


def _caller(scope: _Message) -> str:
    return str(scope["client"][0]) if scope["client"] else "somebody"


async def _internal_error(send: _Send) -> None:
    body = b'{"success": false, "message": "Internal error", "code": "INTERNAL_ERROR"}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Server(uvicorn.Server):
    """Ends when nobody has called for a while; then systemd listens again."""

    def __init__(self, config: uvicorn.Config, api: Api, idle: float) -> None:
        super().__init__(config)
        self._api, self._idle = api, max(idle, _GRACE)  # whoever woke it is let in first
        self._busy = time.monotonic()
        self._closed: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._busy = time.monotonic()
        notify("READY=1\nSTATUS=Waiting for calls")

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()
        if self.server_state.connections or self.server_state.tasks:
            self._busy = now
        elif self._closed is None and now - self._busy > self._idle:
            # First nobody is let in any more. Who was let in just before is answered; all others wait for the next.
            for server in self.servers:
                server.close()
            self._closed = now
        if self._closed is not None and now - max(self._closed, self._busy) > _GRACE:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        notify("STOPPING=1")
        self._api.stopping.set()
        await super().shutdown(sockets=sockets)


def serve(sockets: list[socket.socket], api: Api, log: Log, *, idle: float, wait: float) -> None:
    """Answer calls until told to stop, or until there was none for a while.

    Args:
        idle: Seconds without a call after which it ends.
        wait: Seconds for which an answer may wait for a backup.
    """
    for name in ("uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(name).disabled = True  # callers could fill the journal with it
    _Connection.answer_seconds = wait + _ANSWER_SECONDS
    config = uvicorn.Config(
        _Told(api, log),
        http=_Connection,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=[("Connection", "close")],
        h11_max_incomplete_event_size=_HEAD_MOST,
        timeout_graceful_shutdown=int(_RECEIVE_SECONDS),
    )
    _Server(config, api, idle).run(sockets=sockets)
