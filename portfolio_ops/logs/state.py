"""How far a live log is archived, remembered beside its bytes, so that a run killed anywhere can be judged.

The memory is one extended attribute of the log's inode, replaced whole by setxattr(2). It goes where the inode goes: a
log that was renamed or replaced brings its own, or none. A filesystem without user attributes gets a file in the
site's state folder instead.
"""

import dataclasses
import errno
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, unique
from pathlib import Path
from typing import Any, Protocol, Self
from uuid import uuid4

from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.files import write_atomically

ATTRIBUTE = "user.portfolio-ops"
FORMAT = 1
PRINTED_MOST = 4096
"""Bytes of a head that its fingerprint covers."""

_BYTES_MOST = 1 << 62


@unique
class Step(Enum):
    """What a run was doing when it wrote the state. All but RESTING mean, when found, that it died."""

    RESTING = "resting"
    PUBLISHING = "publishing"
    """An archive of the bytes up to `next` is about to be published under the UUID `token`."""
    MARKING = "marking"
    """The first bytes of the file, archived long since, are being overwritten with the marker."""
    REMOVING = "removing"
    """The marker is on disk. The head is not removed for as long as the file begins with it."""


@dataclass(frozen=True)
class Head:
    """The archived bytes at the start of the file, and how to know them again.

    Attributes:
        length: How many they are.
        printed: How many of the last of them are in the fingerprint.
        fingerprint: Their SHA-256. It still holds when the head has been shortened from the front.
    """

    length: int = 0
    printed: int = 0
    fingerprint: str = ""


@dataclass(frozen=True)
class State:
    """All that one run tells the next about a log.

    A log is one endless *stream* of bytes: archives hold its past, the file holds its present. Positions in the stream
    never change, whatever is removed from the file.

    Attributes:
        stream: UUID of this stream. A log that someone else truncated or replaced begins a new one.
        base: Position in the stream of the file's first byte.
        head: What of the file is archived.
        cut_at: When the newest archive ended, RFC 3339; empty if there is none.
        step: What is going on.
        token: PUBLISHING: the UUID of the archive. REMOVING by truncation: that of the carried tail.
        next: PUBLISHING: the head once the archive is published.
        removes: REMOVING by collapse: bytes that go; 0 for truncation.
        marker: MARKING, REMOVING: what the file begins with until its head is gone.
    """

    stream: str
    base: int = 0
    head: Head = Head()
    cut_at: str = ""
    step: Step = Step.RESTING
    token: str = ""
    next: Head = Head()
    removes: int = 0
    marker: str = ""

    @property
    def archived_to(self) -> int:
        """Position in the stream up to which all is archived."""
        return self.base + self.head.length

    def at_rest(self, head: Head, *, base: int | None = None) -> Self:
        """This state with nothing going on."""
        return dataclasses.replace(
            self,
            base=self.base if base is None else base,
            head=head,
            step=Step.RESTING,
            token="",
            next=Head(),
            removes=0,
            marker="",
        )


class View(Protocol):
    """What judging a state asks of a file."""

    def holds(self, head: Head) -> bool:
        """Whether the file begins with that head, by length and fingerprint."""

    def begins_with(self, marker: str) -> bool:
        """Whether the file's first bytes are the marker."""


def fresh() -> State:
    """The state of a log of which nothing is archived."""
    return State(stream=uuid4().hex)


def settle(state: State | None, view: View, *, published: bool) -> State:
    """What is true of the file now, given what the last run wrote before it ended or died.

    Removal by truncation is not judged here, see `portfolio_ops.logs.truncate`.

    Args:
        state: What was found; None if nothing.
        view: The file.
        published: Whether an archive with the UUID `state.token` exists.

    Returns:
        A state at rest. A fresh one if the file is not what the last run left: truncated or replaced by others.
    """
    if state is None:
        return fresh()
    if state.step is Step.PUBLISHING and published:
        # Never the old head here: its successor would take positions that the published archive has.
        return state.at_rest(state.next) if view.holds(state.next) else fresh()
    settled = state.at_rest(state.head)
    if state.step is Step.REMOVING and not view.begins_with(state.marker):
        shorter = dataclasses.replace(state.head, length=state.head.length - state.removes)
        settled = state.at_rest(shorter, base=state.base + state.removes)
    return settled if view.holds(settled.head) else fresh()


def encode(state: State) -> bytes:
    """The state as it is stored."""
    document = {
        key: value
        for key, value in dataclasses.asdict(state).items()
        if key not in {"head", "next"} and value not in ("", 0, Step.RESTING)
    }
    document |= {"format": FORMAT, "step": state.step.value, "head": list(dataclasses.astuple(state.head))}
    if state.step is Step.PUBLISHING:
        document["next"] = list(dataclasses.astuple(state.next))
    return json.dumps(document, separators=(",", ":")).encode()


def decode(data: bytes) -> State:
    """The state that was stored.

    Raises:
        PortfolioOpsError: It is damaged, or of a newer format.
    """
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            raise TypeError("no object")  # noqa: TRY301  (one error type for all faults)
        if document.pop("format") != FORMAT:
            raise ValueError("written by another version")  # noqa: TRY301  (as above)
        document["step"] = Step(document["step"])
        document["head"] = Head(*document["head"])
        document["next"] = Head(*document.get("next", ()))
        state = State(**document)
        _require_possible(state)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PortfolioOpsError(
            f"the log's attribute {ATTRIBUTE} cannot be understood ({error!r})",
            suggestion=f"remove it (setfattr -x {ATTRIBUTE} FILE): what it says is archived is then archived again",
        ) from error
    return state


def _require_possible(state: State) -> None:
    """Whoever writes the log may write this too.

    Raises:
        ValueError: No run of ours can have written it.
    """
    heads = (state.head, state.next)
    texts: list[Any] = [state.stream, state.cut_at, state.token, state.marker, *(head.fingerprint for head in heads)]
    numbers: list[Any] = [
        state.base,
        state.removes,
        *(head.length for head in heads),
        *(head.printed for head in heads),
    ]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("text was expected")
    if not all(isinstance(number, int) and 0 <= number < _BYTES_MOST for number in numbers):
        raise ValueError("a number of bytes was expected")
    if any(head.printed > min(head.length, PRINTED_MOST) for head in heads):
        raise ValueError("a head shorter than its fingerprint")
    if state.cut_at and datetime.fromisoformat(state.cut_at).tzinfo is None:
        raise ValueError("a time without a zone")


class Memory(Protocol):
    """Where a log's state is kept."""

    def load(self) -> State | None:
        """The state that was saved last; None if none was."""

    def save(self, state: State) -> None:
        """Replace the state whole; durable on return."""


class AttributeMemory:
    """In the inode itself."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def load(self) -> State | None:
        """The state that was saved last; None if none was."""
        try:
            return decode(os.getxattr(self._descriptor, ATTRIBUTE))
        except OSError as error:
            if error.errno == errno.ENODATA:
                return None
            raise

    def save(self, state: State) -> None:
        """Replace the state whole; durable on return."""
        os.setxattr(self._descriptor, ATTRIBUTE, encode(state))
        os.fsync(self._descriptor)


class FileMemory:
    """In a file of the site's state folder that names the inode, for filesystems without user attributes."""

    def __init__(self, path: Path, inode: int) -> None:
        self._path, self._inode = path, inode

    def load(self) -> State | None:
        """The state that was saved last for this inode; None if none was."""
        try:
            inode, _, data = self._path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        return decode(data) if inode == str(self._inode).encode() else None

    def save(self, state: State) -> None:
        """Replace the state whole; durable on return."""
        write_atomically(self._path, f"{self._inode}\n".encode() + encode(state))


def key_of(log: str) -> str:
    """What names of files in the state folder say for a log, given its path below the site's root."""
    return f"rotation-{hashlib.sha256(log.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def memory_of(descriptor: int, folder: Path, log: str) -> Memory:
    """The memory of an open log; `folder` is the site's state folder, `log` its path below the root."""
    try:
        os.getxattr(descriptor, ATTRIBUTE)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return FileMemory(folder / f"{key_of(log)}.json", os.fstat(descriptor).st_ino)
    return AttributeMemory(descriptor)
