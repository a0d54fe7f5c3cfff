"""Removing: everything goes but data and backups. This runs last."""

from tests.host.hosts import ROOT, Host


def test_remove_leaves_data_and_backups_alone(deployed: Host) -> None:
    def kept() -> str:
        return deployed.run("sh", "-c", f"find {ROOT}/backups /srv/blog -type f | sort")

    before = kept()
    done = deployed.droplet.play("remove.yml", {})
    assert done.returncode == 0, done.stdout[-3000:]
    assert kept() == before
    assert deployed.run("systemctl", "list-timers", "--all", "--no-pager", "--no-legend", "portfolio-*").strip() == ""
    assert deployed.run("sh", "-c", "ls -d /opt/portfolio-ops /usr/local/lib/systemd/system/portfolio* || true") == ""
    assert "Failed" not in deployed.run("systemctl", "--failed", "--no-legend")
