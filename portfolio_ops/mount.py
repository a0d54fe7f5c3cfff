"""The mount that a path lies on: where it is, and whether it is read-only."""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

_ESCAPED = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True)
class Mount:
    """A mount, as this process sees it.

    Attributes:
        point: Where it is.
        closed: Whether nothing can be written through it. In a unit's sandbox most are so, and their filesystems not.
        read_only: Whether the filesystem itself is so, for everybody: the kernel makes it so when its disk fails.
    """

    point: Path
    closed: bool
    read_only: bool

    @property
    def text(self) -> str:
        """That the filesystem is read-only, in words."""
        return f"the filesystem at {self.point} is mounted read-only: nothing can be written there"

    @property
    def cure(self) -> str:
        """What to do where it is."""
        point = shlex.quote(str(self.point))
        return (
            "the kernel does so when a disk fails: see `journalctl -k` and"
            f" `findmnt -T {point}`; once it is mended: mount -o remount,rw {point}"
        )


def mount_of(path: Path) -> Mount | None:
    """The mount of a path, or of what there is of the way to it; None where that cannot be told."""
    for each in (path, *path.parents):
        try:
            descriptor = os.open(each, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            known = dict(
                line.split(b":", 1) for line in Path(f"/proc/self/fdinfo/{descriptor}").read_bytes().splitlines()
            )
            return _listed(known[b"mnt_id"].strip())
        except (OSError, KeyError):
            return None
        finally:
            os.close(descriptor)
    return None


def read_only(path: Path) -> Mount | None:
    """The mount of a path whose filesystem is read-only for everybody; None where it is not, or nobody can tell."""
    mount = mount_of(path)
    return mount if mount is not None and mount.read_only else None


def _listed(number: bytes) -> Mount | None:
    """What the kernel's table says of a mount (proc_pid_mountinfo(5))."""
    for line in Path("/proc/self/mountinfo").read_bytes().split(b"\n"):
        words = line.split(b" ")
        if words[0] == number:
            options, of_filesystem = words[5].split(b","), words[-1].split(b",")
            return Mount(Path(unescaped(words[4])), b"ro" in options or b"ro" in of_filesystem, b"ro" in of_filesystem)
    return None


def unescaped(word: bytes) -> str:
    """A word of such a table, where a space is a backslash and 040."""
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), word))
