"""The jobs as systemd runs them, on a live site: by hand, by a timer that catches up, failing, cut off."""

import json
import re
import shlex
import time
from collections.abc import Callable

import pytest

from portfolio_ops.host import messages
from tests.host.hosts import ROOT, Host

JOBS = {"backup-daily": "daily", "backup-social": "social", "logs-rotate": "logs-archive"}
DATABASE = ROOT / "data/portfolio.sqlite"


def start(host: Host, job: str, site: str = "shop") -> None:
    unit = f"portfolio-{job}@{site}.service"
    host.run("systemctl", "reset-failed", unit)
    done = host.try_run("systemctl", "start", unit)
    assert done.returncode == 0, host.run("journalctl", "--no-pager", "--lines=20", f"--unit={unit}")


def owners(host: Host) -> set[str]:
    return set(host.run("stat", "-c", "%u:%g", *host.run("find", str(ROOT / "data"), "-type", "f").split()).split())


@pytest.mark.parametrize("job", JOBS)
def test_each_job_runs_when_its_unit_is_started(deployed: Host, job: str) -> None:
    before = deployed.files(JOBS[job])
    since = deployed.now()
    start(deployed, job)
    [new] = set(deployed.files(JOBS[job])) - set(before)
    assert not new.startswith(".tmp-")
    kind = messages.LOGS_ROTATED if job == "logs-rotate" else messages.BACKUP_PUBLISHED
    [entry] = deployed.journal(f"MESSAGE_ID={kind.id}", since=since)
    assert entry["PORTFOLIO_SITE"] == "shop"
    assert entry["PORTFOLIO_JOB"] == job
    assert entry["PORTFOLIO_ARTIFACT"] == new
    assert int(entry["PORTFOLIO_BYTES"]) > 0
    assert float(entry["PORTFOLIO_DURATION"]) > 0
    assert entry["_UID"] == "1001"
    assert entry["_SYSTEMD_UNIT"] == f"portfolio-{job}@shop.service"
    status = deployed.show(f"portfolio-{job}@shop.service", "StatusText")
    assert status.startswith("Rotated " if job == "logs-rotate" else f"Published {new}")
    told = deployed.journal(f"_SYSTEMD_UNIT=portfolio-{job}@shop.service", since=since)
    assert len([each for each in told if each.get("PORTFOLIO_ARTIFACT") == new or new in str(each["MESSAGE"])]) == 1
    assert deployed.site()["errors"] == []


def test_the_catalogue_explains_an_entry_in_the_journal(deployed: Host) -> None:
    text = deployed.run("journalctl", "-x", "--no-pager", f"MESSAGE_ID={messages.BACKUP_PUBLISHED.id}")
    assert "Subject: A backup was made, verified and published" in text
    assert "of site shop is complete" in text


@pytest.mark.parametrize("job", JOBS)
def test_each_job_catches_up_on_a_run_that_was_missed(deployed: Host, job: str) -> None:
    timer, stamp = f"portfolio-{job}@shop.timer", f"/var/lib/systemd/timers/stamp-portfolio-{job}@shop.timer"
    before = deployed.files(JOBS[job])
    # It is fixed for a host, and a catch-up waits for it, too: here for seconds, of minutes.
    assert deployed.show(timer, "RandomizedDelayUSec") == "5min"
    drop_in = f"/etc/systemd/system/{timer}.d/99-soon.conf"
    deployed.run("systemctl", "stop", timer)
    deployed.write(drop_in, "[Timer]\nRandomizedDelaySec=5s\n")
    deployed.run("systemctl", "daemon-reload")
    deployed.run("touch", "-d", "9 days ago", stamp)
    deployed.run("systemctl", "reset-failed", f"portfolio-{job}@shop.service")
    try:
        deployed.run("systemctl", "start", timer)
        deployed.until(lambda: len(deployed.files(JOBS[job])) > len(before), f"{job} catches up")
        deployed.until(lambda: deployed.show(f"portfolio-{job}@shop.service", "ActiveState") == "inactive", "it ends")
    finally:
        deployed.run("rm", drop_in)
        deployed.run("systemctl", "daemon-reload")
    assert deployed.show(f"portfolio-{job}@shop.service", "Result") == "success"


def test_a_backup_on_a_gallery_by_hand_steps_down_to_the_owner(deployed: Host) -> None:
    before = set(deployed.files("event-triggered"))
    deployed.run("portfolio-ops", "--site", "shop", "backup", "gallery", "Winter / 冬 '; rm -rf /")
    [name] = set(deployed.files("event-triggered")) - before
    assert deployed.run("stat", "-c", "%u:%g %a", f"{ROOT}/backups/event-triggered/{name}").strip() == "1001:1001 640"


def test_a_daily_restores_with_the_plain_programs(deployed: Host) -> None:
    start(deployed, "backup-daily")
    newest = f"{ROOT}/backups/daily/{max(deployed.files('daily'))}"
    deployed.run("zstd", "-qdf", newest, "-o", "/tmp/restored.sqlite")  # noqa: S108  (in the throwaway host)
    query = "PRAGMA integrity_check; SELECT (SELECT count(*) FROM comments) = (SELECT count(*) FROM mirror)"
    assert deployed.run("sqlite3", "/tmp/restored.sqlite", query).split() == ["ok", "1"]  # noqa: S108


def test_side_files_stay_the_sites_running_and_stopped(deployed: Host) -> None:
    for job in JOBS:
        start(deployed, job)
    assert owners(deployed) == {"1001:1001"}
    deployed.stop_site()
    try:
        before = deployed.run("ls", "-A", str(ROOT / "data"))
        for job in JOBS:
            start(deployed, job)
        assert owners(deployed) == {"1001:1001"}
        assert deployed.run("ls", "-A", str(ROOT / "data")) == before
    finally:
        deployed.start_site()
    commits = deployed.site_commits()
    deployed.until(lambda: deployed.site_commits() > commits, "the site writes again")
    assert deployed.site()["errors"] == []


def test_the_log_keeps_every_line_through_its_rotations(deployed: Host) -> None:
    for _ in range(3):
        start(deployed, "logs-rotate")
        time.sleep(0.3)
    lines = deployed.run("portfolio-ops", "--site", "shop", "logs", "show").splitlines()
    by_process: dict[str, list[int]] = {}
    for line in lines:
        found = re.fullmatch(r"line (\d+) of (\d+)", line)
        assert found, line
        by_process.setdefault(found[2], []).append(int(found[1]))
    runs = [numbers for process in by_process.values() for numbers in _runs(process)]
    assert sum(map(len, runs)) == len(lines)
    assert all(numbers == list(range(len(numbers))) for numbers in runs)


def _runs(numbers: list[int]) -> list[list[int]]:
    """The numbers of one process id, cut where another process of that id began (in a container all are the same)."""
    runs: list[list[int]] = []
    for number in numbers:
        if number == 0:
            runs.append([])
        runs[-1].append(number)
    return runs


PROBE = """
import json, os, socket
def tries(what):
    try:
        what()
    except OSError as error:
        return error.strerror or str(error)
    return "done"
here = os.environ["PROBE_ROOT"]
print("PROBE " + json.dumps({
    "uid": os.getuid(),
    "backups": tries(lambda: open(here + "/backups/daily/.tmp-probe", "w")),
    "etc": tries(lambda: open("/etc/probe", "w")),
    "root": tries(lambda: open(here + "/probe", "w")),
    "tmp": tries(lambda: open("/tmp/probe", "w")),
    "inet": tries(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
    "inet6": tries(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)),
    "other site": tries(lambda: open("/srv/blog/blog.db", "rb")),
    "home": tries(lambda: os.listdir("/home")),
    "links": [line.split(":")[0].strip() for line in open("/proc/self/net/dev") if ":" in line],
    "chown": tries(lambda: os.chown(here + "/backups/daily", 0, 0)),
}), flush=True)
"""


def test_the_sandbox_holds_by_behaviour(deployed: Host) -> None:
    """A program in the unit's own sandbox, as its own user, tries what it must not be able to do."""
    unit = "portfolio-backup-daily@shop.service"
    deployed.write("/usr/local/lib/probe.py", PROBE)
    command = "ExecStart=\nExecStart=/usr/bin/python3 /usr/local/lib/probe.py"
    deployed.write(
        f"/etc/systemd/system/{unit}.d/99-probe.conf",
        f"[Service]\n{command}\nEnvironment=PROBE_ROOT={ROOT}\nStandardOutput=journal\n",
    )
    since = deployed.now()
    try:
        deployed.run("systemctl", "daemon-reload")
        start(deployed, "backup-daily")
    finally:
        deployed.run("rm", "-f", f"/etc/systemd/system/{unit}.d/99-probe.conf", f"{ROOT}/backups/daily/.tmp-probe")
        deployed.run("systemctl", "daemon-reload")
    [said] = [
        entry["MESSAGE"]
        for entry in deployed.journal(f"_SYSTEMD_UNIT={unit}", since=since)
        if str(entry["MESSAGE"]).startswith("PROBE ")
    ]
    found = json.loads(said.removeprefix("PROBE "))
    assert found.pop("uid") == 1001
    assert found.pop("backups") == "done"  # what it is for
    assert found.pop("tmp") == "done"  # its own, private one
    assert deployed.try_run("test", "-e", "/tmp/probe").returncode != 0  # noqa: S108
    assert found.pop("etc") == "Read-only file system"
    assert found.pop("root") == "Read-only file system"
    assert found.pop("inet") == "Address family not supported by protocol"
    assert found.pop("inet6") == "Address family not supported by protocol"
    assert found.pop("other site") == "Permission denied"  # though it is the same user's
    assert found.pop("home") == "Permission denied"
    assert found.pop("links") == ["lo"]
    assert found.pop("chown") == "Operation not permitted"
    assert found == {}


def test_a_job_that_fails_is_tried_again_alerts_once_and_prunes_nothing(deployed: Host) -> None:
    unit = "portfolio-backup-daily@shop.service"
    drop_in = f"/etc/systemd/system/{unit}.d/99-quick.conf"
    deployed.write(drop_in, "[Service]\nRestartSec=1\n")
    deployed.run("systemctl", "daemon-reload")
    deployed.stop_site()
    before = deployed.files("daily")
    # Long out of date: a run that succeeds would prune all but three.
    config = "/etc/portfolio-ops/shop.toml"
    deployed.run("cp", config, "/root/shop.toml")
    deployed.run("sh", "-c", f"printf '[retention]\\ndaily = \"1s\"\\nminimum = 1\\n' >> {config}")
    deployed.run("mv", str(DATABASE), f"{DATABASE}.away")
    since = deployed.now()
    try:
        deployed.run("systemctl", "reset-failed", unit)
        assert deployed.try_run("systemctl", "start", "--no-block", unit).returncode == 0
        deployed.until(lambda: deployed.show(unit, "ActiveState") == "failed", "it fails for good", 40)
        alerts = (f"MESSAGE_ID={messages.ALERT.id}", f"PORTFOLIO_UNIT={unit}")
        deployed.until(lambda: bool(deployed.journal(*alerts, since=since)), "it alerts")
        time.sleep(2)
        # Of this unit: the archive may be about to make a base of the database that is away.
        told = deployed.journal(f"MESSAGE_ID={messages.JOB_FAILED.id}", f"_SYSTEMD_UNIT={unit}", since=since)
        assert len(told) == 5
        [alert] = deployed.journal(*alerts, since=since)
        assert alert["PORTFOLIO_SITE"] == "shop"
        assert alert["PRIORITY"] == "2"
        assert deployed.files("daily") == before
        assert deployed.tool("status")["jobs"]["backup-daily"]["state"] == "failed"
    finally:
        deployed.run("mv", f"{DATABASE}.away", str(DATABASE))
        deployed.run("cp", "/root/shop.toml", config)
        deployed.run("rm", drop_in)
        deployed.run("systemctl", "daemon-reload")
        deployed.start_site()
    deployed.until(lambda: deployed.tool("status")["archive"]["why"] == "", "the archive goes on", 20)
    deployed.accept("shop")
    start(deployed, "backup-daily")
    assert len(deployed.files("daily")) == len(before) + 1


def test_the_hourly_check_fails_while_something_is_wrong_and_says_when_it_is_well(deployed: Host) -> None:
    start(deployed, "check")
    since = deployed.now()
    stray = f"{ROOT}/backups/daily/portfolio-2020-01-01.sqlite.zst"
    deployed.run("sh", "-c", f"head -c 1000 /dev/urandom > {shlex.quote(stray)}")
    try:
        assert deployed.try_run("systemctl", "start", "portfolio-check@shop.service").returncode != 0
        assert deployed.show("portfolio-check@shop.service", "ExecMainStatus") == "10"
        deployed.until(lambda: bool(deployed.journal(f"MESSAGE_ID={messages.ALERT.id}", since=since)), "it alerts")
    finally:
        deployed.run("rm", stray)
    start(deployed, "check")
    assert len(deployed.journal(f"MESSAGE_ID={messages.CHECK_RECOVERED.id}", since=since)) == 1


def test_a_volume_that_is_not_mounted_is_refused(deployed: Host) -> None:
    unit = "portfolio-backup-daily@shop.service"
    drop_in = f"/etc/systemd/system/{unit}.d/99-mount.conf"
    deployed.write(drop_in, "[Unit]\nAssertPathIsMountPoint=/srv\n")
    deployed.run("systemctl", "daemon-reload")
    try:
        before = deployed.files("daily")
        assert deployed.try_run("systemctl", "start", unit).returncode != 0
        assert deployed.files("daily") == before
    finally:
        deployed.run("rm", drop_in)
        deployed.run("systemctl", "daemon-reload")


def test_a_timer_whose_time_the_calendar_skips_runs_all_the_same(deployed: Host) -> None:
    """As on the day of a change to summer time: the next calendar time is far away, only the interval is left."""
    timer = "portfolio-backup-social@shop.timer"
    drop_in = f"/etc/systemd/system/{timer}.d/99-skipped.conf"
    assert deployed.show(timer, "TimersMonotonic").startswith("{ OnUnitInactiveUSec=1w 1h 30min")
    before = deployed.files("social")
    text = "[Timer]\nOnCalendar=\nOnCalendar=2099-01-01\nOnUnitInactiveSec=\nOnUnitInactiveSec=1s\n"
    deployed.write(drop_in, text + "RandomizedDelaySec=0\nAccuracySec=1s\n")
    try:
        deployed.run("systemctl", "daemon-reload")
        deployed.run("systemctl", "restart", timer)
        deployed.until(lambda: len(deployed.files("social")) > len(before), "the export is made")
    finally:
        deployed.run("rm", drop_in)
        deployed.run("systemctl", "daemon-reload")
        deployed.run("systemctl", "restart", timer)


def test_skipped_times_are_real(deployed: Host) -> None:
    """What the timers' interval is for: in this host's zone 02:00 does not exist on 2027-03-28."""
    zone = deployed.run("date", "+%Z", "-d", "2027-03-28 12:00").strip()
    assert zone == "CEST"
    shown = deployed.run(
        "systemd-analyze", "calendar", "--iterations=2", "--base-time=2027-03-27 12:00:00", "*-*-* 02:00:00"
    )
    assert "2027-03-28" not in shown
    assert "2027-03-29 02:00:00" in shown


def test_a_reboot_in_the_middle_of_a_backup_leaves_no_half_file(deployed: Host) -> None:
    _cut_off(deployed, deployed.droplet.reboot)


def test_a_power_cut_in_the_middle_of_a_backup_leaves_no_half_file(deployed: Host) -> None:
    _cut_off(deployed, deployed.droplet.crash)
    assert deployed.journal(f"MESSAGE_ID={messages.RUN_DIED.id}")


FREEZE = """
import os, signal, subprocess, sys
folder, unit = sys.argv[1:]
show = ["systemctl", "show", "--value", "--property=MainPID", unit]
subprocess.run(["systemctl", "start", "--no-block", unit], check=True)
while not any(name.startswith(".tmp-") for name in os.listdir(folder)):
    pass
os.kill(int(subprocess.run(show, check=True, capture_output=True, text=True).stdout), signal.SIGSTOP)
print(*os.listdir(folder), sep="\\n")
"""


def _cut_off(host: Host, cut: Callable[[], None]) -> None:
    unit, folder = "portfolio-backup-daily@shop.service", f"{ROOT}/backups/daily"
    for _ in range(5):
        before = host.files("daily")
        host.run("systemctl", "reset-failed", unit)
        # Held in its middle, so that the cut comes there and not a moment later.
        frozen = host.run("python3", "-c", FREEZE, folder, unit, timeout=20).split()
        if len(frozen) == len(before) + 1 and set(before) < set(frozen):
            break
        # Too late: it had its name already, or was gone.
        host.run("systemctl", "kill", "--signal=CONT", unit)
        host.until(lambda: host.show(unit, "ActiveState") != "activating", "it ends")
    else:
        pytest.fail("a backup could not be caught in its middle")
    cut()
    host.start_site()
    after = host.files("daily")
    assert sorted(name for name in after if not name.startswith(".tmp-")) == sorted(before)
    assert len([each for each in host.tool("list")["artifacts"] if each["kind"] == "daily"]) == len(before)
    start(host, "backup-daily")
    assert len(host.files("daily")) == len(before) + 1
    assert not any(name.startswith(".tmp-") for name in host.files("daily"))
    assert owners(host) == {"1001:1001"}
    assert host.site()["errors"] == []


def test_after_all_this_the_site_has_met_no_error(deployed: Host) -> None:
    assert deployed.site()["errors"] == []
    assert deployed.run("sqlite3", str(DATABASE), "PRAGMA quick_check").strip() == "ok"
