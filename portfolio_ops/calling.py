"""How this tool is called: whoever is told to type a command types it as it stands, also where there are several sites.

A process is about one site, and the deepest rooms, which know none, suggest commands as well. So it is kept here.
"""

import shlex
from collections.abc import Sequence

_options: list[str] = []


def about(options: Sequence[str]) -> None:
    """Say by which options this process's site is named; from then on every suggestion names it."""
    _options[:] = options


def tool() -> str:
    """What comes before a command: `portfolio-ops --site shop`; without the options until a site was found."""
    return shlex.join(["portfolio-ops", *_options])
