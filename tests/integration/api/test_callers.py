"""Callers that are slow, many, gone, or no HTTP at all; and the end of a server that nobody calls."""

import contextlib
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from portfolio_ops.config import Site
from portfolio_ops.jobs.run import DAILY, make_folders
from portfolio_ops.store import catalogue, lock
from portfolio_ops.store.artifact import Kind
from tests.integration.api.conftest import Activated, UnixConnection

TRIGGER, STATUS = "/api/admin/trigger-backup", "/api/admin/backup-status"


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other end closes, however it does."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            data += part
    return data


def test_who_says_nothing_or_not_all_is_cut_off(api: Activated) -> None:
    api.call("GET", STATUS)
    began = time.monotonic()
    silent, half, body = api.connect(), api.connect(), api.connect()
    half.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
    body.sendall(b"POST /api/admin/trigger-backup HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    # Nobody else waits for them.
    assert api.call("GET", STATUS).status == 200
    for each in (silent, half, body):
        assert read_all(each) == b""
    assert 5 < time.monotonic() - began < 60
    assert api.call("GET", STATUS).status == 200


def test_a_drop_at_a_time_is_not_enough(api: Activated) -> None:
    api.call("GET", STATUS)
    connection = api.connect()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for number in range(300):
            connection.sendall(b"G" if number == 0 else b"E" if number == 1 else b"T")
            time.sleep(0.1)
    assert b"200" not in read_all(connection)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_no_http_is_refused_without_a_word_of_ours(api: Activated, seed: int) -> None:
    chooser = random.Random(seed)
    well = b"POST /api/admin/backup-on-gallery-add HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnull"
    for _ in range(40):
        junk = bytearray(well if chooser.random() < 0.7 else chooser.randbytes(chooser.randint(1, 4000)))
        for _ in range(chooser.randint(1, 8)):
            junk[chooser.randrange(len(junk))] = chooser.randrange(256)
        with contextlib.closing(api.connect()) as connection:
            connection.sendall(junk)
            connection.shutdown(socket.SHUT_WR)
            answer = read_all(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 "), (seed, bytes(junk), answer)
        assert not answer.startswith(b"HTTP/1.1 5"), (seed, bytes(junk), answer)
    assert api.call("GET", STATUS).status == 200
    said = api.stop()
    assert "Traceback" not in said
    assert " met with " not in said


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(5000)) + b"\r\n",
    ],
    ids=["a header", "a path", "many headers"],
)
def test_a_head_without_end_is_not_kept(api: Activated, head: bytes) -> None:
    connection = api.connect()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(head)
    assert not read_all(connection).startswith(b"HTTP/1.1 200")
    assert api.call("GET", STATUS).status == 200


def test_500_at_a_time_are_all_answered(api: Activated, site: Site) -> None:
    api.call("GET", STATUS)
    with ThreadPoolExecutor(100) as pool:
        replies = list(
            pool.map(lambda number: api.call("POST", TRIGGER) if number % 2 else api.call("GET", STATUS), range(500))
        )
    statuses = {reply.status for reply in replies}
    assert statuses <= {200, 429}
    triggered = [reply for number, reply in enumerate(replies) if number % 2 and reply.status == 200]
    assert len(triggered) >= 30
    # Those that waited at the same time have one backup; as many as there were of it, it is the daily one.
    assert len({reply.json["backup"]["id"] for reply in triggered}) < len(triggered)
    # The last is answered when its backup is there, and only then the one before it is let go.
    deadline = time.monotonic() + 30
    while len(catalogue.scan(site.backups, site.name, [Kind.DAILY]).artifacts) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "Traceback" not in api.stop()


def test_who_goes_away_has_the_backup_made_once(api: Activated, site: Site) -> None:
    make_folders(site)
    connection = UnixConnection(api.path)
    with lock.held(site.state, Kind.EVENT.value, wait=timedelta(), on_wait=print):
        body = b'{"galleryName": "winter"}'
        connection.request("POST", "/api/admin/backup-on-gallery-add", body, {"Content-Type": "application/json"})
        triggers = site.root / "run/triggers"
        deadline = time.monotonic() + 30
        while not list((site.state / "requests").glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        connection.close()
    while not catalogue.scan(site.backups, site.name, [Kind.EVENT]).artifacts and time.monotonic() < deadline:
        time.sleep(0.05)
    api.call("POST", TRIGGER)
    [made] = catalogue.scan(site.backups, site.name, [Kind.EVENT]).artifacts
    assert made.metadata.details["name"] == "winter"
    assert not list(triggers.iterdir())


def test_who_waits_when_it_is_stopped_is_told_where_to_ask(api: Activated, site: Site) -> None:
    make_folders(site)
    with lock.held(site.state, DAILY.kind.value, wait=timedelta(), on_wait=print), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.call, "POST", TRIGGER)
        deadline = time.monotonic() + 30
        while not list((site.state / "requests").glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        api.servers[0].send_signal(signal.SIGTERM)
        reply = waiting.result(30)
        assert (reply.status, reply.json["state"]) == (202, "waiting")
        assert api.servers[0].wait(30) == 128 + signal.SIGTERM
    api.start()
    deadline = time.monotonic() + 60
    while (answer := api.call("GET", reply.headers["location"]).json)[
        "state"
    ] == "waiting" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert answer["state"] == "done"


def test_an_idle_server_ends_and_no_call_is_lost(activated: Activated) -> None:
    """As systemd does: as long as somebody calls and no server runs, one is started."""
    ended, over = 0, threading.Event()

    def manage() -> None:
        nonlocal ended
        while not over.is_set():
            server = activated.start("--idle", "1s")
            while server.poll() is None and not over.is_set():
                time.sleep(0.005)
            if server.returncode is not None:
                assert server.returncode == 0
                ended += 1

    manager = threading.Thread(target=manage)
    manager.start()
    try:
        chooser = random.Random(5)
        # Around the moment at which it ends: an idle second, and up to half of one for its last look.
        for _ in range(16):
            assert activated.call("GET", "/nowhere").status == 404
            time.sleep(0.9 + chooser.random() * 0.7)
    finally:
        over.set()
        manager.join()
    assert ended >= 3


def test_it_ends_at_once_when_it_is_told(api: Activated) -> None:
    assert api.call("GET", "/nowhere").status == 404
    server = api.servers[0]
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 128 + signal.SIGTERM


def test_a_reader_that_never_reads_does_not_hold_it(
    activated: Activated, configure: Callable[[str], None], site: Site
) -> None:
    configure('[api]\nwait = "1s"')
    make_folders(site)
    activated.start()
    for _ in range(20):
        connection = activated.connect()
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert activated.call("GET", STATUS).status == 200
    activated.stop()
