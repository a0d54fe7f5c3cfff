"""What a restore in place is about: written before it changes anything, so that a death in its middle can be mended."""

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.errors import RefusedError
from portfolio_ops.host.files import write_atomically

OPEN, DONE, PUT_BACK = "open", "done", "put back"


@dataclass(frozen=True)
class Record:
    """The latest restore in place of a site.

    Attributes:
        state: `open` while it runs (or if it died), `done`, or `put back`.
        started: UTC, RFC 3339.
        artifact: File name and ID of what is restored.
        database: The live path.
        running: Whether the backend ran before, and so is started after.
        new: Inode of the staged file: whether it is in place already is asked of the filesystem.
        undo: What holds the state before: an artifact's ID, or a folder of raw files; empty if nothing does.
        earlier: What undoes the restore before this one: it counts again if this one is taken back.
    """

    state: str
    started: str
    artifact: str
    database: str
    running: bool
    new: int | None
    undo: str
    earlier: str


def read(state: Path) -> Record | None:
    """The record; None where no restore was ever made.

    Raises:
        ValueError: It is damaged.
    """
    try:
        document = json.loads((state / "restore.json").read_bytes())
    except FileNotFoundError:
        return None
    try:
        return Record(**document)
    except TypeError as error:
        raise ValueError(f"{state / 'restore.json'} cannot be understood ({error!r})") from error


def require_none_open(state: Path) -> None:
    """Refuse to begin while the record of a restore that died is still needed.

    Raises:
        RefusedError: There is one: it died while a person was asked about the next.
        ValueError: The record is damaged.
    """
    before = read(state)
    if before is not None and before.state == OPEN:
        raise RefusedError(
            f"the restore of {before.artifact} was interrupted meanwhile",
            suggestion=f"{tool()} restore undo: it brings that one to its end first",
        )


def begin(state: Path, artifact: str, database: Path) -> Record:
    """Open the record of a restore that begins now; the one before is over.

    Raises:
        ValueError: The record is damaged.
    """
    before = read(state)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    earlier = before.undo if before is not None else ""
    record = Record(OPEN, started, artifact, str(database), running=False, new=None, undo="", earlier=earlier)
    write(state, record)
    return record


def taken_back(record: Record) -> Record:
    """The record of a restore whose former state is in place again."""
    return replace(record, state=PUT_BACK, undo=record.earlier)


def write(state: Path, record: Record) -> None:
    """Replace the record, durably."""
    write_atomically(state / "restore.json", json.dumps(asdict(record), indent=1).encode())
