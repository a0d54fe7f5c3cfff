"""Whose a file of the backups is, and whose a timeline, as its files say: folders bear no site's name."""

from pathlib import Path

from portfolio_ops.config import SITE_NAME
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.sqlite.increment import head_of

SUFFIX = ".wal.zst"
"""Of every file of increments."""


def name_of(stated: object) -> str:
    """The site that a file states, if one can have that name: it gets into commands, and a file can state anything."""
    return stated if isinstance(stated, str) and SITE_NAME.fullmatch(stated) else ""


def another(folder: Path, site: str) -> str:
    """The other site that all files of a timeline are of; empty where one is its own, or nobody can tell."""
    found: set[str] = set()
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            theirs = name_of(head_of(path).site)
        except (PortfolioOpsError, OSError):
            return ""
        if theirs in {"", site}:
            return ""
        found.add(theirs)
    return found.pop() if len(found) == 1 else ""
