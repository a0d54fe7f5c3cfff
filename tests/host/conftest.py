"""One booted host for each suite, with a live site on it; the project's own playbook deploys to it."""

import shutil
from collections.abc import Iterator

import pytest

from tests.host.hosts import SUITES, Host, droplet_of
from tests.host.selection import summary
from tests.require import require, require_root

_NEEDS = ("systemd-nspawn", "mmdebstrap", "ssh", "nc", "mkfs.xfs", "mkfs.ext4")


def pytest_report_collectionfinish(items: list[pytest.Item]) -> list[str]:
    """What each host runs."""
    return summary(items)


@pytest.fixture(scope="session", params=SUITES)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A booted Debian with a live site, not deployed to yet."""
    require_root("booted hosts")
    missing = [name for name in _NEEDS if shutil.which(name) is None]
    require(not missing, f"NO BOOTED HOST WAS TESTED; missing programs: {', '.join(missing)} (make test installs them)")
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
