"""The guides are true: every command that they show is run here, in order, on a site under load."""

import re
import time
from pathlib import Path

import pytest

from tests.host.hosts import ROOT, Host
from tests.host.selection import OURS_ALONE

GUIDES = Path(__file__).parents[2] / "docs/how-to"


def blocks(name: str) -> list[str]:
    """The commands of a guide, block by block, each as a script."""
    found = re.findall(r"^```sh\n(.*?)^```$", (GUIDES / name).read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return ["set -eux\n" + each.replace("/mnt/lupoportfolio/portfolio-prod", str(ROOT)) for each in found]


def script(name: str) -> str:
    return "".join(blocks(name))


@pytest.mark.parametrize("name", ["operate.md", "container.md", "restore.md"])
def test_every_command_of_a_guide_works(deployed: Host, name: str) -> None:
    deployed.until(lambda: bool(deployed.tool("list", "points")["windows"]), "there are moments to restore")
    time.sleep(5)
    deployed.run("bash", "-s", text=script(name), timeout=400)
    commits = deployed.site_commits()
    deployed.until(lambda: deployed.site_commits() != commits, "the site writes")
    assert deployed.site()["errors"] == []


@OURS_ALONE
def test_every_command_of_the_restore_by_hand_works(deployed: Host) -> None:
    done = deployed.run("bash", "-s", text=script("restore-by-hand.md"), timeout=200)
    assert "ok" in done.split()
    deployed.start_site()
    assert deployed.run("stat", "-c", "%u:%g", f"{ROOT}/data/portfolio.sqlite").strip() == "1001:1001"
    deployed.run("rm", "-r", f"{ROOT}/before-restore", f"{ROOT}/social-only.sqlite")
