"""The examples of docs/examples are run as they are: Node's client, the router under a real Express, nginx in front."""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Site
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Kind
from tests.integration.api.conftest import Activated

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
MODULES = Path("/usr/share/nodejs")  # Debian's, of node-express
APP = """
import express from 'express';
import { backupRouter } from './backup-router.mjs';
const app = express();
app.use('/api/admin', backupRouter((req, res, next) =>
  (req.get('x-admin') ? next() : res.status(401).json({ success: false, code: 'LOGIN_FIRST' }))));
app.get('/api/admin/other', (req, res) => res.json({ other: true }));
const server = app.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""

pytestmark = pytest.mark.skipif(
    not os.environ.get("CI")
    and (shutil.which("node") is None or not MODULES.is_dir() or shutil.which("nginx") is None),
    reason="the examples need nodejs, node-express and nginx (make test installs them)",
)


@pytest.fixture
def run(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's `run` as its container sees it, by a path that is short enough for a socket."""
    (site.root / "run/triggers").mkdir(parents=True)
    short = tmp_path_factory.mktemp("r") / "run"
    short.symlink_to(site.root / "run")
    return short


@pytest.fixture
def activated(site: Site, run: Path) -> Iterator[Activated]:
    """The API's socket, in there; nobody answers it yet."""
    held = Activated(site, run / "portfolio-ops.sock")
    yield held
    held.stop()
    held.listener.close()


def node(run: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PORTFOLIO_OPS_RUN": str(run)}
    return subprocess.run(["node", *words], env=environment, capture_output=True, text=True, timeout=60, check=False)


def galleries(site: Site) -> list[str]:
    found = catalogue.scan(site.backups, site.name, [Kind.EVENT]).artifacts
    return [name for each in found for name in each.metadata.details["names"]]


def test_the_guide_shows_the_volumes_of_the_example() -> None:
    example = (EXAMPLES / "compose.override.yaml").read_text().partition("\n")[2]
    assert f"```yaml\n{example}```" in (EXAMPLES.parent / "how-to/container.md").read_text()


def test_nodes_client_asks_for_a_backup_and_gets_it(activated: Activated, run: Path, site: Site) -> None:
    activated.start()
    done = node(run, str(EXAMPLES / "backup-client.mjs"), "Winter / 冬 '; rm -rf /")
    assert done.returncode == 0, done.stderr
    status, _, answer = done.stdout.partition(" ")
    assert (status, json.loads(answer)["message"]) == ("200", "Gallery backup created successfully")
    assert galleries(site) == ["Winter / 冬 '; rm -rf /"]


def test_nodes_client_leaves_a_file_where_nobody_listens(run: Path) -> None:
    done = node(run, str(EXAMPLES / "backup-client.mjs"), "Winter")
    assert (done.returncode, done.stdout.split()[0]) == (0, "202"), done.stderr
    [file] = (run / "triggers").iterdir()
    assert json.loads(file.read_text()) == {"galleryName": "Winter"}
    assert not file.name.startswith(".")


def test_nodes_client_says_what_is_wrong(activated: Activated, run: Path) -> None:
    activated.start()
    done = node(run, str(EXAMPLES / "backup-client.mjs"), "")
    assert done.returncode == 1
    assert done.stdout.startswith("400 ")


class Web:
    """Something that answers over TCP."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def call(self, method: str, path: str, document: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and body; None for a body that is no JSON."""
        body = None if document is None else json.dumps(document).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent["Content-Type"] = "application/json"
        asked = urllib.request.Request(self.url + path, body, sent, method=method)  # noqa: S310  (this machine's)
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read()
            with contextlib.suppress(ValueError):
                return error.code, json.loads(text)
            return error.code, None


@pytest.fixture
def express(run: Path, tmp_path: Path) -> Iterator[Web]:
    """A backend of Express with the router in it."""
    for each in EXAMPLES.glob("*.mjs"):
        shutil.copy(each, tmp_path)
    (tmp_path / "app.mjs").write_text(APP)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules/express").symlink_to(MODULES / "express")
    environment = {**os.environ, "PORTFOLIO_OPS_RUN": str(run), "NODE_PATH": str(MODULES)}
    with subprocess.Popen(
        ["node", str(tmp_path / "app.mjs")], env=environment, stdout=subprocess.PIPE, text=True
    ) as app:
        try:
            assert app.stdout is not None
            yield Web(int(app.stdout.readline()))
        finally:
            app.terminate()


def test_the_router_has_the_requirements_endpoints(activated: Activated, express: Web, site: Site) -> None:
    activated.start()
    name = {"galleryName": "new-collection"}
    assert express.call("POST", "/api/admin/backup-on-gallery-add", name)[0] == 401
    assert galleries(site) == []
    status, said = express.call("POST", "/api/admin/backup-on-gallery-add", name, X_Admin="1")
    assert (status, said["message"], said["galleryName"]) == (
        200,
        "Gallery backup created successfully",
        "new-collection",
    )
    status, said = express.call("POST", "/api/admin/trigger-backup", X_Admin="1")
    assert (status, said["message"]) == (200, "Manual backup created successfully")
    status, said = express.call("GET", "/api/admin/backup-status", X_Admin="1")
    assert (status, said["backups"]["eventTriggered"]["count"], said["backups"]["daily"]["count"]) == (200, 1, 1)
    status, said = express.call("POST", "/api/admin/backup-on-gallery-add", {}, X_Admin="1")
    assert (status, said["code"]) == (400, "INVALID_REQUEST")
    assert express.call("GET", "/api/admin/other") == (200, {"other": True})  # the backend's own stay as they are


def test_the_router_says_that_nobody_answers(express: Web) -> None:
    status, said = express.call("POST", "/api/admin/trigger-backup", X_Admin="1")
    assert (status, said["success"], said["code"]) == (502, False, "BACKUP_ERROR")


@pytest.fixture
def nginx(run: Path, tmp_path: Path) -> Iterator[Web]:
    """The server of the example, with a user who may call."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    text = (EXAMPLES / "nginx.conf").read_text()
    for old, new in (
        ("/mnt/lupoportfolio/portfolio-prod/run", str(run)),
        ("127.0.0.1:8081", f"127.0.0.1:{port}"),
        ("/etc/nginx/portfolio-ops.htpasswd", str(tmp_path / "htpasswd")),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "htpasswd").write_text("admin:{PLAIN}secret\n")
    folders = "".join(
        f"{each}_temp_path {tmp_path}/{each};\n" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = f"daemon off;\nmaster_process off;\npid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\nevents {{}}\n"
    (tmp_path / "nginx.conf").write_text(f"{main}http {{\naccess_log off;\n{folders}{text}}}\n")
    command = ["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stderr
    with subprocess.Popen(command) as server:
        try:
            _until(lambda: socket.create_connection(("127.0.0.1", port)).close())
            yield Web(port)
        finally:
            server.terminate()


def _until(works: Callable[[], None]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return works()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_nginx_lets_through_what_is_meant_and_who_may(activated: Activated, nginx: Web) -> None:
    activated.start()
    admin = {"Authorization": "Basic " + base64.b64encode(b"admin:secret").decode()}
    for path in ("backup-status", "trigger-backup", "backup-on-gallery-add", "backup-requests/" + "0" * 32):
        assert nginx.call("GET", f"/api/admin/{path}")[0] == 401, path
    status, said = nginx.call("GET", "/api/admin/backup-status", **admin)
    assert (status, said["success"]) == (200, True)
    status, said = nginx.call("POST", "/api/admin/backup-on-gallery-add", {"galleryName": "x"}, **admin)
    assert (status, said["message"]) == (200, "Gallery backup created successfully")
    for path in ("/api/admin/backups", "/healthz", "/openapi.json", "/", "/api/admin/backup-status/more"):
        assert nginx.call("GET", path, **admin) == (404, None), path
    assert nginx.call("POST", "/api/admin/backup-on-gallery-add", {"x": "y" * 70_000}, **admin)[0] == 413


def test_nginx_slows_down_who_asks_without_end(activated: Activated, nginx: Web) -> None:
    activated.start()
    admin = {"Authorization": "Basic " + base64.b64encode(b"admin:secret").decode()}
    codes: list[int] = []
    callers = [
        threading.Thread(target=lambda: codes.append(nginx.call("GET", "/api/admin/backup-status", **admin)[0]))
        for _ in range(40)
    ]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert set(codes) == {200, 503}
