"""Run a command, and write as JSON how long it took and how much memory it had at most.

    python -I -S launch.py DESCRIPTOR COMMAND...

A process of its own, and a small one: the kernel counts what the parent holds as memory of a child that begins
(getrusage(2), of exec), so that no child could be seen to need less than who measures it.
"""

import json
import os
import sys
import time

_KILOBYTE = 1024


def launch(descriptor: int, command: list[str]) -> int:
    """Run it, and give its exit code."""
    os.set_inheritable(descriptor, False)
    began = time.monotonic()
    process = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = time.monotonic() - began
    with os.fdopen(descriptor, "w") as report:
        json.dump({"seconds": seconds, "peak": usage.ru_maxrss * _KILOBYTE}, report)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(launch(int(sys.argv[1]), sys.argv[2:]))
