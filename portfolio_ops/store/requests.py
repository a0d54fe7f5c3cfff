"""Backups that were asked for, and what became of each: small files in the site's state.

A request is kept here before the file that brought it is deleted, and goes when its backup is there. So whatever is
killed when, each is made. What became of one is kept for a day, for who asks.
"""

import contextlib
import json
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from portfolio_ops.errors import RefusedError
from portfolio_ops.host.files import write_atomically

GALLERY, DAILY = "gallery", "daily"
"""What is asked for: a backup because a gallery was added, or one as of every night."""

WAITING, DONE, FAILED = "waiting", "done", "failed"
"""What became of it. One that failed is tried again, with all that wait."""

NAME_MOST = 10_000
"""Characters of a gallery's name."""

_ID = re.compile(r"[0-9a-f]{32}")
_FOLDER, _ENDED, _BATCH = "requests", "ended", "batch"
_BATCH_MOST = 100
_KEPT_SECONDS = 86_400

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        id: 32 hex digits.
        wants: `gallery` or `daily`.
        name: The gallery's; empty for the other.
        asked: When it came, RFC 3339.
    """

    id: str
    wants: str
    name: str
    asked: str


@dataclass(frozen=True)
class Answer:
    """What became of a request.

    Attributes:
        state: `waiting`, `done` or `failed`.
        file, artifact, bytes: The backup's name, ID and size, once it is done.
        error, code: Why it failed, and the word for programs.
    """

    state: str
    file: str = ""
    artifact: str = ""
    bytes: int = 0
    error: str = ""
    code: str = ""


@dataclass(frozen=True)
class Batch:
    """Requests for galleries that one backup answers.

    Attributes:
        token: 16 hex digits. They stand in the backup that is made for it, so it is made once.
        requests: In the order in which they came.
    """

    token: str
    requests: tuple[Request, ...]


def is_id(value: str) -> bool:
    """Whether it can be the ID of a request."""
    return _ID.fullmatch(value) is not None


def fault_of(name: object) -> str:
    """What is wrong with a gallery's name; empty if nothing is."""
    if not isinstance(name, str):
        return "the gallery's name is no text"
    if not name.strip():
        return "the gallery's name is empty"
    if len(name) > NAME_MOST:
        return f"the gallery's name has {len(name):,} characters, at most {NAME_MOST:,} are taken"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "the gallery's name is no Unicode text"
    return ""


def keep(state: Path, request: Request) -> None:
    """Keep a request, durably; nothing happens to one that has its backup already.

    Raises:
        OSError: It cannot be written.
    """
    ended = _ended(state, request.id)
    if ended is None or ended.state != DONE:
        write_atomically(_for_writing(state) / f"{request.id}.json", json.dumps(asdict(request)).encode())


def waiting(state: Path) -> list[Request]:
    """Those that have no backup yet, in the order in which they came.

    Raises:
        RefusedError: A file is damaged.
    """
    found = [_load(path, Request) for path in _folder(state).glob("*.json")]
    return sorted((each for each in found if each is not None), key=lambda request: (request.asked, request.id))


def next_batch(state: Path, requests: Iterable[Request]) -> Batch | None:
    """The one that was begun and has not ended, or a new one of those that are for galleries; None if there are none.

    Raises:
        RefusedError: A file is damaged.
        OSError: It cannot be remembered.
    """
    galleries = [request for request in requests if request.wants == GALLERY]
    path = _for_writing(state) / _BATCH
    begun: dict[str, Any] | None = _load(path, dict)
    if begun is not None:
        members = tuple(request for request in galleries if request.id in begun["ids"])
        if members:
            return Batch(begun["token"], members)
    if not galleries:
        return None
    batch = Batch(secrets.token_hex(8), tuple(galleries[:_BATCH_MOST]))
    document = {"token": batch.token, "ids": [request.id for request in batch.requests]}
    write_atomically(path, json.dumps(document).encode())
    return batch


def end(state: Path, request: Request, answer: Answer) -> None:
    """Remember what became of a request; one that is done waits no longer.

    Raises:
        OSError: It cannot be written.
    """
    folder = _for_writing(state)
    write_atomically(folder / _ENDED / f"{request.id}.json", json.dumps(asdict(answer)).encode())
    if answer.state == DONE:
        (folder / f"{request.id}.json").unlink(missing_ok=True)


def answer_to(state: Path, identity: str) -> Answer | None:
    """What became of a request; None if it is not known here, or no longer."""
    if (ended := _ended(state, identity)) is not None:
        return ended
    return Answer(WAITING) if (_folder(state) / f"{identity}.json").exists() else None


def forget_old(state: Path) -> None:
    """Delete what became of requests of more than a day ago; but of those that still wait."""
    folder = _folder(state)
    for path in (folder / _ENDED).glob("*.json"):
        if time.time() - path.stat().st_mtime > _KEPT_SECONDS and not (folder / path.name).exists():
            path.unlink(missing_ok=True)


def folders(state: Path) -> list[Path]:
    """Where its files are, as far as there are any."""
    return [folder for folder in (_folder(state), _folder(state) / _ENDED) if folder.is_dir()]


def _folder(state: Path) -> Path:
    return state / _FOLDER


def _for_writing(state: Path) -> Path:
    folder = _folder(state)
    (folder / _ENDED).mkdir(mode=0o750, parents=True, exist_ok=True)
    return folder


def _ended(state: Path, identity: str) -> Answer | None:
    with contextlib.suppress(RefusedError):  # only memory: a damaged one is none
        return _load(_folder(state) / _ENDED / f"{identity}.json", Answer)
    return None


def _load(path: Path, kind: type[_Item]) -> _Item | None:
    """What a file holds; None if there is none."""
    try:
        return kind(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        raise RefusedError(
            f"{path} is damaged ({error!r})", suggestion="move it away, and ask for that backup again"
        ) from error
