"""The archive as systemd runs it beside a live site: restarted, hung, cut off, idle, and giving way to restores."""

import json
import re
import time

import pytest

from portfolio_ops.host import messages
from portfolio_ops.store import timeline
from tests.host.hosts import ROOT, Host
from tests.host.selection import ANSIBLE_ALONE, OURS_ALONE
from tests.host.test_b_restore import DATABASE, ask, mark, marked, require_well

UNIT = "portfolio-archive@shop.service"
WAL = f"{ROOT}/backups/wal"


def find(host: Host, *conditions: str, show: str = "%P", folder: str = WAL) -> list[str]:
    return host.run("find", folder, "-mindepth", "1", *conditions, "-printf", f"{show}\\n").split()


def timelines(host: Host) -> list[str]:
    return sorted(find(host, "-maxdepth", "1", "-type", "d"))


def archived(host: Host) -> int:
    """Bytes of increments so far."""
    return sum(map(int, find(host, "-name", "*.wal.zst", show="%s")))


def has_base(host: Host) -> bool:
    """Whether a base was published since the newest timeline began."""
    began = timeline.began(max(timelines(host))).timestamp()
    return any(float(moment) >= began for moment in find(host, "-name", "base-*.sqlite.zst", show="%T@"))


def main_pid(host: Host) -> int:
    return int(host.show(UNIT, "MainPID"))


def events(host: Host, kind: messages.Message, since: str) -> int:
    return len(host.journal(f"MESSAGE_ID={kind.id}", "PORTFOLIO_SITE=shop", since=since))


def restart(host: Host) -> None:
    host.run("systemctl", "reset-failed", UNIT)  # the tests start it more often than ten times in half an hour
    host.run("systemctl", "restart", UNIT)


def require_archiving(host: Host) -> None:
    """It runs, what the site commits arrives, a base is there, and the site has met no error."""
    host.until(lambda: host.show(UNIT, "ActiveState") == "active", "it runs")
    before = archived(host)
    host.until(lambda: archived(host) > before, "increments come")
    host.until(lambda: has_base(host), "a base is made", 90)
    assert host.site()["errors"] == []
    assert owners(host) == {"1001:1001"}


def owners(host: Host) -> set[str]:
    return {each for folder in ("data", "backups/wal") for each in find(host, show="%U:%G", folder=f"{ROOT}/{folder}")}


def test_it_runs_as_the_owner_in_the_sandbox_of_the_jobs(deployed: Host) -> None:
    for site in ("shop", "blog"):
        unit = f"portfolio-archive@{site}.service"
        assert deployed.show(unit, "ActiveState") == "active"
        assert deployed.run("systemctl", "is-enabled", unit).strip() == "enabled"
        done = deployed.try_run("systemd-analyze", "verify", unit)
        assert (done.returncode, done.stderr) == (0, "")
        deployed.run("systemd-analyze", "security", "--no-pager", "--threshold=5", unit)  # tenths
    process = f"/proc/{main_pid(deployed)}"
    status = dict(line.split(":\t", 1) for line in deployed.run("cat", f"{process}/status").splitlines())
    assert status["Uid"].split() == ["1001"] * 4
    assert (status["NoNewPrivs"], status["Seccomp"], int(status["CapBnd"], 16)) == ("1", "2", 0)
    for path, allowed in ((f"{WAL}/probe", True), (f"{ROOT}/data/probe", True), (f"{ROOT}/probe", False)):
        assert (deployed.try_run("touch", f"{process}/root{path}").returncode == 0) is allowed, path
    deployed.run("rm", f"{WAL}/probe", f"{ROOT}/data/probe")
    assert deployed.try_run("touch", f"{process}/root/etc/probe").returncode != 0
    assert deployed.try_run("test", "-e", f"{process}/root/srv/blog/blog.db").returncode != 0


def test_a_timeline_begins_with_its_base_and_the_journal_tells(deployed: Host) -> None:
    deployed.until(lambda: has_base(deployed), "a base is made")
    entries = deployed.journal(f"MESSAGE_ID={messages.TIMELINE_BEGUN.id}", "PORTFOLIO_SITE=shop")
    assert entries[-1]["PORTFOLIO_TIMELINE"] == max(timelines(deployed))
    assert (entries[-1]["_UID"], entries[-1]["_SYSTEMD_UNIT"]) == ("1001", UNIT)
    modes = set(find(deployed, "-type", "f", show="%U:%G:%m"))
    assert modes == {"1001:1001:640"}
    text = deployed.run("journalctl", "-x", "--no-pager", f"MESSAGE_ID={messages.TIMELINE_BEGUN.id}")
    assert "every second of the database of site shop" in text


@OURS_ALONE
def test_under_load_increments_come_every_second(deployed: Host) -> None:
    require_archiving(deployed)
    commits = deployed.site_commits()
    sizes = set()
    for _ in range(8):
        sizes.add(archived(deployed))
        time.sleep(1)
    assert len(sizes) >= 5
    assert deployed.site_commits() > commits + 100
    assert deployed.site()["errors"] == []
    assert re.fullmatch(
        r"Timeline \S+: last restore point \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+, \d+ frames in the WAL",
        deployed.show(UNIT, "StatusText"),
    )


@OURS_ALONE
def test_a_restart_goes_on_with_the_same_timeline(deployed: Host) -> None:
    require_archiving(deployed)
    deployed.stop_site()
    try:
        time.sleep(3)  # what it committed last is archived, and its WAL at rest
        before, since = timelines(deployed), deployed.now()
        restart(deployed)
        deployed.until(lambda: events(deployed, messages.ARCHIVE_RESUMED, since) == 1, "it goes on")
    finally:
        deployed.start_site()
    require_archiving(deployed)
    assert timelines(deployed) == before
    assert events(deployed, messages.TIMELINE_ENDED, since) == 0


def gallery_backups(host: Host) -> set[str]:
    return {name for name in host.files("event-triggered") if name.startswith("gallery-added-")}


@OURS_ALONE
def test_a_gallery_that_the_site_adds_is_backed_up(deployed: Host) -> None:
    """Seen under load, with no word from the backend."""
    require_archiving(deployed)
    before = gallery_backups(deployed)
    slug = f"winter-light-{len(before)}"
    as_owner = ("setpriv", "--reuid=1001", "--regid=1001", "--clear-groups")
    added = f"INSERT INTO galleries(slug) VALUES('{slug}')"
    deployed.run(*as_owner, "sqlite3", "-cmd", ".timeout 10000", f"{ROOT}/data/portfolio.sqlite", added)
    deployed.until(lambda: gallery_backups(deployed) > before, "its backup is made", 30)
    [name] = gallery_backups(deployed) - before
    assert name.startswith(f"gallery-added-{slug}-")
    assert deployed.run("stat", "-c", "%u:%g", f"{ROOT}/backups/event-triggered/{name}").strip() == "1001:1001"
    time.sleep(8)
    assert gallery_backups(deployed) - before == {name}
    assert deployed.site()["errors"] == []


@OURS_ALONE
def test_the_archive_is_read_back_and_a_drill_restores_a_second_of_it(deployed: Host) -> None:
    deployed.run("systemctl", "start", "portfolio-backup-daily@shop.service")
    require_archiving(deployed)
    assert deployed.tool("archive", "verify")["damaged"] == []
    deployed.run("systemctl", "start", "portfolio-drill@shop.service")
    evidence = json.loads(deployed.run("cat", f"{ROOT}/backups/.portfolio-ops/drill-report.json"))["evidence"]
    assert any("increments lead to what" in line for line in evidence), evidence
    page = deployed.run("portfolio-ops", "--site", "shop", "report")
    assert all(words in page for words in ("any second", "increments lead to what", "backup-daily"))


def test_a_restart_under_load_is_nothing_to_the_site(deployed: Host) -> None:
    for _ in range(3):
        pid = main_pid(deployed)
        restart(deployed)
        assert main_pid(deployed) != pid
        require_archiving(deployed)
    assert deployed.show(UNIT, "Result") == "success"


def test_one_that_hangs_is_killed_by_the_watchdog_and_comes_back(deployed: Host) -> None:
    drop_in = f"/etc/systemd/system/{UNIT}.d/99-impatient.conf"
    deployed.write(drop_in, "[Service]\nWatchdogSec=10s\n")
    deployed.run("systemctl", "daemon-reload")
    restart(deployed)
    require_archiving(deployed)
    pid, since = main_pid(deployed), deployed.now()
    try:
        stop_between_seals(deployed, pid)
        commits = deployed.site_commits()
        deployed.until(lambda: main_pid(deployed) not in {0, pid}, "it is started again", 90)
        assert deployed.site_commits() > commits + 100
        require_archiving(deployed)
        told = deployed.journal("_PID=1", f"UNIT={UNIT}", since=since)
        assert any("Watchdog timeout" in str(entry["MESSAGE"]) for entry in told)
        assert deployed.show(UNIT, "NRestarts") == "1"
    finally:
        deployed.run("rm", drop_in)
        deployed.run("systemctl", "daemon-reload")
        restart(deployed)


def stop_between_seals(host: Host, pid: int) -> None:
    """Stop the process in its tracks, but not in the milliseconds in which it holds the write lock.

    There, the site would wait until the watchdog has killed it.
    """
    for _ in range(5):
        host.run("kill", "-STOP", str(pid))
        commits = host.site_commits()
        time.sleep(0.7)
        if host.site_commits() > commits:
            return
        host.run("kill", "-CONT", str(pid))
        time.sleep(0.5)
    pytest.fail("the site stands still whenever the archive does")


def test_a_crash_loop_ends_and_people_are_told_once(deployed: Host) -> None:
    drop_in = f"/etc/systemd/system/{UNIT}.d/99-crash.conf"
    deployed.write(drop_in, "[Service]\nExecStart=\nExecStart=/bin/false\nRestartSec=100ms\n")
    deployed.run("systemctl", "daemon-reload")
    deployed.run("systemctl", "reset-failed", UNIT)
    since = deployed.now()
    try:
        deployed.run("systemctl", "restart", "--no-block", UNIT)
        deployed.until(lambda: deployed.show(UNIT, "ActiveState") == "failed", "it is given up")
        alerts = (f"MESSAGE_ID={messages.ALERT.id}", f"PORTFOLIO_UNIT={UNIT}")
        deployed.until(lambda: bool(deployed.journal(*alerts, since=since)), "it alerts")
        time.sleep(2)
        [alert] = deployed.journal(*alerts, since=since)
        assert (alert["PORTFOLIO_SITE"], alert["PORTFOLIO_JOB"]) == ("shop", "archive")
        done = deployed.try_run("portfolio-ops", "--site", "shop", "doctor")
        assert f"{UNIT} has failed for good" in done.stdout
    finally:
        deployed.run("rm", drop_in)
        deployed.run("systemctl", "daemon-reload")
        restart(deployed)
    require_archiving(deployed)


@pytest.mark.parametrize("how", ["reboot", "crash"])
def test_after_a_reboot_in_mid_load_it_archives_again(deployed: Host, how: str) -> None:
    require_archiving(deployed)
    getattr(deployed.droplet, how)()
    deployed.start_site()
    require_archiving(deployed)
    for site in ("shop", "blog"):
        assert deployed.show(f"portfolio-archive@{site}.service", "ActiveState") == "active"
    assert "Failed" not in deployed.run("systemctl", "--failed", "--no-legend")


def test_a_restore_in_place_under_load_begins_a_new_timeline_and_so_does_its_undo(deployed: Host) -> None:
    restore = mark(deployed)
    require_archiving(deployed)
    for command, there in ((restore, False), (("portfolio-ops", "--site", "shop", "restore", "undo", "--yes"), True)):
        before, since, pid = timelines(deployed), deployed.now(), main_pid(deployed)
        deployed.run(*command)
        assert marked(deployed) is there
        require_well(deployed)
        deployed.until(lambda since=since: events(deployed, messages.TIMELINE_BEGUN, since) > 0, "a timeline begins")  # type: ignore[misc]
        require_archiving(deployed)
        assert len(timelines(deployed)) > len(before)
        assert main_pid(deployed) == pid  # it let go of the database, and went on by itself
    assert events(deployed, messages.ARCHIVE_FAILED, since) == 0


@OURS_ALONE
def test_a_database_that_is_put_there_at_once_when_the_site_has_stopped(deployed: Host) -> None:
    """As by hand, without a pause: what the archive has open must not mix it with the former one."""
    require_archiving(deployed)
    old = f"{ROOT}/old.sqlite"
    deployed.run("portfolio-ops", "--site", "shop", "restore", "database", "--to", old)
    compose = "docker compose --project-directory /srv/backend"
    for _ in range(4):
        require_well(deployed)
        time.sleep(1.5)
        deployed.run("sh", "-c", f"{compose} stop && cp {old} {DATABASE} && rm -f {ROOT}/state.json && {compose} start")
        deployed.until(lambda: deployed.site_commits() > 0, "the site writes")
        require_well(deployed)
    told = [each for each in deployed.tool("status")["findings"] if "archive accept" in each]
    assert len(told) == 1, "that another wrote the file"
    assert "accepted: " in deployed.run("portfolio-ops", "--site", "shop", "archive", "accept")
    deployed.run("rm", old)
    require_archiving(deployed)
    assert not [each for each in deployed.tool("status")["findings"] if "archive accept" in each]


@OURS_ALONE
def test_in_place_to_a_second_before_all_comments_were_deleted(deployed: Host) -> None:
    require_archiving(deployed)
    count = int(ask(deployed, "SELECT count(*) FROM comments"))
    time.sleep(2)
    moment = deployed.run("date", "+%s").strip()
    time.sleep(1)
    ask(deployed, "BEGIN; DELETE FROM comments; DELETE FROM mirror; COMMIT")
    time.sleep(2)
    deployed.run("portfolio-ops", "--site", "shop", "restore", "database", "--at", f"@{moment}", "--in-place", "--yes")
    assert int(ask(deployed, "SELECT count(*) FROM comments")) >= count > 100
    require_well(deployed)
    require_archiving(deployed)


@OURS_ALONE
def test_it_sleeps_while_the_site_does(deployed: Host) -> None:
    deployed.stop_site()
    try:
        time.sleep(10)
        status, pid = f"/proc/{main_pid(deployed)}/status", main_pid(deployed)

        def switches() -> int:
            return sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", deployed.run("cat", status))))

        before = switches()
        time.sleep(30)
        assert switches() - before <= 6
        assert main_pid(deployed) == pid
        assert owners(deployed) == {"1001:1001"}
    finally:
        deployed.start_site()
    require_archiving(deployed)


@ANSIBLE_ALONE
def test_a_change_restarts_it_and_a_site_may_do_without(deployed: Host) -> None:
    [shop, blog] = deployed.variables["portfolio_ops_sites"]
    pid = main_pid(deployed)
    try:
        without = {**blog, "archive": False, "api": {"enabled": False}}
        deployed.deploy(portfolio_ops_sites=[{**shop, "retention": {"logs": "8d"}}, without])
        assert main_pid(deployed) not in {0, pid}
        unit = "portfolio-archive@blog.service"
        assert deployed.show(unit, "ActiveState") == "inactive"
        assert deployed.try_run("systemctl", "is-enabled", unit).stdout.strip() == "disabled"
        for each in ("portfolio-api@blog.socket", "portfolio-gallery@blog.path"):
            assert deployed.show(each, "ActiveState") == "inactive"
            assert deployed.try_run("systemctl", "is-enabled", each).stdout.strip() == "disabled"
        deployed.run("systemctl", "start", "portfolio-check@blog.service")  # that is no finding
    finally:
        deployed.deploy()
    assert deployed.show(unit, "ActiveState") == "active"
    assert deployed.run("systemctl", "is-enabled", unit).strip() == "enabled"
    for each in ("portfolio-api@blog.socket", "portfolio-gallery@blog.path"):
        assert deployed.show(each, "ActiveState") == "active"
    require_archiving(deployed)
