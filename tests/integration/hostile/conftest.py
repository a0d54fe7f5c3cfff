"""A filesystem of its own, with a site and secrets on it."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.faults.disk import Disk
from tests.integration.hostile.harness import Ground
from tests.require import require_root


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    """The site, prepared once a session."""
    require_root("what a hostile site can do")
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))  # pytest's own are for one user, and the site has another
    folder.chmod(0o755)
    mounted = Disk(folder, "ext4")
    mounted.place.chmod(0o755)
    device = ""
    try:
        image = folder / "disk"
        image.write_bytes(bytes(1 << 20))
        found = ["losetup", "--find", "--show", str(image)]
        device = subprocess.run(found, check=True, capture_output=True, text=True).stdout.strip()
        yield Ground(mounted.place, Path(device), image)
    finally:
        if device:
            subprocess.run(["losetup", "--detach", device], check=True)
        mounted.unmount()
        shutil.rmtree(folder)
