"""Where no unit watches the folder of requests, a process of our own makes the backups."""

import time
from typing import TYPE_CHECKING

from portfolio_ops.config import Site
from portfolio_ops.host import timers
from portfolio_ops.jobs import child

if TYPE_CHECKING:
    import subprocess

_APART = 2.0


class Maker:
    """Sees to it that what is asked for is made.

    Where the path unit is installed that is its work, and this does nothing: no backup can be made in the sandbox. A
    watcher that was stopped is found by `status`.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._watched = timers.service_state(f"portfolio-gallery@{site.name}.path") is not None
        self._process: subprocess.Popen[bytes] | None = None
        self._began = float("-inf")

    def tend(self) -> None:
        """Called as long as somebody waits: a process that has ended may have missed the last request."""
        if self._watched or (self._process is not None and self._process.poll() is None):
            return
        failed = self._process is not None and self._process.returncode != 0
        if not failed or time.monotonic() - self._began >= _APART:
            self._process, self._began = child.begin(self._site, "backup", "requested"), time.monotonic()
