"""A booted host with a live site on it, as the tests and `make host` see it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.host.droplet import Droplet
from tests.host.trees import tree

SUITES = ("bookworm", "trixie")
FILESYSTEMS = {"bookworm": "ext4", "trixie": "xfs"}
ROOT = Path("/mnt/volume/portfolio-prod")
BACKENDS: dict[str, dict[str, Any]] = {
    "bookworm": {verb: ["systemctl", verb, "backend.service"] for verb in ("stop", "start")}
    | {"status": ["systemctl", "is-active", "--quiet", "backend.service"]},
    "trixie": {"compose": "/srv/backend"},
}
TOLD = "/srv/told"
RECEIVER = """
import http.server
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("/srv/told", "ab") as file:
            file.write(self.path.encode() + b" " + body.replace(b"\\n", b" ") + b"\\n")
        self.send_response(200)
        self.end_headers()
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8099), Receiver).serve_forever()
"""


def variables(suite: str) -> dict[str, Any]:
    """What is deployed: a live site with all that can be configured, and a second one with almost nothing."""
    shop = {
        "name": "shop",
        "root": str(ROOT),
        "mount_point": "/mnt/volume",
        "backend": {**BACKENDS[suite], "health": "http://127.0.0.1:3000/health", "patience": "20s"},
        "drill": {"checks": ["SELECT count(*) > 0 FROM comments"]},
        "gallery": {"table": "galleries", "name": "slug"},
        "alert": {"webhook": "credential:chat", "ping": "http://127.0.0.1:8099/ping/{job}"},
        "credentials": {"chat": "http://127.0.0.1:8099/hook"},
    }
    return {"portfolio_ops_sites": [shop, BLOG]}


BLOG: dict[str, Any] = {
    "name": "blog",
    "root": "/srv/blog",
    "database": "blog.db",
    "backups": "kept",
    "logs": [],
    "social_tables": ["posts", "gone?"],
    "retention": {"daily": "10d", "minimum": 2},
    "schedule": {"daily": "04:30"},
    "api": {"tcp": "127.0.0.1:8780"},
}


class Host:
    """A droplet with a live site, and shorthands for what the tests ask of it."""

    def __init__(self, droplet: Droplet, suite: str) -> None:
        self.droplet, self.suite = droplet, suite
        self.variables = variables(suite)
        self.run, self.try_run, self.write = droplet.run, droplet.try_run, droplet.write

    def make_sites(self) -> None:
        """The live site of the requirements, and a second one of the same user that is stopped."""
        self.run("mkdir", "-p", f"{ROOT}/data", f"{ROOT}/logs", "/srv/backend", "/srv/blog")
        self.run("chmod", "750", f"{ROOT}/data", f"{ROOT}/logs", "/srv/blog")
        for name in ("backend.py", "compose.yaml"):
            self.write(f"/srv/backend/{name}", (Path(__file__).parent / "site" / name).read_text())
        blog = "CREATE TABLE posts(id INTEGER PRIMARY KEY, body TEXT); INSERT INTO posts(body) VALUES('one'), ('two');"
        self.run("sqlite3", "/srv/blog/blog.db", f"PRAGMA journal_mode=wal; {blog}")
        self.run("chown", "-R", "1001:1001", str(ROOT), "/srv/blog")
        self.write("/usr/local/lib/receiver.py", RECEIVER)
        unit = (
            "[Service]\nExecStart=/usr/bin/python3 /usr/local/lib/receiver.py\n[Install]\nWantedBy=multi-user.target\n"
        )
        self.write("/etc/systemd/system/receiver.service", unit)
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "enable", "--now", "receiver.service")
        if self.suite == "trixie":
            self.run("sh", "-c", "tar -C /image -c . | docker import - backend", timeout=300)
        else:
            run = "/usr/bin/setpriv --reuid=1001 --regid=1001 --clear-groups /usr/bin/python3 /srv/backend/backend.py"
            unit = f"[Service]\nExecStart={run} {ROOT}\n[Install]\nWantedBy=multi-user.target\n"
            self.write("/etc/systemd/system/backend.service", unit)
            self.run("systemctl", "daemon-reload")
            self.run("systemctl", "enable", "backend.service")
        self.start_site()

    def start_site(self) -> None:
        self.run("rm", "-f", f"{ROOT}/state.json")  # the word of the process before
        if self.suite == "trixie":
            self.run("docker", "compose", "--project-directory", "/srv/backend", "up", "--detach", timeout=120)
        else:
            self.run("systemctl", "start", "backend.service")
        self.until(lambda: self.site_commits() > 0, "the site writes")

    def stop_site(self) -> None:
        if self.suite == "trixie":
            self.run("docker", "compose", "--project-directory", "/srv/backend", "stop", timeout=120)
        else:
            self.run("systemctl", "stop", "backend.service")
        assert self.site()["errors"] == []  # a new start begins a new count

    def restart_site(self) -> None:
        self.stop_site()
        self.start_site()

    def site(self) -> dict[str, Any]:
        """What the site says of itself."""
        report: dict[str, Any] = json.loads(self.run("cat", f"{ROOT}/state.json"))
        return report

    def site_commits(self) -> int:
        done = self.try_run("cat", f"{ROOT}/state.json")
        return int(json.loads(done.stdout)["commits"]) if done.returncode == 0 else 0

    def deploy(self, *options: str, **changes: Any) -> str:
        """Run the playbook as a user would; gives its output."""
        done = self.droplet.play("deploy.yml", {**self.variables, **changes}, *options)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        return done.stdout

    def tool(self, *words: str, site: str = "shop") -> dict[str, Any]:
        """The data of a command's JSON answer; its exit code may be that of findings."""
        done = self.try_run("portfolio-ops", "--site", site, "--json", *words)
        answer: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode in {0, 10}, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def accept(self, site: str) -> None:
        """Say that the database of a site, which was moved away and back, is as it should be.

        Its archive tells of it once it has noticed, and may tell again until it goes on.
        """

        def told() -> bool:
            status = self.tool("status", site=site)
            return not status["archive"]["why"] and any("archive accept" in each for each in status["findings"])

        self.until(told, "the archive goes on, and tells of it")
        assert "accepted: " in self.run("portfolio-ops", "--site", site, "archive", "accept")

    def told(self) -> list[tuple[str, str]]:
        """What the receiver of alerts was sent: paths and bodies."""
        lines = self.try_run("cat", TOLD).stdout.splitlines()
        return [(path, body) for path, _, body in (line.partition(" ") for line in lines)]

    def files(self, kind: str) -> list[str]:
        """What lies in an artifact folder; nothing where no job has made it yet."""
        return self.try_run("ls", "-A", f"{ROOT}/backups/{kind}").stdout.split()

    def journal(self, *matches: str, since: str = "") -> list[dict[str, Any]]:
        """Entries of the journal, as programs see them."""
        self.run("journalctl", "--sync")
        options = ["--output=json", "--no-pager", *([f"--since={since}"] if since else [])]
        lines = self.run("journalctl", *options, *matches).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def now(self) -> str:
        """The host's time, for `journal(since=)`; what is logged next comes later."""
        time.sleep(1.1)
        return self.run("date", "+%Y-%m-%d %H:%M:%S").strip()

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def until(self, true: Callable[[], bool], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.1)


def droplet_of(suite: str, folder: Path) -> Droplet:
    """A host of a suite, not booted yet. On Debian 13 the site is a container."""
    docker = suite == "trixie"
    binds = {tree("image"): Path("/image")} if docker else {}
    return Droplet(f"{suite}-host", tree(suite), folder, filesystem=FILESYSTEMS[suite], docker=docker, binds=binds)
