"""A small filesystem on a loop device, whose power can be cut, and which can be filled."""

import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, struct.pack("I", 2)  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
MKFS = {
    # Nothing is kept for root, whom the tests are: what is full is full for them too. Few inodes are soon used up.
    "ext4": ("128M", ["mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-N", "4096"]),
    "xfs": ("320M", ["mkfs.xfs", "-q"]),
}


class Disk:
    """A filesystem whose power can be cut."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._kind, self.image, self.place = kind, folder / f"{kind}.img", folder / kind
        size, mkfs = MKFS[kind]
        with self.image.open("wb") as file:
            file.truncate(int(size[:-1]) << 20)
        subprocess.run([*mkfs, str(self.image)], check=True)
        self.place.mkdir()
        self.mount()

    def mount(self) -> None:
        """What the disk holds, its log replayed."""
        # By its UUID, an xfs would be refused while a container that was booted meanwhile holds what was cut.
        options = "loop,nouuid" if self._kind == "xfs" else "loop"
        subprocess.run(["mount", "-o", options, str(self.image), str(self.place)], check=True)

    def cut(self) -> None:
        """No write reaches the disk any more."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def sync(self) -> None:
        """All that was written is on the disk."""
        subprocess.run(["sync", "-f", str(self.place)], check=True)

    def exchange(self) -> None:
        """Unmount it, and mount what the disk holds.

        A copy of the image: whoever has its own mounts, a container, may hold the old ones, and with them what was cut.
        """
        self.unmount()
        copy = self.image.with_name(f"next-{self.image.name}")
        subprocess.run(["cp", "--sparse=always", str(self.image), str(copy)], check=True)
        self.image.unlink()
        copy.rename(self.image)
        self.mount()

    def unmount(self) -> None:
        """Let go of it."""
        for _ in range(50):
            if not subprocess.run(["umount", str(self.place)], check=False, capture_output=True).returncode:
                return
            time.sleep(0.1)
        raise AssertionError(f"{self.place} stays busy")
