"""`make host`: a deployed host with a live site, left running to look at until Ctrl-C.

python -m tests.host.hostctl [bookworm|trixie]
"""

import contextlib
import shlex
import signal
import sys
import tempfile
from pathlib import Path

from tests.host.hosts import SUITES, Host, droplet_of


def main() -> None:
    """Boot, deploy, say how to enter, wait, clean up."""
    suite = sys.argv[1] if len(sys.argv) > 1 else SUITES[-1]
    if suite not in SUITES:
        raise SystemExit(f"{suite} is none of {', '.join(SUITES)}")
    with tempfile.TemporaryDirectory(prefix="portfolio-ops-host-") as folder:
        print(f"Booting {suite}, with a live site; then deploying to it. This takes two minutes.", flush=True)
        with droplet_of(suite, Path(folder)) as droplet:
            host = Host(droplet, suite)
            host.make_sites()
            host.deploy()
            print(host.run("systemctl", "list-timers", "--no-pager", "portfolio-*"))
            print("Enter it with:\n")
            print(f"  ssh {shlex.join(droplet.ssh_options())} root@{droplet.name}\n")
            print("Stop it with Ctrl-C: nothing of it stays.", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()


if __name__ == "__main__":
    main()
