"""`make host`: a deployed host with a live site, left running to look at until Ctrl-C.

python -m tests.host.hostctl [bookworm|trixie]
"""

import contextlib
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.host.hosts import BLOG, ROOT, SUITES, Host, droplet_of

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends it. A shell starts what is in the background with the first one ignored, which must not stay so."""


def end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  (signal(2)'s signature)
    """Unwind, so that all that was made goes; a second signal does not disturb that."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> None:
    """Boot, deploy, say how to enter, wait, clean up."""
    suite = sys.argv[1] if len(sys.argv) > 1 else SUITES[-1]
    if suite not in SUITES:
        raise SystemExit(f"{suite} is none of {', '.join(SUITES)}")
    for number in SIGNALS:
        signal.signal(number, end)
    with tempfile.TemporaryDirectory(prefix="portfolio-ops-host-") as folder:
        print(f"Booting {suite}, with a live site; then deploying to it. This takes two minutes.", flush=True)
        with droplet_of(suite, Path(folder)) as droplet:
            host = Host(droplet, suite)
            host.make_sites()
            host.deploy()
            print(host.run("systemctl", "list-timers", "--no-pager", "portfolio-*"))
            print("Enter it with:\n")
            print(f"  ssh {shlex.join(droplet.ssh_options())} root@{droplet.name}\n")
            print(f"Two sites are there: shop, below {ROOT}, and blog, below {BLOG['root']}. So say which:\n")
            print("  portfolio-ops --site shop status\n")
            print("Stop it with Ctrl-C, or SIGTERM: nothing of it stays.", flush=True)
            with contextlib.suppress(SystemExit):
                signal.pause()


if __name__ == "__main__":
    main()
