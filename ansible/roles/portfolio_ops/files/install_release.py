"""Make a release from a folder of wheels, without a network, a compiler or an installed pip.

    python3 install_release.py WHEELS RELEASE

The environment is made at its final path (environments cannot be moved), and is complete once it holds `.complete`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

DISTRIBUTION = Path("/usr/lib/python3/dist-packages")


def main(wheels: Path, release: Path) -> None:
    """Install and try out; leave nothing usable behind on failure."""
    shutil.rmtree(release, ignore_errors=True)
    release.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", release], check=True)
    python = release / "bin/python3"
    [pip] = wheels.glob("pip-*.whl")
    [ours] = wheels.glob("portfolio_ops-*.whl")
    install = [python, f"{pip}/pip", "install", "--quiet", "--no-index", "--no-deps", f"--find-links={wheels}"]
    subprocess.run([*install, "--require-hashes", f"--requirement={wheels / 'runtime.lock'}"], check=True)
    subprocess.run([*install, str(ours)], check=True)
    # python3-systemd is the distribution's, with its security updates. One link shows it, and nothing else of the
    # system, to this environment.
    [packages] = (release / "lib").glob("python3.*/site-packages")
    (packages / "systemd").symlink_to(DISTRIBUTION / "systemd")
    subprocess.run([python, "-c", "import apsw, numpy, zstandard, systemd.journal"], check=True)
    subprocess.run([release / "bin/portfolio-ops", "--version"], check=True)
    (release / ".complete").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
