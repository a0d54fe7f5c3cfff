"""Which of the two hosts a test runs on: both, unless what it tries cannot differ between them.

They differ in what a test of units, timers, sandboxes and restores depends on: systemd 252 and 257, ext4 and xfs, a
backend that is a service and one that is a container. So whatever touches these runs on both. What does not is marked:

- `ANSIBLE_ALONE`, on bookworm: what a play decides before or beside all that, a minute each time.
- `OURS_ALONE`, on trixie: what our own code decides from its files and its database, however it was started.

At the beginning pytest says how many tests each host runs, and how many of them run there only.
"""

from collections import Counter

import pytest

ANSIBLE_ALONE = pytest.mark.parametrize("host", ["bookworm"], indirect=True)
OURS_ALONE = pytest.mark.parametrize("host", ["trixie"], indirect=True)


def summary(items: list[pytest.Item]) -> list[str]:
    """A line for each host."""
    hosts: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for item in items:
        suite = item.callspec.params.get("host") if isinstance(item, pytest.Function) else None
        hosts[str(suite)] += 1
        alone[str(suite)] += any("host" in mark.args[0] for mark in item.iter_markers("parametrize"))
    return [f"{suite}: {hosts[suite]} tests, {alone[suite]} of them there only" for suite in sorted(hosts)]
