"""What the latest drill found. Who only wants to know that loads nothing of what a drill needs."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from portfolio_ops.config import Site
from portfolio_ops.host.files import write_atomically


@dataclass(frozen=True)
class Report:
    """A drill that is over.

    Attributes:
        verdict: `passed`; `failed`: a backup would not have brought the site back; `inconclusive`: nobody can tell.
        at: When it ended, UTC, RFC 3339.
        seconds: How long it took.
        recovery_seconds: From the newest backup to a checked database; None if it did not come to that.
        restored: File names of what was restored.
        reasons: Why it did not pass.
        evidence: What was found, a line each.
    """

    verdict: str
    at: str
    seconds: float
    recovery_seconds: float | None
    restored: tuple[str, ...]
    reasons: tuple[str, ...]
    evidence: tuple[str, ...]


def write(site: Site, report: Report) -> None:
    """Record it, in place of the last one.

    Raises:
        OSError: It cannot be written.
    """
    write_atomically(_path(site), json.dumps(asdict(report), indent=1).encode())


def last_report(site: Site) -> Report | None:
    """The latest drill; None where there was none, or where its record is damaged."""
    try:
        document: dict[str, Any] = json.loads(_path(site).read_bytes())
        lists = {key: tuple(document[key]) for key in ("restored", "reasons", "evidence")}
        return Report(**{**document, **lists})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(site: Site) -> Path:
    return site.state / "drill-report.json"
