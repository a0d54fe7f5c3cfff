"""Deploying: on a virgin host, again, with changes. These run first, in this order, and leave the host deployed."""

import re
from typing import Any

from tests.host.hosts import BLOG, ROOT, Host
from tests.host.selection import ANSIBLE_ALONE

UNITS = ("backup-daily", "backup-social", "logs-rotate", "check", "drill")


def changed(output: str) -> int:
    found = re.search(r"changed=(\d+)", output)
    assert found is not None
    return int(found[1])


def test_the_target_has_neither_compiler_nor_network_nor_pip(host: Host) -> None:
    for program in ("gcc", "cc", "pip", "pip3"):
        assert host.try_run("which", program).returncode != 0
    assert host.run("ip", "-brief", "link", "show", "up").split()[0] == "lo"
    assert host.try_run("python3", "-c", "import ensurepip").returncode != 0


@ANSIBLE_ALONE
def test_check_mode_works_on_a_virgin_host_and_changes_nothing(host: Host) -> None:
    assert changed(host.deploy("--check", "--diff")) > 0
    assert host.try_run("test", "-e", "/opt/portfolio-ops").returncode != 0
    assert host.try_run("test", "-e", "/etc/portfolio-ops").returncode != 0
    assert host.try_run("test", "-e", f"{ROOT}/backups").returncode != 0


def test_deploying_twice_changes_nothing_the_second_time(host: Host) -> None:
    assert changed(host.deploy()) > 0
    assert changed(host.deploy()) == 0


def test_the_first_backup_is_made(deployed: Host) -> None:
    assert len(deployed.files("daily")) == 1
    assert deployed.show("portfolio-backup-daily@shop.service", "Result") == "success"


def test_every_timer_is_listed_with_its_next_run(deployed: Host) -> None:
    listed = deployed.run("systemctl", "list-timers", "--no-pager", "portfolio-*")
    for site in ("shop", "blog"):
        for unit in UNITS:
            [line] = [line for line in listed.splitlines() if f"portfolio-{unit}@{site}.timer" in line]
            assert re.match(r"\w{3} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line), line
    assert "02:0" in re.search(r".*portfolio-backup-daily@shop.timer.*", listed)[0]  # type: ignore[index]
    assert "04:3" in re.search(r".*portfolio-backup-daily@blog.timer.*", listed)[0]  # type: ignore[index]
    for job in ("backup-daily", "backup-social", "logs-rotate"):
        assert deployed.tool("status")["jobs"][job]["next_run"] is not None
    assert deployed.run("systemctl", "--failed", "--no-legend").strip() == ""


def test_the_installed_units_stand_before_systemd_itself(deployed: Host) -> None:
    for unit in UNITS:
        name = f"portfolio-{unit}@shop.service"
        done = deployed.try_run("systemd-analyze", "verify", name)
        assert (done.returncode, done.stderr) == (0, "")
        most = 11 if unit == "check" else 5  # tenths; it asks the backend for its health, over the loopback
        deployed.run("systemd-analyze", "security", "--no-pager", f"--threshold={most}", name)
        assert deployed.show(name, "User") == "1001"
    for messenger in ("alert", "ping", "well"):
        name = f"portfolio-{messenger}@x@shop.service.service"
        done = deployed.try_run("systemd-analyze", "verify", name)
        assert (done.returncode, done.stderr) == (0, "")
        deployed.run("systemd-analyze", "security", "--no-pager", "--threshold=11", name)  # they have a network


def test_secrets_are_roots_alone(deployed: Host) -> None:
    file = "/etc/portfolio-ops/credentials/shop.chat"
    assert deployed.run("stat", "-c", "%U %a", file).strip() == "root 600"
    assert "credential:shop.chat" in deployed.run("portfolio-ops", "--site", "shop", "config", "show")
    assert "8099/hook" not in deployed.run("cat", "/etc/portfolio-ops/shop.toml")


def test_the_configuration_is_what_was_asked_for(deployed: Host) -> None:
    shown = deployed.run("portfolio-ops", "--site", "blog", "config", "show")
    assert "/srv/blog" in shown
    assert re.search(r"retention.daily\s+10d", shown)
    assert deployed.run("portfolio-ops", "--site", "blog", "backup", "social").count("social-tables-") >= 1


@ANSIBLE_ALONE
def test_a_misspelt_variable_is_refused_by_name(deployed: Host) -> None:
    done = deployed.droplet.play("deploy.yml", {**deployed.variables, "portfolio_ops_keep_releases": 3}, "--check")
    assert done.returncode != 0
    assert "unknown variable: portfolio_ops_keep_releases" in done.stdout


@ANSIBLE_ALONE
def test_settings_that_are_refused_leave_the_former_ones_in_place_and_the_jobs_running(deployed: Host) -> None:
    shop: dict[str, Any] = deployed.variables["portfolio_ops_sites"][0]
    bad = {"retention": {"daily": "30 days"}}
    deployed.run("mkdir", "-p", "/srv/fresh/data")
    fresh = {"name": "fresh", "root": "/srv/fresh", **bad}
    sites = [{**shop, **bad}, {**BLOG, "backups": "elsewhere"}, fresh]
    laid = ("find", "/etc/portfolio-ops", "/etc/systemd/system", "/srv/fresh", "/srv/blog", "-maxdepth", "1")
    looked = (*laid, "-not", "-name", "*-shm", "-printf", "%p %s %T@\n")
    before = deployed.run(*looked)
    for options in ((), ("--check",)):
        done = deployed.droplet.play("deploy.yml", {"portfolio_ops_sites": sites}, *options)
        assert done.returncode != 0
        assert deployed.run(*looked) == before
        for name in ("shop", "fresh"):
            assert f"/etc/portfolio-ops/{name}.toml: retention.daily '30 days' is not a duration" in done.stdout
        assert "backups would be /srv/blog/elsewhere, and not all that /srv/blog/kept holds is there" in done.stdout
        assert "8099/hook" not in done.stdout  # a secret
        assert changed(done.stdout) == 0
    assert "fresh" not in before.replace("/srv/fresh", "")
    deployed.run("systemctl", "start", "portfolio-logs-rotate@shop.service", "portfolio-backup-social@blog.service")
    assert deployed.show("portfolio-archive@shop.service", "ActiveState") == "active"
    deployed.run("rm", "-r", "/srv/fresh")


@ANSIBLE_ALONE
def test_a_site_below_home_comes_and_one_that_is_no_longer_listed_keeps_its_data(deployed: Host) -> None:
    root = "/home/deploy/my site"
    deployed.run("mkdir", "-p", f"{root}/data")
    deployed.run("sqlite3", f"{root}/data/portfolio.sqlite", "CREATE TABLE posts(id INTEGER PRIMARY KEY)")
    deployed.run("chown", "-R", "1003:1004", "/home/deploy")
    deployed.run("chmod", "700", "/home/deploy")
    home = {
        "name": "home",
        "root": root,
        "logs": [],
        "social_tables": ["posts"],
        "alert": {"webhook": "credential:chat"},  # as the other site's, and another secret
        "credentials": {"chat": "http://127.0.0.1:8099/home"},
    }
    shop = deployed.variables["portfolio_ops_sites"][0]
    shop = {**shop, "credentials": {**shop["credentials"], "spare": "not for long"}}
    deployed.deploy(portfolio_ops_sites=[shop, home])
    [name] = deployed.run("ls", f"{root}/backups/daily").split()
    assert deployed.run("stat", "-c", "%u:%g", f"{root}/backups/daily/{name}").strip() == "1003:1004"
    deployed.run("systemctl", "start", "portfolio-logs-rotate@home.service", "portfolio-check@home.service")
    secrets = {site: f"/etc/portfolio-ops/credentials/{site}.chat" for site in ("shop", "home")}
    assert [deployed.run("cat", path).rpartition("/")[2] for path in secrets.values()] == ["hook", "home"]
    loaded = deployed.run("cat", "/etc/systemd/system/portfolio-alert@.service.d/10-portfolio-ops.conf")
    assert all(f"LoadCredential={site}.chat:{path}" in loaded for site, path in secrets.items())
    spare = "/etc/portfolio-ops/credentials/shop.spare"
    assert f"LoadCredential=shop.spare:{spare}" in loaded
    deployed.run("test", "-e", spare)
    socket, url = f"{root}/run/portfolio-ops.sock", "http://localhost/api/admin/backup-on-gallery-add"
    call = ("curl", "-sS", "--unix-socket", socket, "-d", '{"galleryName": "below home"}', url)
    assert '"message":"Gallery backup created successfully"' in deployed.run(*call)

    assert "blog" not in deployed.run("systemctl", "list-timers", "--all", "--no-pager", "portfolio-*")
    assert deployed.show("portfolio-archive@blog.service", "ActiveState") == "inactive"
    assert deployed.show("portfolio-archive@blog.service", "UnitFileState") == "disabled"
    assert deployed.show("portfolio-archive@home.service", "User") == "1003"
    assert deployed.try_run("curl", "-sS", "http://127.0.0.1:8780/healthz").returncode == 7  # nobody listens for it
    assert deployed.try_run("test", "-e", "/etc/portfolio-ops/credentials/blog-api-token").returncode != 0
    deployed.run("test", "-e", "/srv/blog/blog.db")
    assert deployed.run("ls", "/srv/blog/kept/daily").split()
    deployed.deploy()
    listed = deployed.run("systemctl", "list-timers", "--all", "--no-pager", "portfolio-*")
    assert "blog" in listed
    assert "home" not in listed
    assert deployed.try_run("test", "-e", secrets["home"]).returncode != 0
    assert deployed.try_run("test", "-e", spare).returncode != 0
    assert "spare" not in deployed.run("cat", "/etc/systemd/system/portfolio-alert@.service.d/10-portfolio-ops.conf")
    deployed.run("test", "-e", secrets["shop"])


@ANSIBLE_ALONE
def test_a_root_that_is_not_there_is_refused(deployed: Host) -> None:
    sites = [{"name": "new", "root": "/mnt/volume/nothing"}]
    done = deployed.droplet.play("deploy.yml", {"portfolio_ops_sites": sites}, "--check")
    assert done.returncode != 0
    assert "Is its volume mounted?" in done.stdout


@ANSIBLE_ALONE
def test_a_database_whose_folder_is_not_there_is_refused_before_anything_is_changed(deployed: Host) -> None:
    deployed.run("mkdir", "/srv/bare")
    sites = [*deployed.variables["portfolio_ops_sites"], {"name": "bare", "root": "/srv/bare"}]
    done = deployed.droplet.play("deploy.yml", {"portfolio_ops_sites": sites})
    assert done.returncode != 0
    assert "there is no folder /srv/bare/data for its database" in done.stdout
    assert changed(done.stdout) == 0
    assert deployed.run("ls", "-A", "/srv/bare") == ""
    deployed.run("rmdir", "/srv/bare")


def test_status_is_shown_by_its_playbook(deployed: Host) -> None:
    done = deployed.droplet.play("status.yml", {})
    assert done.returncode == 0, done.stdout
    assert "backup-daily" in done.stdout
