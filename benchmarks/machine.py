"""What the figures were measured on, and the programs that they were measured against."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.bench import run

_VERSIONS = {
    "sqlite3": "--version",
    "gzip": "--version",
    "zstd": "--version",
    "git": "--version",
    "logrotate": "--version",
    "restic": "version",
    "litestream": "version",
}
_DOTTED = re.compile(r"\d+(?:\.\d+)+")


def program(name: str) -> str:
    """A peer, of this environment or of the system.

    Raises:
        SystemExit: It is missing.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise SystemExit(f"{name} is missing; `make bench` installs all peers")
    return found


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """The version of each of these peers.

    Raises:
        SystemExit: One is missing.
    """
    found = {}
    for name in names:
        done = subprocess.run([program(name), _VERSIONS[name]], capture_output=True, text=True, check=False)
        match = _DOTTED.search(done.stdout + done.stderr)
        found[name] = match[0] if match else "unknown"
    return found


def describe(folder: Path) -> dict[str, str]:
    """The machine, and the filesystem of a folder on it."""
    processor = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor[1] if processor else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 1e9:.0f} GB",
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "kernel": platform.release(),
        "filesystem": run(["findmnt", "--noheadings", "--output", "FSTYPE", "--target", folder]).decode().strip(),
        "python": platform.python_version(),
    }
