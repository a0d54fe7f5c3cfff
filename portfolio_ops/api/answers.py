"""What the API says: the requirements' own shapes, with more keys beside them."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from portfolio_ops.config import Site
from portfolio_ops.jobs import health
from portfolio_ops.moment import utc
from portfolio_ops.restore import keeping
from portfolio_ops.store import catalogue, verified
from portfolio_ops.store.artifact import Artifact, Kind
from portfolio_ops.store.requests import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable

_KINDS = {
    "daily": Kind.DAILY,
    "social": Kind.SOCIAL,
    "eventTriggered": Kind.EVENT,
    "logsArchive": Kind.LOGS,
}
_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week"}


def fault(
    status: int, message: str, code: str, *, error: str = "", headers: dict[str, str] | None = None
) -> JSONResponse:
    """An answer that says that something was not done."""
    document: dict[str, Any] = {"success": False, "message": message, "code": code}
    if error:
        document["error"] = error
    return JSONResponse(document, status, headers)


def made(answer: Answer) -> dict[str, Any]:
    """A backup that was made, in the answer to who asked for it."""
    return {
        "output": f"Published {answer.file}: {answer.bytes:,} bytes, verified",
        "backup": {"id": answer.artifact, "file": answer.file, "bytes": answer.bytes},
    }


def backup_status(site: Site) -> dict[str, Any]:
    """How many backups there are of each kind, for how long they are kept, and when the latest was made."""
    found = catalogue.scan(site.backups, site.name, _KINDS.values())
    kept = {setting.key: setting.value for setting in site.settings}
    return {
        "success": True,
        "backups": {
            key: _summary([each for each in found.of(kind) if not each.put_away], kept[f"retention.{kind.value}"])
            for key, kind in _KINDS.items()
        },
    }


def _summary(artifacts: list[Artifact], kept: str) -> dict[str, Any]:
    latest = max((artifact.taken for artifact in artifacts), default=None)
    return {
        "count": len(artifacts),
        "retention": in_words(kept),
        # As `stat -c %y` writes it, which is what the requirements' endpoint gave.
        "latest": "No backups" if latest is None else f"{latest.astimezone():%Y-%m-%d %H:%M:%S.%f000 %z}",
        "latestAt": None if latest is None else utc(latest),
    }


def in_words(duration: str) -> str:
    """A duration of the configuration in words: `30d` is `30 days`, `1w 3d` is `1 week 3 days`."""
    parts: Iterable[tuple[str, str]] = re.findall(r"(\d+)([smhdw])", duration)
    return " ".join(f"{count} {_UNITS[unit]}{'' if int(count) == 1 else 's'}" for count, unit in parts)


def backups(site: Site) -> dict[str, Any]:
    """Every artifact, oldest first, and what lies among them and is none."""
    found = catalogue.scan(site.backups, site.name)
    memory = verified.read(site.state)
    verdicts = keeping.verdicts(site, found.artifacts, datetime.now(UTC))
    return {
        "success": True,
        "backups": [
            {
                "id": verdict.artifact.id,
                "kind": verdict.artifact.metadata.kind.value,
                "file": verdict.artifact.path.name,
                "name": verdict.artifact.metadata.details.get("name"),
                "taken": utc(verdict.artifact.taken),
                "bytes": verdict.artifact.bytes,
                "contentBytes": verdict.artifact.metadata.content.bytes,
                "lastVerified": None if (moment := verified.last(verdict.artifact, memory)) is None else utc(moment),
                "keep": verdict.keep,
                "reason": verdict.reason,
            }
            for verdict in verdicts
        ],
        "problems": [{"file": problem.path.name, "reason": problem.reason} for problem in found.problems],
    }


def findings(site: Site) -> list[str]:
    """What needs a person, as `portfolio-ops status` has it, but for the backend: it may be who asks."""
    return health.assess(site, datetime.now(UTC), ask_backend=False).findings
