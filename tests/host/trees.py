"""Debian trees to boot, made once a week by mmdebstrap and kept outside the checkout.

python -m tests.host.trees        make both now
"""

import hashlib
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "portfolio-ops-tests"

_HOST = (
    "systemd,systemd-sysv,libpam-systemd,dbus,openssh-server,python3,python3-apt,python3-systemd,"
    "sqlite3,zstd,tzdata,procps,iproute2,attr,curl"
)
PACKAGES = {
    "bookworm": _HOST,
    "trixie": f"{_HOST},docker.io,docker-cli,docker-compose,iptables,ca-certificates",
    # The backend's container image.
    "image": "python3-minimal,libpython3-stdlib,tzdata,nodejs",
}
_SUITES = {"image": "trixie"}


def tree(name: str) -> Path:
    """A tree, made if it is not in the cache: tens of seconds."""
    week = datetime.now(UTC).strftime("%G-%V")
    key = hashlib.sha256(f"{PACKAGES[name]} {week}".encode()).hexdigest()[:12]
    target = CACHE / f"{name}-{key}"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for old in CACHE.glob(f"{name}-*"):
            shutil.rmtree(old)
        _make(name, target)
    return target


def _make(name: str, target: Path) -> None:
    unfinished = target.with_name(f"unfinished-{target.name}-{os.getpid()}")
    # The packages' own archives and lists are of no use in a tree that has no network.
    subprocess.run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={PACKAGES[name]}",
            "--aptopt=APT::Install-Recommends false",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--format=directory",
            _SUITES.get(name, name),
            str(unfinished),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    unfinished.rename(target)


if __name__ == "__main__":
    for each in PACKAGES:
        sys.stdout.write(f"{tree(each)}\n")
