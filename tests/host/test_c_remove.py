"""Removing: everything goes but data and backups. This runs last."""

from tests.host.hosts import ROOT, Host


def test_remove_leaves_data_and_backups_alone(deployed: Host) -> None:
    def kept() -> set[str]:
        # An archive that closes a database which nobody else has open takes the empty side files along, as SQLite does.
        passing = (".tmp-*", "blog.db-*", "archive-witness")
        finished = ("-type", "f", *(word for name in passing for word in ("-not", "-name", name)))
        return set(deployed.run("find", f"{ROOT}/backups", "/srv/blog", *finished).split())

    before = kept()
    done = deployed.droplet.play("remove.yml", {})
    assert done.returncode == 0, done.stdout[-3000:]
    # The archive may have made a base or begun an hour meanwhile.
    assert before <= kept()
    assert {path for path in kept() - before if "/wal/" not in path} == set()
    assert deployed.try_run("pgrep", "-af", "[a]rchive run").stdout == "", deployed.run("journalctl", "-n", "100")
    assert deployed.run("systemctl", "list-timers", "--all", "--no-pager", "--no-legend", "portfolio-*").strip() == ""
    assert deployed.run("sh", "-c", "ls -d /opt/portfolio-ops /usr/local/lib/systemd/system/portfolio* || true") == ""
    assert deployed.try_run("systemctl", "list-unit-files", "--no-legend", "portfolio*").stdout == ""
    assert deployed.run("find", "/etc/systemd/system", "-name", "*portfolio*", "-not", "-type", "d") == ""
    # What asked for backups finds nobody, and its folders stay for who has mounted them.
    assert deployed.run("sh", "-c", f"ls {ROOT}/run /srv/blog/run").split().count("triggers") == 2
    assert deployed.run("find", f"{ROOT}/run", "/srv/blog/run", "-not", "-type", "d") == ""
    assert deployed.try_run("pgrep", "-af", "[p]ortfolio-ops .*serve").stdout == ""
    assert ":8780" not in deployed.run("ss", "-ltn")
    assert "Failed" not in deployed.run("systemctl", "--failed", "--no-legend")
