"""The worst: all backups are removed; the host is lost, and a copy of its backups is not."""

import json
import re
import time

from tests.host.hosts import ROOT, Host
from tests.host.selection import ANSIBLE_ALONE, OURS_ALONE
from tests.host.test_b_z_guides import blocks


def content(host: Host) -> str:
    """Of the whole database, as text."""
    return host.run("sqlite3", f"{ROOT}/data/portfolio.sqlite", ".dump", timeout=120)


def plan(host: Host) -> str:
    """What a restore of the latest backup would do."""
    return host.run("portfolio-ops", "--site", "shop", "restore", "database", "latest", "--in-place", "--dry-run")


def last_words(host: Host) -> bool:
    """Commit something; whether that is archived, and in no backup: the stop of the site may have asked for one."""
    owner = ("setpriv", "--reuid=1001", "--regid=1001", "--clear-groups")
    host.run(*owner, "sqlite3", f"{ROOT}/data/portfolio.sqlite", "INSERT INTO comments(body) VALUES('the last words')")
    time.sleep(1.5)
    return "\nlater " in plan(host)


@OURS_ALONE
def test_a_site_comes_back_on_a_new_host(deployed: Host) -> None:
    before, look, bring_back, after = blocks("new-host.md")
    deployed.stop_site()
    deployed.until(lambda: last_words(deployed), "a moment behind the latest backup")
    deployed.until(lambda: deployed.tool("status")["archive"]["lag_bytes"] == 0, "all of it is archived")
    last = deployed.tool("list", "points")["windows"][-1]["last"]
    lost = content(deployed)
    # Copied as somebody else, while the archive runs.
    copy = ("cp", "-rT", "--no-preserve=all", f"{ROOT}/backups", "/srv/offsite")
    deployed.until(lambda: deployed.try_run(*copy).returncode == 0, "a copy while nothing unfinished goes")
    removed = deployed.droplet.play("remove.yml", {})
    assert removed.returncode == 0, removed.stdout[-3000:]
    deployed.run("rm", "-rf", str(ROOT), "/etc/portfolio-ops")

    deployed.run("bash", "-s", text=before)
    deployed.deploy()
    deployed.run("bash", "-s", text=look)
    [later] = re.findall(r"^later .* --at (\S+)$", plan(deployed), re.MULTILINE)
    assert later == last
    deployed.run("bash", "-s", text=re.sub(r"--at \S+", f"--at {later}", bring_back))
    assert content(deployed) == lost
    assert deployed.run("stat", "-c", "%u:%g %a", f"{ROOT}/data/portfolio.sqlite").strip() == "1001:1001 640"

    deployed.start_site()
    deployed.until(lambda: len(deployed.tool("list", "points")["windows"]) > 1, "a new timeline begins")
    deployed.until(lambda: deployed.tool("list", "wal")["artifacts"][-1]["taken"] > last, "it has its base")
    deployed.run("bash", "-s", text=after, timeout=200)
    assert deployed.tool("status")["drill"]["verdict"] == "passed"
    assert [each["start"] for each in deployed.tool("list", "points")["holes"]][-1] == last
    assert deployed.site()["errors"] == []
    deployed.run("rm", "-r", "/srv/offsite")


@ANSIBLE_ALONE
def test_backups_that_were_removed_are_missed_and_a_deployment_mends_it(deployed: Host) -> None:
    unit = "portfolio-archive@shop.service"
    deployed.run("mv", f"{ROOT}/backups", f"{ROOT}/lost")
    deployed.until(lambda: deployed.show(unit, "ActiveState") != "active", "the archive ends")
    deployed.until(
        lambda: (
            deployed.try_run("systemctl", "start", unit).returncode != 0
            and deployed.show(unit, "ActiveState") == "failed"
        ),
        "it is given up",
    )
    findings = deployed.tool("status")["findings"]
    assert f"there is no folder {ROOT}/backups, and no unit starts without it" in str(findings)
    assert f"{unit} does not run (failed)" in str(findings)
    deployed.try_run("systemctl", "start", "portfolio-check@shop.service")
    deployed.until(lambda: "a folder that the unit needs is missing" in str(deployed.told()), "it is told")
    deployed.deploy()
    assert deployed.show(unit, "ActiveState") == "active"
    deployed.until(lambda: bool(deployed.tool("list", "points")["windows"]), "there are moments to restore")
    assert not [each for each in deployed.tool("status")["findings"] if "archive" in each or "folder" in each]
    deployed.run("rm", "-r", f"{ROOT}/lost")


@OURS_ALONE  # though Ansible's as well: the other host takes longer
def test_a_site_gets_another_name(deployed: Host) -> None:
    put_aside, look, former = blocks("rename.md")
    deployed.until(lambda: bool(deployed.tool("list", "points")["windows"]), "there are moments to restore")
    before = deployed.files("daily")
    deployed.run("systemctl", "stop", "portfolio@shop.target", "portfolio-archive@shop.service")
    timers = [each["cure"] for each in deployed.tool("doctor")["findings"] if each["subject"] == "timers"]
    assert timers == ["systemctl start portfolio@shop.target"]
    deployed.run("bash", "-s", text=put_aside)
    shop, blog = deployed.variables["portfolio_ops_sites"]
    deployed.deploy(portfolio_ops_sites=[{**shop, "name": "store"}, blog])
    store = ("portfolio-ops", "--site", "store", "--json")
    deployed.until(
        lambda: json.loads(deployed.run(*store, "list", "points"))["data"]["windows"] != [], "a new timeline begins"
    )
    deployed.run("bash", "-s", text=look)
    deployed.run("bash", "-s", text=former)
    assert deployed.try_run("test", "-e", "/etc/portfolio-ops/shop.toml").returncode != 0
    assert deployed.run("ls", f"{ROOT}/backups-shop/daily").split() == before
    assert deployed.show("portfolio-archive@shop.service", "ActiveState") == "inactive"
    done = deployed.try_run(*store, "drill")
    assert json.loads(done.stdout)["data"]["reasons"] == []
    assert "shop" not in str(json.loads(deployed.run(*store, "status"))["data"]["findings"])
    # And back: what was made as another site is put aside as well, not named, and stays.
    deployed.run("systemctl", "stop", "portfolio@store.target", "portfolio-archive@store.service")
    deployed.run("mv", "-T", f"{ROOT}/backups", f"{ROOT}/backups-store")
    deployed.run("mv", "-T", f"{ROOT}/backups-shop", f"{ROOT}/backups")
    deployed.deploy()
    assert deployed.files("daily") == before
    deployed.run("rm", "-r", f"{ROOT}/backups-store", "/root/former")
    assert deployed.site()["errors"] == []
