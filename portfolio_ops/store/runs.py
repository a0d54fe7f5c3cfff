"""What became of each job's runs: one small file a job, written before the work begins.

A run that died (SIGKILL, power cut) leaves its record open; the next run closes it. Nothing that a restore needs is
here: without these files only the memory of failures is lost.
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from portfolio_ops.host.files import write_atomically

RUNNING, SUCCEEDED, FAILED, DIED = "running", "succeeded", "failed", "died"

BASE = "archive-base"
"""The record of who makes what a timeline begins with."""


@dataclass(frozen=True)
class Run:
    """One run of a job.

    Attributes:
        state: `running`, `succeeded`, `failed` or `died`.
        started: UTC, RFC 3339.
        ended: The same, empty while it runs; for one that died, when this was found.
        pid: Its process.
        message: What it made, or why it failed.
    """

    state: str
    started: str
    ended: str
    pid: int
    message: str


@dataclass(frozen=True)
class Record:
    """A job's latest run, its latest success, and its latest failure."""

    latest: Run
    success: Run | None = None
    failure: Run | None = None

    @property
    def unmended(self) -> Run | None:
        """The latest failure, until there is a success behind it: also while it is tried again."""
        if self.failure is None or self.latest == self.success:
            return None
        if self.success is None or self.latest == self.failure or self.failure.started > self.success.started:
            return self.failure
        return None


def _path(state: Path, job: str) -> Path:
    return state / f"{job}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read(state: Path, job: str) -> Record | None:
    """The record of a job; None where there is none, or where the file is damaged (it is only memory)."""
    try:
        document = json.loads(_path(state, job).read_bytes())
        return Record(_run(document["latest"]), _optional(document, "success"), _optional(document, "failure"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _run(document: dict[str, Any]) -> Run:
    run = Run(**document)
    datetime.fromisoformat(run.started)
    return run


def _optional(document: dict[str, Any], key: str) -> Run | None:
    return None if document[key] is None else _run(document[key])


def begin(state: Path, job: str) -> Run | None:
    """Write the record of a run that begins now; the caller holds the job's lock.

    Returns:
        The run before, if it died without a word.
    """
    before = read(state, job)
    died = None
    if before is not None and before.latest.state == RUNNING:
        died = replace(before.latest, state=DIED, ended=_now(), message="ended without a word: killed, or a power cut")
        before = replace(before, latest=died, failure=died)
    latest = Run(RUNNING, _now(), "", os.getpid(), "")
    record = Record(latest) if before is None else replace(before, latest=latest)
    _write(state, job, record)
    return died


def finish(state: Path, job: str, *, succeeded: bool, message: str) -> None:
    """Close the record of the run that `begin` opened."""
    record = read(state, job)
    if record is None:
        return
    latest = replace(record.latest, state=SUCCEEDED if succeeded else FAILED, ended=_now(), message=message[:1000])
    if succeeded:
        record = replace(record, latest=latest, success=latest)
    else:
        record = replace(record, latest=latest, failure=latest)
    _write(state, job, record)


def _write(state: Path, job: str, record: Record) -> None:
    write_atomically(_path(state, job), json.dumps(asdict(record), indent=1).encode())
