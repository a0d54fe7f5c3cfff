"""Where backups are asked for from outside: a folder into which a file is renamed, `<root>/run/triggers/`.

Whoever may write there, a container, asks; nothing there is trusted. The folders are opened without following links and
used by their descriptors, and only a small regular file is ever read. What is no request, whatever it is, is moved to
`<root>/run/failed/` with the reason beside it.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from portfolio_ops.errors import NotFoundError, RefusedError
from portfolio_ops.store.requests import DAILY, GALLERY, Request, fault_of, is_id

RUN, TRIGGERS, FAILED = "run", "triggers", "failed"

_BYTES_MOST = 64 << 10
_AT_ONCE = 10_000
_NAME_BYTES = 200
_WRITTEN_WITHIN = 3600.0
_UNFINISHED = re.compile(r"\.request-[0-9a-f]{32}")
_NOT_ITS_FAULT = {errno.ENOENT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Why a file cannot be read that may be a request all the same: it is gone, or the host cannot read it now."""

_HIDDEN = "."  # files that are still being written, by the usual convention; systemd does not count them either


@dataclass(frozen=True)
class Refused:
    """A file that was no request: its name, where it lies now, and why."""

    name: str
    path: Path
    reason: str


class _NoRequestError(Exception):
    """Why a file is none."""


def put(root: Path, request: Request) -> None:
    """Ask for a backup: a file that is there whole, or not.

    Raises:
        NotFoundError: There is no such folder.
        OSError: It cannot be written.
    """
    document = {"request": request.id, "backup": request.wants}
    if request.wants == GALLERY:
        document["galleryName"] = request.name
    name = _name_of(request.id)
    with _folder(root, TRIGGERS) as folder:
        descriptor = os.open(
            f".{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640, dir_fd=folder
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(document).encode())
                file.flush()
                os.fsync(file.fileno())
            os.rename(f".{name}", name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(f".{name}", dir_fd=folder)
            raise
        os.fsync(folder)


def drain(root: Path, take: Callable[[Request], None]) -> list[Refused]:
    """Take every request that lies there, and put everything else aside.

    Of more than 10,000 files, so many: whoever adds files without end does not keep it from coming to its end.

    Args:
        take: Called with each before its file is deleted. It must be durable then, and may be called again with the
            same one after a crash.

    Raises:
        NotFoundError: There is no such folder.
        OSError: A file can neither be taken nor put aside; or the host cannot read it now, and it waits.
    """
    refused: list[Refused] = []
    with _folder(root, TRIGGERS) as folder:
        _sweep(folder)
        for name in _names(folder):
            # What is exchanged or removed meanwhile is seen the next time, if it is still there.
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                try:
                    request = _read(folder, name)
                except _NoRequestError as error:
                    refused.append(_put_aside(root, folder, name, str(error)))
                else:
                    take(request)
                    os.unlink(name, dir_fd=folder)
    return refused


def _sweep(folder: int) -> None:
    """Delete what a killed `put` of ours has left; nobody else's."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _UNFINISHED.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > _WRITTEN_WITHIN:
                        os.unlink(entry.name, dir_fd=folder)


def _names(folder: int) -> list[str]:
    """Some of what is there, in the order of its names."""
    with os.scandir(folder) as entries:
        visible = (entry.name for entry in entries if not entry.name.startswith(_HIDDEN))
        return sorted(itertools.islice(visible, _AT_ONCE))


def holds(root: Path, identity: str) -> bool:
    """Whether the request that was `put` still lies there."""
    with _folder(root, TRIGGERS) as folder, contextlib.suppress(FileNotFoundError):
        os.stat(_name_of(identity), dir_fd=folder, follow_symlinks=False)
        return True
    return False


def _name_of(identity: str) -> str:
    return f"request-{identity}"


@contextlib.contextmanager
def _folder(root: Path, name: str) -> Iterator[int]:
    """The descriptor of a folder below `run`, with no link on the way from the root."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    opened: list[int] = []
    try:
        try:
            opened.append(os.open(root / RUN, flags))
            opened.append(os.open(name, flags, dir_fd=opened[0]))
        except OSError as error:
            path = root / RUN / name
            if error.errno == errno.ENOENT:
                raise NotFoundError(
                    f"there is no folder {path}", suggestion=f"mkdir -p {path}, as the site's owner; the role makes it"
                ) from error
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise RefusedError(f"{path} is not a folder", suggestion="remove what lies there") from error
            raise
        yield opened[-1]
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _read(folder: int, name: str) -> Request:
    """The request that a file is."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno in _NOT_ITS_FAULT:
            raise
        raise _NoRequestError(f"it is no regular file that can be read ({error.strerror})") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _NoRequestError("it is no regular file")
        if status.st_size > _BYTES_MOST:
            raise _NoRequestError(f"it has {status.st_size:,} bytes, at most {_BYTES_MOST:,} are read")
        content = os.pread(descriptor, _BYTES_MOST, 0)
    except OSError as error:
        if error.errno in _NOT_ITS_FAULT:
            raise
        raise _NoRequestError(f"it cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)
    # The same file after a crash is the same request.
    same = f"{name}\0{status.st_ino}\0{status.st_mtime_ns}".encode("utf-8", "surrogateescape")
    return _parsed(content, name, hashlib.sha256(same).hexdigest()[:32])


def _parsed(content: bytes, file_name: str, identity: str) -> Request:
    """A JSON object, or nothing: then the file's own name is the gallery's."""
    document: dict[str, Any] = {}
    if content.strip():
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _NoRequestError(f"its content is neither empty nor JSON ({error})") from error
        if not isinstance(document, dict):
            raise _NoRequestError("its content is JSON, but no object")
    wants = document.get("backup", GALLERY)
    if wants not in (GALLERY, DAILY):  # not a set: it may be a list
        raise _NoRequestError(f'its "backup" is neither "{GALLERY}" nor "{DAILY}"')
    name = document.get("galleryName", file_name) if wants == GALLERY else ""
    if wants == GALLERY and (fault := fault_of(name)):
        raise _NoRequestError(fault)
    own = str(document.get("request"))
    return Request(own if is_id(own) else identity, wants, name, datetime.now(UTC).isoformat(timespec="seconds"))


def _put_aside(root: Path, folder: int, name: str, reason: str) -> Refused:
    """Move it out of the way under a name that nothing has; what it is does not matter to rename(2)."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(root / RUN / FAILED, 0o750)  # noqa: PTH102  (fails at a link, as it should)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    target = os.fsdecode(os.fsencode(f"{stamp}-{name}")[:_NAME_BYTES])
    with _folder(root, FAILED) as failed:
        try:
            os.rename(name, target, src_dir_fd=folder, dst_dir_fd=failed)
        except PermissionError:
            # Somebody else's folder, which knows its parent and may not be written. Hidden, it is in nobody's way here.
            target = f"{_HIDDEN}{target}"
            os.rename(name, target, src_dir_fd=folder, dst_dir_fd=folder)
            return Refused(name, root / RUN / TRIGGERS / target, reason)
        # What is wrong is in the journal as well; without room for the note, the file is still out of the way.
        with contextlib.suppress(OSError):
            descriptor = os.open(
                f"{target}.reason", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640, dir_fd=failed
            )
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{reason}\n")
    return Refused(name, root / RUN / FAILED / target, reason)
