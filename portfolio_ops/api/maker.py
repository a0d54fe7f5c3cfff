"""Where nobody watches the folder of requests, a process of our own makes the backups."""

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

    Under systemd that is the path unit's work, and this does nothing.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        unit = timers.service_state(f"portfolio-gallery@{site.name}.path")
        self._watched = unit is not None and unit.active == "active"
        self._process: subprocess.Popen[bytes] | None = None
        self._began = float("-inf")

    def tend(self) -> None:
        """Called as long as somebody waits: a process that has ended may have missed the last request."""
        if self._watched or (self._process is not None and self._process.poll() is None):
            return
        failed = self._process is not None and self._process.returncode != 0
        if not failed or time.monotonic() - self._began >= _APART:
            self._process, self._began = child.begin(self._site, "backup", "requested"), time.monotonic()
