"""Restores, rehearsals, the doctor and alerts on a booted host, with the backend that really runs there."""

import json
import random
import shlex
import time

import pytest

from portfolio_ops.host import messages
from tests.host.hosts import ROOT, Host
from tests.host.selection import OURS_ALONE

DATABASE = ROOT / "data/portfolio.sqlite"
RECORD = f"{ROOT}/backups/.portfolio-ops/restore.json"
MARK = "CREATE TABLE mark(x)"


def ask(host: Host, sql: str) -> str:
    return host.run("sqlite3", "-cmd", ".timeout 5000", str(DATABASE), sql).strip()


def marked(host: Host) -> bool:
    return ask(host, "SELECT count(*) FROM sqlite_schema WHERE name='mark'") == "1"


def inode(host: Host) -> str:
    return host.run("stat", "-c", "%i", str(DATABASE)).strip()


def restoring(name: str) -> tuple[str, ...]:
    return ("portfolio-ops", "--site", "shop", "restore", "database", name, "--in-place", "--yes")


def mark(host: Host) -> tuple[str, ...]:
    """A change since a backup; gives the restore that takes it away. An undo brings it back.

    It names the backup: the archive, too, may have made one since, as it does when it begins a timeline.
    """
    host.run("systemctl", "reset-failed", "portfolio-backup-daily@shop.service")
    # The volume is small, and its content does not compress.
    host.run("sh", "-c", f"rm -f {ROOT}/backups/daily/* {ROOT}/backups/event-triggered/before-restore-*")
    if marked(host):
        ask(host, "DROP TABLE mark")
    host.run("systemctl", "start", "portfolio-backup-daily@shop.service")
    ask(host, MARK)
    [daily] = host.files("daily")
    return restoring(daily)


def require_well(host: Host) -> None:
    """The site runs and writes, its database is sound, and all of it is the site's."""
    commits = host.site_commits()
    host.until(lambda: host.site_commits() != commits, "the site writes")
    assert host.site()["errors"] == []
    query = "PRAGMA integrity_check; SELECT (SELECT count(*) FROM comments) = (SELECT count(*) FROM mirror)"
    assert ask(host, query).split() == ["ok", "1"]
    files = host.run("find", str(ROOT / "data"), "-mindepth", "1").split()
    assert {path.removeprefix(str(DATABASE)) for path in files} <= {"", "-wal", "-shm"}
    assert set(host.run("stat", "-c", "%u:%g", *files).split()) == {"1001:1001"}


def test_over_the_live_database_under_load_and_back(deployed: Host) -> None:
    restore = mark(deployed)
    mode, since = deployed.run("stat", "-c", "%a", str(DATABASE)), deployed.now()
    deployed.run(*restore)
    assert not marked(deployed)
    require_well(deployed)
    assert deployed.run("stat", "-c", "%a", str(DATABASE)) == mode
    [kept] = [name for name in deployed.files("event-triggered") if name.startswith("before-restore-")]
    assert deployed.run("stat", "-c", "%u:%g", f"{ROOT}/backups/event-triggered/{kept}").strip() == "1001:1001"
    [entry] = deployed.journal(f"MESSAGE_ID={messages.RESTORED.id}", since=since)
    assert entry["PORTFOLIO_SITE"] == "shop"

    deployed.run("portfolio-ops", "--site", "shop", "restore", "undo", "--yes")
    assert marked(deployed)
    require_well(deployed)


def test_a_backend_that_is_not_well_gets_its_former_database_back(deployed: Host) -> None:
    restore = mark(deployed)
    deployed.run("touch", "/srv/backend/sick")
    done = deployed.try_run(*restore)
    deployed.run("rm", "/srv/backend/sick")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the former state is in place" in done.stdout + done.stderr
    assert marked(deployed)
    require_well(deployed)


def test_a_backend_that_ignores_sigterm(deployed: Host) -> None:
    """Docker stop kills it after ten seconds; systemd would after ninety, unless told otherwise."""
    restore = mark(deployed)
    drop_in = "/etc/systemd/system/backend.service.d/stop.conf"
    if deployed.suite == "bookworm":
        deployed.write(drop_in, "[Service]\nTimeoutStopSec=10\n")
        deployed.run("systemctl", "daemon-reload")
    deployed.run("touch", "/srv/backend/deaf")
    try:
        deployed.restart_site()
        deployed.run(*restore)
        assert not marked(deployed)
        deployed.run("rm", "/srv/backend/deaf")
        deployed.restart_site()
        require_well(deployed)
    finally:
        deployed.run("rm", "-f", "/srv/backend/deaf", drop_in)
        deployed.run("systemctl", "daemon-reload")


def test_a_restart_policy_that_fights(deployed: Host) -> None:
    """Stopped behind the back of who restarts it, it comes back at once: either way, one is in place, whole."""
    config = deployed.run("cat", "/etc/portfolio-ops/shop.toml")
    kill = ["pkill", "-KILL", "-f", "/backend.py"]
    commands = {"stop": kill, "start": ["true"], "status": ["pgrep", "-f", "/backend.py"]}
    lines = [f"{verb} = {json.dumps(argv)}" for verb, argv in commands.items()]
    text = config.partition("[backend]")[0] + "\n".join(["[backend]", *lines, ""])
    deployed.write("/etc/portfolio-ops-fights/shop.toml", text)
    drop_in = "/etc/systemd/system/backend.service.d/fights.conf"
    if deployed.suite == "bookworm":
        deployed.write(drop_in, "[Service]\nRestart=always\nRestartSec=0\n[Unit]\nStartLimitIntervalSec=0\n")
        deployed.run("systemctl", "daemon-reload")
    try:
        for _ in range(3):
            _, _, _, *restore = mark(deployed)
            done = deployed.try_run("portfolio-ops", "--config", "/etc/portfolio-ops-fights/shop.toml", *restore)
            assert done.returncode in {0, 7}, done.stdout + done.stderr
            assert marked(deployed) is (done.returncode == 7)
            deployed.until(lambda: deployed.try_run("pgrep", "-f", "/backend.py").returncode == 0, "it runs")
            require_well(deployed)
    finally:
        deployed.run("rm", "-rf", drop_in, "/etc/portfolio-ops-fights")
        deployed.run("systemctl", "daemon-reload")


def test_killed_anywhere_the_next_command_finishes(deployed: Host) -> None:
    chooser = random.Random(7)
    interrupted = 0
    unopened, opened = killed(deployed, mark(deployed), 100, 100)  # it comes to its end: so long it takes here, now
    # The time in which it can be interrupted may be a small part of the whole.
    moments = [(chooser.random() * unopened, 0.0), *((100, chooser.random() * opened) for _ in range(5))]
    for moment in moments:
        killed(deployed, mark(deployed), *moment)
        state = deployed.try_run("cat", RECORD).stdout
        if json.loads(state)["state"] == "open":
            interrupted += 1
            found = "\n".join(deployed.tool("status")["findings"])
            assert "was interrupted" in found
            done = deployed.run("portfolio-ops", "--site", "shop", "restore", "undo", "--yes")
            assert "database is in place" in done or "former state is in place" in done
            assert marked(deployed)
        require_well(deployed)
    assert interrupted >= 2


def killed(host: Host, restore: tuple[str, ...], unopened: float, opened: float) -> tuple[float, float]:
    """A restore that is killed so many seconds after its start, or after its record was opened; how long both took.

    That is done on the host, so that nothing of ssh delays it.
    """
    code = """
import json, os, subprocess, sys, time
record, unopened, opened, *command = sys.argv[1:]
def is_open():
    return os.path.exists(record) and json.loads(open(record).read())["state"] == "open"
began = time.monotonic()
child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
while child.poll() is None and not is_open() and time.monotonic() - began < float(unopened):
    time.sleep(0.001)
found = time.monotonic()
try:
    child.wait(float(opened) if is_open() else 0)
except subprocess.TimeoutExpired:
    child.kill()
child.wait()
print(found - began, time.monotonic() - found)
"""
    done = host.run("python3", "-c", code, RECORD, str(unopened), str(opened), *restore, timeout=250)
    first, second = done.split()
    return float(first), float(second)


def test_a_power_cut_in_the_middle_of_a_restore(deployed: Host) -> None:
    restore = mark(deployed)
    deployed.run("touch", "/srv/backend/sick")  # it waits, with the new database in place
    before = inode(deployed)
    deployed.run("systemd-run", "--quiet", "--unit=restoring", *restore)
    try:
        # Only looked at from outside: whoever opens it is found, and takes the restore back.
        deployed.until(lambda: inode(deployed) != before, "the new database is in place", 30)
    except AssertionError:
        pytest.fail(deployed.run("journalctl", "--no-pager", "-u", "restoring"))
    # It must not come to its end between here and the cut.
    deployed.run("systemctl", "kill", "--signal=STOP", "restoring.service")
    deployed.run("rm", "/srv/backend/sick")
    deployed.run("sync")
    deployed.droplet.crash()
    deployed.start_site()
    done = deployed.run("portfolio-ops", "--site", "shop", "restore", "undo", "--yes")
    assert "an interrupted restore" in done
    assert marked(deployed)
    require_well(deployed)


@OURS_ALONE
def test_only_root_restores_in_place_and_anybody_else_is_told(deployed: Host) -> None:
    done = deployed.try_run("setpriv", "--reuid=1001", "--regid=1001", "--clear-groups", *restoring("latest"))
    assert done.returncode == 3
    assert "sudo" in done.stderr


@OURS_ALONE
def test_social_tables_come_back_while_the_site_writes(deployed: Host) -> None:
    deployed.run("systemctl", "start", "portfolio-backup-social@shop.service")
    before = int(ask(deployed, "SELECT count(*) FROM likes"))
    ask(deployed, "INSERT INTO likes VALUES(123456, 'lost')")
    shown = deployed.run("portfolio-ops", "--site", "shop", "restore", "social", "--dry-run")
    assert "WOULD BE LOST" in shown
    deployed.run("portfolio-ops", "--site", "shop", "restore", "social", "--merge", "--yes")
    assert int(ask(deployed, "SELECT count(*) FROM likes")) == before + 1
    assert deployed.site()["errors"] == []


def start(host: Host, job: str) -> int:
    unit = f"portfolio-{job}@shop.service"
    host.run("systemctl", "reset-failed", unit)
    return host.try_run("systemctl", "start", unit).returncode


def test_a_drill_by_its_timer(deployed: Host) -> None:
    timer = "portfolio-drill@shop.timer"
    drop_in = f"/etc/systemd/system/{timer}.d/99-soon.conf"
    assert start(deployed, "backup-daily") == 0  # of all that the tests before have changed
    since = deployed.now()
    text = "[Timer]\nOnCalendar=\nOnCalendar=2099-01-01\nOnUnitInactiveSec=\nOnActiveSec=1s\n"
    deployed.write(drop_in, text + "RandomizedDelaySec=0\nAccuracySec=1s\n")
    try:
        deployed.run("systemctl", "daemon-reload")
        deployed.run("systemctl", "restart", timer)
        kind = f"MESSAGE_ID={messages.DRILL_PASSED.id}"
        deployed.until(lambda: bool(deployed.journal(kind, since=since)), "the drill passes")
    finally:
        deployed.run("rm", drop_in)
        deployed.run("systemctl", "daemon-reload")
        deployed.run("systemctl", "restart", timer)
    [entry] = deployed.journal(f"MESSAGE_ID={messages.DRILL_PASSED.id}", since=since)
    assert entry["_UID"] == "1001"
    assert float(entry["PORTFOLIO_RECOVERY"]) > 0
    status = deployed.tool("status")
    assert status["drill"]["verdict"] == "passed"
    assert status["jobs"]["drill"]["next_run"] is not None
    deployed.until(lambda: deployed.show("portfolio-drill@shop.service", "ActiveState") == "inactive", "it ends")


def test_a_corrupted_artifact_makes_the_drill_fail_and_people_are_told_until_it_is_well(deployed: Host) -> None:
    assert start(deployed, "backup-daily") == 0
    newest = deployed.tool("list", "daily")["artifacts"][-1]["file"]
    patch = f"printf x | dd of={shlex.quote(newest)} bs=1 seek=100000 conv=notrunc status=none"
    deployed.run("sh", "-c", patch)
    deployed.run("rm", "-f", "/srv/told")
    unit = "portfolio-drill@shop.service"
    assert start(deployed, "drill") != 0
    assert deployed.show(unit, "ExecMainStatus") == "9"
    assert len(deployed.files("quarantine")) == 1
    deployed.until(lambda: "/hook" in {path for path, _ in deployed.told()}, "people are told")
    [told] = [json.loads(body) for path, body in deployed.told() if path == "/hook"]
    assert (told["event"], told["site"], told["job"]) == ("failed", "shop", "drill")
    assert "The drill failed" in told["text"]
    deployed.until(lambda: "/ping/drill/fail" in {path for path, _ in deployed.told()}, "the monitor hears")
    assert "/ping/drill/start" in {path for path, _ in deployed.told()}

    # When it is well, they are told once.
    deployed.run("sh", "-c", f"rm {ROOT}/backups/quarantine/*")
    assert start(deployed, "backup-daily") == 0
    assert start(deployed, "drill") == 0
    deployed.until(lambda: "recovered" in str(deployed.told()), "people hear that it is well")
    assert start(deployed, "drill") == 0
    time.sleep(2)
    hooks = [json.loads(body)["event"] for path, body in deployed.told() if path == "/hook"]
    assert hooks == ["failed", "recovered"]
    assert "/ping/drill" in {path for path, _ in deployed.told()}
    assert deployed.journal(f"MESSAGE_ID={messages.RECOVERED.id}")


def test_a_dead_receiver_delays_and_fails_no_backup(deployed: Host) -> None:
    deployed.run("systemctl", "stop", "receiver.service")
    try:
        began = time.monotonic()
        assert start(deployed, "backup-daily") == 0
        assert time.monotonic() - began < 20
        alert = "portfolio-well@portfolio-backup-daily@shop.service.service"
        deployed.until(lambda: deployed.show(alert, "ActiveState") == "failed", "it gives up", 60)
        assert deployed.show(alert, "ExecMainStatus") == "8"
        assert deployed.journal(f"MESSAGE_ID={messages.RECEIVER_UNREACHED.id}")
    finally:
        deployed.run("systemctl", "start", "receiver.service")
        deployed.run("systemctl", "reset-failed")


def test_the_doctor_finds_the_host_in_order(deployed: Host) -> None:
    for job in ("backup-daily", "logs-rotate", "backup-social", "drill"):
        assert start(deployed, job) == 0
    done = deployed.try_run("portfolio-ops", "--site", "shop", "doctor")
    assert done.returncode == 0, done.stdout
    assert "in the units' sandbox the data can be read" in done.stdout
    assert "runs SQLite 3." in done.stdout
    assert "portfolio-archive@shop.service runs. Timeline " in done.stdout
    if deployed.suite == "trixie":
        assert "grows without a limit" in done.stdout


@OURS_ALONE
@pytest.mark.parametrize("fault", ["timer", "archive", "side file"])
def test_the_doctor_finds_what_is_wrong(deployed: Host, fault: str) -> None:
    harm, words, mend = {
        "timer": (
            ["systemctl", "stop", "portfolio-drill@shop.timer"],
            "portfolio-drill@shop.timer does not run",
            ["systemctl", "start", "portfolio-drill@shop.timer"],
        ),
        "archive": (
            ["systemctl", "stop", "portfolio-archive@shop.service"],
            "portfolio-archive@shop.service does not run",
            ["systemctl", "start", "portfolio-archive@shop.service"],
        ),
        "side file": (
            ["chown", "root:", f"{DATABASE}-shm"],
            "the site may fail to write",
            ["chown", "1001:1001", f"{DATABASE}-shm"],
        ),
    }[fault]
    deployed.run(*harm)
    try:
        done = deployed.try_run("portfolio-ops", "--site", "shop", "doctor")
    finally:
        deployed.run(*mend)
        # It may have looked at the database just while that was root's, or not at all yet.
        deployed.until(
            lambda: deployed.show("portfolio-archive@shop.service", "StatusText").startswith("Timeline"),
            "the archive follows",
        )
    assert done.returncode == 10
    assert words in done.stdout, done.stdout


def test_the_doctor_tries_the_units_sandbox(deployed: Host) -> None:
    drop_in = "/etc/systemd/system/portfolio-doctor@shop.service.d/99-broken.conf"
    deployed.write(drop_in, f"[Service]\nReadOnlyPaths={ROOT}/backups\n")
    deployed.run("systemctl", "daemon-reload")
    try:
        done = deployed.try_run("portfolio-ops", "--site", "shop", "doctor")
    finally:
        deployed.run("rm", drop_in)
        deployed.run("systemctl", "daemon-reload")
        deployed.run("systemctl", "reset-failed")
    assert done.returncode == 10
    assert "cannot be written: Read-only file system" in done.stdout


def test_the_check_asks_the_backend_how_it_is(deployed: Host) -> None:
    assert start(deployed, "check") == 0, deployed.run("journalctl", "-n", "15", "-u", "portfolio-check@shop.service")
    deployed.run("touch", "/srv/backend/sick")
    try:
        assert start(deployed, "check") != 0
        assert "the backend is not well" in deployed.show("portfolio-check@shop.service", "StatusText")
    finally:
        deployed.run("rm", "/srv/backend/sick")
    assert start(deployed, "check") == 0, deployed.run("journalctl", "-n", "15", "-u", "portfolio-check@shop.service")
