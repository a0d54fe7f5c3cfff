"""A filesystem of its own, with a site and secrets on it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.faults.disk import Disk
from tests.integration.hostile.harness import Ground


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The site, prepared once a session."""
    if os.geteuid() != 0:
        message = "mounting takes root; what a hostile site can do is NOT tested here"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("hostile")
    mounted = Disk(folder, "ext4")
    device = ""
    try:
        for above in (mounted.place, *mounted.place.parents):
            if above.is_relative_to(tmp_path_factory.getbasetemp().parent):
                above.chmod(0o755)  # the site's user has to get there
        image = folder / "disk"
        image.write_bytes(bytes(1 << 20))
        found = ["losetup", "--find", "--show", str(image)]
        device = subprocess.run(found, check=True, capture_output=True, text=True).stdout.strip()
        yield Ground(mounted.place, Path(device), image)
    finally:
        if device:
            subprocess.run(["losetup", "--detach", device], check=True)
        mounted.unmount()
