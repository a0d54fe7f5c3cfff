"""Backups that the archive's daemon asks for, each made by a process of its own.

In the daemon's process that is not possible: a backup closes the database's file, and by that would drop the locks of
the pin (fcntl(2)).
"""

import os
import subprocess
import sys

from portfolio_ops.config import Site

_COMMAND = "from portfolio_ops.cli.main import main; main()"


def begin(site: Site, *words: str) -> subprocess.Popen[bytes]:
    """Start a command of ours for a site. It does not speak to the service manager: only the daemon does."""
    command = [sys.executable, "-c", _COMMAND, "--config", str(site.file), *words]
    environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    return subprocess.Popen(  # noqa: S603  (ourselves)
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
    )


def end(process: subprocess.Popen[bytes] | None) -> None:
    """Let one that still runs undo its work and end."""
    if process is not None and process.poll() is None:
        process.terminate()
        process.wait()
