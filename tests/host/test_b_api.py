"""Backups that the site's backend asks for, as systemd makes them on a booted host: over HTTP, and by files."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.host import messages
from tests.host.hosts import ROOT, Host

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
SOCKET = f"{ROOT}/run/portfolio-ops.sock"
BLOG = "/srv/blog"
TCP = "http://127.0.0.1:8780"
CREDENTIAL = "/etc/portfolio-ops/credentials/blog-api-token"
API, GALLERY, PATH = "portfolio-api@shop.service", "portfolio-gallery@shop.service", "portfolio-gallery@shop.path"
STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"  # SD_MESSAGE_UNIT_STARTING
STATUS = "/api/admin/backup-status"
OWNER = ("setpriv", "--reuid=1001", "--regid=1001", "--clear-groups")

# What systemd has no part in is tried on one host only; the backend is a container on the second.
ON_BOOKWORM = pytest.mark.parametrize("host", ["bookworm"], indirect=True)
ON_TRIXIE = pytest.mark.parametrize("host", ["trixie"], indirect=True)

# Callers that pause about as long as the server waits before it ends, all at the same time.
CALLERS = """
import http.client, random, socket, sys, threading, time
path, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chooser, answers = random.Random(seed), []
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(path)
def call(pause):
    time.sleep(pause)
    try:
        connection = Connection("localhost")
        connection.request("GET", "/api/admin/backup-status")
        answers.append(str(connection.getresponse().status))
    except Exception as error:
        answers.append(repr(error))
for _ in range(rounds):
    pause = chooser.uniform(0.9, 1.5)
    callers = [threading.Thread(target=call, args=(pause + chooser.uniform(0, 0.05),)) for _ in range(4)]
    for each in callers: each.start()
    for each in callers: each.join()
print(*answers, sep="\\n")
"""


def curl(host: Host, *words: str, user: tuple[str, ...] = ()) -> tuple[int, Any]:
    """A call's status and its answer."""
    done = host.run(*user, "curl", "-sS", "--max-time", "90", "-w", "\\n%{http_code}", *words)
    body, _, status = done.rpartition("\n")
    return int(status), json.loads(body)


def ask(host: Host, path: str, *words: str, socket: str = SOCKET) -> tuple[int, Any]:
    return curl(host, "--unix-socket", socket, *words, f"http://localhost{path}", user=OWNER)


def starts(host: Host, unit: str, since: str) -> int:
    return len(host.journal(f"MESSAGE_ID={STARTING}", f"UNIT={unit}", since=since))


def made(host: Host, root: str = f"{ROOT}/backups") -> set[str]:
    """The names of all backups on events."""
    found = host.try_run("ls", f"{root}/event-triggered").stdout.split()
    return {name for name in found if name.startswith("gallery-added-")}


def galleries(host: Host, site: str, files: set[str]) -> list[str]:
    """The galleries for which these backups were made, as is written in them."""
    listed = json.loads(host.run("portfolio-ops", "--site", site, "--json", "list", "event"))["data"]["artifacts"]
    ids = [each["id"] for each in listed if Path(each["file"]).name in files]
    assert len(ids) == len(files)
    shown = [json.loads(host.run("portfolio-ops", "--site", site, "--json", "show", each)) for each in ids]
    return [name for each in shown for name in each["data"]["details"]["names"]]


def drop(host: Host, unit: str, text: str, *, remove: bool = False) -> None:
    """Change a unit for a while, or take that back."""
    path = f"/etc/systemd/system/{unit}.d/99-test.conf"
    if remove:
        host.run("rm", "-f", path)
    else:
        host.write(path, text)
    host.run("systemctl", "daemon-reload")


def trigger(host: Host, name: str, text: str = "", root: str = str(ROOT)) -> None:
    """Ask by a file, as a container does that has the site's number."""
    script = 'umask 022; cat > "$1/.$2" && mv "$1/.$2" "$1/$2"'
    host.run(*OWNER, "sh", "-c", script, "sh", f"{root}/run/triggers", name, text=text)


def at_rest(host: Host, unit: str = GALLERY) -> bool:
    return host.show(unit, "ActiveState") == "inactive"


def waiting(host: Host, root: str = str(ROOT)) -> str:
    return host.run("ls", "-A", f"{root}/run/triggers").strip()


def test_the_calls_of_the_requirements_wake_it_and_are_answered_as_they_say(deployed: Host) -> None:
    deployed.run("systemctl", "stop", API)
    assert deployed.show("portfolio-api@shop.socket", "ActiveState") == "active"
    since = deployed.now()

    status, manual = ask(deployed, "/api/admin/trigger-backup", "-X", "POST")
    assert (status, manual["success"], manual["message"]) == (200, True, "Manual backup created successfully")
    assert manual["output"]

    header = ("-H", "Content-Type: application/json")
    data = ("-d", '{"galleryName": "new-collection"}')
    status, gallery = ask(deployed, "/api/admin/backup-on-gallery-add", "-X", "POST", *header, *data)
    assert (status, gallery["success"], gallery["galleryName"]) == (200, True, "new-collection")
    assert gallery["message"] == "Gallery backup created successfully"
    assert gallery["output"]

    status, shown = ask(deployed, STATUS)
    assert (status, shown["success"], set(shown)) == (200, True, {"success", "backups"})
    retention = {"daily": "30 days", "social": "12 weeks", "eventTriggered": "90 days", "logsArchive": "7 days"}
    assert {key: value["retention"] for key, value in shown["backups"].items()} == retention
    assert shown["backups"]["daily"]["count"] == len(deployed.files("daily"))
    assert shown["backups"]["eventTriggered"]["count"] == len(deployed.files("event-triggered"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9} \+0[12]00", shown["backups"]["daily"]["latest"])

    status, refused = ask(deployed, "/api/admin/backup-on-gallery-add", "-X", "POST", *header, "-d", "{}")
    assert (status, refused) == (
        400,
        {"success": False, "message": "Gallery name required", "code": "INVALID_REQUEST"},
    )

    published = deployed.journal(f"MESSAGE_ID={messages.BACKUP_PUBLISHED.id}", since=since)
    ours = [each for each in published if each["_SYSTEMD_UNIT"] == GALLERY]
    assert [each["PORTFOLIO_ARTIFACT"] for each in ours] == [manual["backup"]["file"], gallery["backup"]["file"]]
    assert {each["_UID"] for each in ours} == {"1001"}
    assert starts(deployed, API, since) == 1
    told = deployed.journal(f"MESSAGE_ID={messages.API_ANSWERED.id}", f"_SYSTEMD_UNIT={API}", since=since)
    assert [each["PORTFOLIO_STATUS"] for each in told] == ["200", "200", "200", "400"]
    assert all(each["PORTFOLIO_PEER"].startswith("uid 1001, ") for each in told)


def test_the_installed_units_stand_before_systemd_itself(deployed: Host) -> None:
    for name in (API, GALLERY, PATH, "portfolio-api@shop.socket", "portfolio-api@blog.socket"):
        done = deployed.try_run("systemd-analyze", "verify", name)
        assert (done.returncode, done.stderr) == (0, "")
    for name in (API, GALLERY, "portfolio-api@blog.service"):
        deployed.run("systemd-analyze", "security", "--no-pager", "--threshold=5", name)  # tenths


def test_it_may_write_requests_and_nothing_else(deployed: Host) -> None:
    assert ask(deployed, "/healthz")[0] in {200, 503}  # it looks at all that it can read
    process = f"/proc/{deployed.show(API, 'MainPID')}"
    status = dict(line.split(":\t", 1) for line in deployed.run("cat", f"{process}/status").splitlines())
    assert status["Uid"].split() == ["1001"] * 4
    assert (status["NoNewPrivs"], status["Seccomp"], int(status["CapBnd"], 16)) == ("1", "2", 0)
    for folder, allowed in (("run/triggers", True), ("run", False), ("data", False), ("backups", False), ("", False)):
        done = deployed.try_run("touch", f"{process}/root{ROOT}/{folder}/.probe")
        assert (done.returncode == 0) is allowed, folder
    deployed.run("rm", f"{ROOT}/run/triggers/.probe")
    assert deployed.try_run("test", "-e", f"{process}/root{BLOG}/blog.db").returncode != 0


def test_the_socket_is_open_to_one_group(deployed: Host) -> None:
    folder, socket = deployed.run("stat", "-c", "%U:%g %a", f"{ROOT}/run", SOCKET).splitlines()
    assert (folder, socket) == ("root:1001 2755", "root:1001 660")
    for allowed in (OWNER, ("setpriv", "--reuid=2000", "--regid=1001", "--clear-groups")):
        words = ("--unix-socket", SOCKET, f"http://localhost{STATUS}")
        assert curl(deployed, *words, user=allowed)[0] == 200
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect({SOCKET!r})"
    stranger = ("setpriv", "--reuid=2000", "--regid=2000", "--clear-groups")
    done = deployed.try_run(*stranger, "python3", "-c", connect)
    assert "PermissionError: [Errno 13]" in done.stderr
    assert "Permission denied" in deployed.try_run(*stranger, "touch", f"{ROOT}/run/triggers/x").stderr


def test_over_tcp_a_token_is_asked_for(deployed: Host) -> None:
    token = deployed.run("cat", CREDENTIAL)
    assert re.fullmatch(r"[A-Za-z0-9]{43}", token)
    assert deployed.run("stat", "-c", "%U %a", CREDENTIAL).strip() == "root 600"
    bearer = ("-H", f"Authorization: Bearer {token}")
    status, refused = curl(deployed, TCP + STATUS)
    assert (status, refused["success"], refused["code"]) == (401, False, "UNAUTHORIZED")
    status, refused = curl(deployed, "-H", "Authorization: Bearer wrong", TCP + STATUS)
    assert (status, refused["success"], refused["code"]) == (403, False, "FORBIDDEN")
    assert curl(deployed, *bearer, TCP + STATUS)[0] == 200
    assert "findings" not in curl(deployed, f"{TCP}/healthz")[1]
    # Where one is asked for, it is asked for on both sockets; and the other site does not take it.
    assert ask(deployed, STATUS, socket=f"{BLOG}/run/portfolio-ops.sock")[0] == 401
    assert ask(deployed, STATUS, *bearer, socket=f"{BLOG}/run/portfolio-ops.sock")[0] == 200

    assert token not in deployed.run("cat", "/etc/portfolio-ops/blog.toml")
    assert token not in deployed.run("systemctl", "show", "portfolio-api@blog.service")
    assert token not in "".join(str(each) for each in deployed.journal("PORTFOLIO_SITE=blog"))
    stranger = ("setpriv", "--reuid=2000", "--regid=1001", "--clear-groups")
    for path in (CREDENTIAL, "/run/credentials/portfolio-api@blog.service/api-token"):
        deployed.run("test", "-e", path)
        assert "Permission denied" in deployed.try_run(*stranger, "cat", path).stderr


def test_a_file_in_the_folder_makes_one_backup(deployed: Host) -> None:
    before = made(deployed)
    trigger(deployed, "winter")
    deployed.until(lambda: made(deployed) != before, "it is made")
    [new] = made(deployed) - before
    assert new.startswith("gallery-added-winter-")
    deployed.until(lambda: at_rest(deployed), "it ends")
    assert made(deployed) == before | {new}
    assert waiting(deployed) == ""


def test_what_is_no_request_is_put_aside_with_the_reason(deployed: Host) -> None:
    before, since = made(deployed), deployed.now()
    # In the order of their names. The last is a folder that its owner may not move.
    make = "ln -s /etc/shadow link; mkfifo fifo; mkdir folder; echo '{\"galleryName\": 7}' > .x; mv .x seven"
    deployed.run(*OWNER, "sh", "-c", f"cd {ROOT}/run/triggers && {make}; mkdir -m 555 untouchable")
    trigger(deployed, "torn", '{"galleryName": "Wint')

    def reasons() -> dict[str, str]:
        found = deployed.run("sh", "-c", f"cd {ROOT}/run/failed && head -v -n 1 *.reason 2>/dev/null || true")
        return dict(re.findall(r"==> \S+?Z?-(\S+)\.reason <==\n(.*)\n", found + "\n"))

    deployed.until(lambda: len(reasons()) == 5, "all are put aside")
    assert "no text" in reasons()["seven"]
    assert "neither empty nor JSON" in reasons()["torn"]
    assert {"no regular file" in reasons()[each] for each in ("link", "fifo", "folder")} == {True}
    assert re.fullmatch(r"\.\w+\.\d+-untouchable", waiting(deployed))
    deployed.run("rmdir", f"{ROOT}/run/triggers/{waiting(deployed)}")
    told = deployed.journal(f"MESSAGE_ID={messages.TRIGGER_REFUSED.id}", since=since)
    assert {each["_SYSTEMD_UNIT"] for each in told} == {GALLERY}
    assert len(told) == 6
    deployed.until(lambda: at_rest(deployed), "it ends")
    assert deployed.show(GALLERY, "Result") == "success"
    assert made(deployed) == before
    deployed.run("sh", "-c", f"rm -r {ROOT}/run/failed/*")


@ON_TRIXIE
def test_the_backend_adds_galleries_and_asks_in_every_way(deployed: Host) -> None:
    before = made(deployed)
    for way, status in (("http", 200), ("file", 0), ("nothing", 0)):
        wanted = json.dumps({"slug": f"by-{way}", "ask": way})
        assert curl(deployed, "-d", wanted, "http://127.0.0.1:3000/galleries") == (200, {"status": status})
    # The last one is seen by the archive.
    starts = {f"gallery-added-by-{way}-" for way in ("http", "file", "nothing")}
    cut = len("2026-11-23-143022.sqlite.zst")
    deployed.until(lambda: starts <= {name[:-cut] for name in made(deployed) - before}, "all are made")
    assert {"by-http", "by-file", "by-nothing"} <= set(galleries(deployed, "shop", made(deployed) - before))
    deployed.until(lambda: at_rest(deployed), "it ends")


@ON_TRIXIE
def test_nodes_client_in_the_container_with_the_volumes_of_the_guide(deployed: Host) -> None:
    volumes = (EXAMPLES / "compose.override.yaml").read_text().replace("/mnt/lupoportfolio/portfolio-prod", str(ROOT))
    assert str(ROOT) in volumes
    deployed.write("/srv/backend/guide.yaml", volumes)
    deployed.write("/srv/backend/backup-client.mjs", (EXAMPLES / "backup-client.mjs").read_text())
    files = ("-f", "/srv/backend/compose.yaml", "-f", "/srv/backend/guide.yaml")
    once = (
        "docker",
        "compose",
        "--project-directory",
        "/srv/backend",
        *files,
        "run",
        "--rm",
        "--no-deps",
        "-T",
        "backend",
    )
    since = deployed.now()
    status, _, answer = deployed.run(*once, "node", "/backend/backup-client.mjs", "From Node").partition(" ")
    assert (status, json.loads(answer)["galleryName"]) == ("200", "From Node")
    [told] = deployed.journal(f"MESSAGE_ID={messages.API_ANSWERED.id}", f"_SYSTEMD_UNIT={API}", since=since)
    assert told["PORTFOLIO_PEER"].startswith("uid 1001, ")
    done = deployed.try_run(*once, "sh", "-c", "ls /app/backups/daily >&2 && touch /app/backups/x")
    assert "portfolio-" in done.stderr
    assert "Read-only file system" in done.stderr


@ON_BOOKWORM
def test_a_burst_loses_nobody(deployed: Host) -> None:
    wanted = [f"burst-{number}" for number in range(1000)]
    before = made(deployed, f"{BLOG}/kept")
    script = f"cd {BLOG}/run/triggers && for i in $(seq 0 999); do : > burst-$i; done"
    deployed.run(*OWNER, "sh", "-c", script)
    unit = "portfolio-gallery@blog.service"
    deployed.until(lambda: not waiting(deployed, BLOG) and at_rest(deployed, unit), "all are made")
    new = made(deployed, f"{BLOG}/kept") - before
    assert sorted(galleries(deployed, "blog", new)) == sorted(wanted)
    assert len(new) < 20
    assert deployed.show("portfolio-gallery@blog.path", "ActiveState") == "active"
    assert deployed.run("ls", "-A", f"{BLOG}/run/failed") == ""


def test_it_ends_when_nobody_calls_and_no_call_is_lost_by_that(deployed: Host) -> None:
    command = "ExecStart=\nExecStart=/opt/portfolio-ops/current/bin/portfolio-ops --site %i serve --idle 1s\n"
    # Nobody is this impatient: it would be started too often.
    drop(deployed, API, f"[Unit]\nStartLimitIntervalSec=0\n[Service]\n{command}")
    deployed.run("systemctl", "stop", API)
    since = deployed.now()
    try:
        answered = deployed.run(*OWNER, "python3", "-", SOCKET, "7", "4", text=CALLERS).split()
        assert answered == ["200"] * 16
        deployed.until(lambda: at_rest(deployed, API), "it ends")
        assert starts(deployed, API, since) >= 2
        assert deployed.show(API, "Result") == "success"
        assert deployed.show("portfolio-api@shop.socket", "ActiveState") == "active"
    finally:
        drop(deployed, API, "", remove=True)


def test_stopped_while_somebody_waits_it_says_where_to_ask_and_a_stopped_watcher_is_found(deployed: Host) -> None:
    before = made(deployed)
    deployed.run("systemctl", "stop", PATH)
    try:
        name = ("-H", "Content-Type: application/json", "-d", '{"galleryName": "patience"}')
        url = "http://localhost/api/admin/backup-on-gallery-add"
        call = ["curl", "-sS", "--max-time", "60", "-o", "/tmp/answer", "--unix-socket", SOCKET, *name, url]  # noqa: S108
        deployed.run("systemd-run", "--quiet", "--unit=waits", "--uid=1001", "--gid=1001", *call)
        deployed.until(lambda: waiting(deployed) != "", "it is asked for")
        began = time.monotonic()
        deployed.run("systemctl", "stop", API)
        assert time.monotonic() - began < 20
        deployed.until(lambda: deployed.show("waits.service", "ActiveState") == "inactive", "it is answered")
        answer = json.loads(deployed.run("cat", "/tmp/answer"))  # noqa: S108
        assert (answer["success"], answer["state"]) == (True, "waiting")
        assert ask(deployed, answer["statusUrl"])[1]["state"] == "waiting"

        findings = "\n".join(deployed.tool("status")["findings"])
        assert f"{PATH} does not run (inactive)" in findings
        done = deployed.try_run("portfolio-ops", "--site", "shop", "doctor")
        assert done.returncode == 10
        assert f"{PATH} does not run (inactive)" in done.stdout
    finally:
        deployed.run("systemctl", "start", PATH)
    deployed.until(lambda: ask(deployed, answer["statusUrl"])[1]["state"] == "done", "it is made")
    new = made(deployed) - before
    assert galleries(deployed, "shop", new) == ["patience"]

    deployed.run("systemctl", "stop", "portfolio-api@shop.socket")
    try:
        assert deployed.try_run("test", "-e", SOCKET).returncode != 0  # no dead one that looks alive
        assert deployed.show(API, "ActiveState") == "inactive"
        assert "portfolio-api@shop.socket does not run" in "\n".join(deployed.tool("status")["findings"])
    finally:
        deployed.run("systemctl", "start", "portfolio-api@shop.socket")
    # Restarted while its service runs.
    assert ask(deployed, STATUS)[0] == 200
    deployed.run("systemctl", "restart", "portfolio-api@shop.socket")
    assert ask(deployed, STATUS)[0] == 200


def test_a_broken_configuration_is_no_hot_loop_and_the_request_waits(deployed: Host) -> None:
    file = "/etc/portfolio-ops/blog.toml"
    made_once_mended(deployed, "mended", f"echo nonsense >> {file}", f"sed -i '$d' {file}")


@ON_BOOKWORM
def test_a_request_waits_for_a_database_that_is_not_there(deployed: Host) -> None:
    made_once_mended(deployed, "back", f"mv {BLOG}/blog.db {BLOG}/away.db", f"mv {BLOG}/away.db {BLOG}/blog.db")
    deployed.accept("blog")


def made_once_mended(host: Host, name: str, harm: str, mend: str) -> None:
    unit = "portfolio-gallery@blog.service"
    drop(host, unit, "[Service]\nRestartSec=1s\n")
    host.run("sh", "-c", harm)
    since = host.now()
    try:
        trigger(host, name, root=BLOG)
        time.sleep(3)
        assert 1 <= starts(host, unit, since) <= 3
        assert host.show("portfolio-gallery@blog.path", "ActiveState") == "active"
    finally:
        host.run("sh", "-c", mend)
    wanted = f"gallery-added-{name}-"
    host.until(lambda: any(each.startswith(wanted) for each in made(host, f"{BLOG}/kept")), "it is made")
    host.until(lambda: at_rest(host, unit), "it ends")
    drop(host, unit, "", remove=True)
    assert waiting(host, BLOG) == ""


@ON_TRIXIE
def test_a_request_waits_for_room_on_the_disk(deployed: Host) -> None:
    drop(deployed, GALLERY, "[Service]\nRestartSec=2s\n")
    before = made(deployed)
    # So much is left that the site does not notice.
    fill = "size=$(df -B1 --output=size . | tail -n 1); free=$(df -B1 --output=avail . | tail -n 1)"
    deployed.run("sh", "-c", f"cd {ROOT} && {fill}; fallocate -l $((free - size / 20 - 8000000)) filler")
    try:
        trigger(deployed, "no room")
        told = (f"MESSAGE_ID={messages.JOB_FAILED.id}", f"_SYSTEMD_UNIT={GALLERY}")
        deployed.until(lambda: any("free" in str(each["MESSAGE"]) for each in deployed.journal(*told)), "it is refused")
        assert made(deployed) == before
        assert waiting(deployed) == ""  # it is kept where no container can delete it
    finally:
        deployed.run("rm", f"{ROOT}/filler")
    deployed.until(lambda: len(made(deployed)) == len(before) + 1, "it is made")
    deployed.until(lambda: at_rest(deployed), "it ends")
    drop(deployed, GALLERY, "", remove=True)


def test_after_all_this_nothing_has_failed_and_the_site_has_met_no_error(deployed: Host) -> None:
    deployed.run("systemctl", "reset-failed", "portfolio-alert@*")
    failed = deployed.run("systemctl", "--failed", "--no-legend", "--plain")
    assert "portfolio-api" not in failed
    assert "portfolio-gallery" not in failed
    # In its sandbox it can tell that a unit watches the folder, and it reads all that it needs.
    assert [each["MESSAGE"] for each in deployed.journal(f"_SYSTEMD_UNIT={API}", "--priority=warning")] == []
    assert deployed.site()["errors"] == []
    owners = deployed.run("find", f"{ROOT}/data", f"{ROOT}/backups", "-printf", "%U:%G\\n").split()
    assert set(owners) == {"1001:1001"}
