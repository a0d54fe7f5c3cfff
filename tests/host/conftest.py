"""One booted host for each suite, with a live site on it; the project's own playbook deploys to it."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.host.hosts import SUITES, Host, droplet_of
from tests.host.selection import summary

_NEEDS = ("systemd-nspawn", "mmdebstrap", "ssh", "nc", "mkfs.xfs", "mkfs.ext4")


def _unable() -> str:
    """Why no host can be booted here; empty if it can."""
    if os.geteuid() != 0:
        return "booting a host takes root"
    missing = [name for name in _NEEDS if shutil.which(name) is None]
    return f"missing programs: {', '.join(missing)} (make test installs them)" if missing else ""


def pytest_report_collectionfinish(items: list[pytest.Item]) -> list[str]:
    """What each host runs."""
    return summary(items)


@pytest.fixture(scope="session", params=SUITES)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A booted Debian with a live site, not deployed to yet."""
    if reason := _unable():
        message = f"NO BOOTED HOST WAS TESTED: {reason}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    suite: str = request.param
    with droplet_of(suite, tmp_path_factory.mktemp(suite)) as droplet:
        made = Host(droplet, suite)
        made.make_sites()
        yield made


@pytest.fixture(scope="session")
def deployed(host: Host) -> Host:
    """The host, deployed to (by the tests of deploying, if they ran)."""
    if host.try_run("test", "-e", "/opt/portfolio-ops/current").returncode != 0:
        host.deploy()
    return host
