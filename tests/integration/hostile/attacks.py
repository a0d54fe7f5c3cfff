"""What an attacker puts in the place of a file or folder of the site: every kind of file that there is."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.integration.hostile.harness import OWNER, Ground

TERABYTE = 1 << 40
_LENGTH_AT = 28  # in the header: pages (fileformat2.html, section 1.3)

DATABASE, LOG, DATA, LOGS, TRIGGER = (
    "data/portfolio.sqlite",
    "logs/backend.log",
    "data",
    "logs",
    "run/triggers/winter",
)
WAL, INDEX, JOURNAL = SIDES = tuple(f"{DATABASE}-{side}" for side in ("wal", "shm", "journal"))
TARGETS = (DATABASE, *SIDES, LOG, DATA, LOGS, TRIGGER)

COMMANDS = {
    "daily": ["backup", "daily"],
    "social": ["backup", "social"],
    "gallery": ["backup", "gallery", "winter"],
    "requested": ["backup", "requested"],
    "rotate": ["logs", "rotate"],
    "once": ["archive", "once"],
    "verify": ["verify"],
    "drill": ["drill"],
    "check": ["status", "--check"],
    "status": ["status"],
    "doctor": ["doctor"],
    "sandboxed": ["doctor", "--sandboxed"],
    "list": ["list"],
    "points": ["list", "points"],
    "show": ["logs", "show"],
    "restore": ["restore", "database", "latest", "--in-place", "--yes"],
    "merge": ["restore", "social", "--merge", "--yes"],
}
"""All that units run, and what is typed by hand."""


def _link(target: str) -> Callable[[Ground, Path], None]:
    def put(ground: Ground, path: Path) -> None:
        """To the secret file of the same name; for a folder, to the folder that holds one."""
        secret = ground.outside / target
        path.symlink_to(secret if path.name in {"data", "logs"} else secret / _namesake(path))

    return put


def _namesake(path: Path) -> str:
    return "backend.log" if path.suffix == ".log" or path.parent.name == "triggers" else "portfolio.sqlite"


def _hard_link(ground: Ground, path: Path) -> None:
    secret = ground.outside / "theirs" / _namesake(path)
    if path.name in {"data", "logs"}:  # of a folder there is none: its files are
        path.mkdir()
        secret = secret.with_name("backend.log") if path.name == "logs" else secret
        path /= secret.name
    os.link(secret, path)


def _node(kind: int, major: int, minor: int) -> Callable[[Ground, Path], None]:
    def put(_: Ground, path: Path) -> None:
        os.mknod(path, kind | 0o666, os.makedev(major, minor))
        path.chmod(0o666)

    return put


def _disk(ground: Ground, path: Path) -> None:
    number = ground.disk.stat().st_rdev
    _node(0o060000, os.major(number), os.minor(number))(ground, path)


def _fifo(_: Ground, path: Path) -> None:
    os.mkfifo(path)


def _socket(_: Ground, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(path.parent, os.O_PATH)
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


def _sparse(_: Ground, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(TERABYTE)


_DEVICE = 0o020000
GROWN = "grown"
KINDS: dict[str, Callable[[Ground, Path], None]] = {
    "link": _link("theirs"),
    "link to root's": _link("roots"),
    "loop": lambda _, path: path.symlink_to(path.name),
    "hard link": _hard_link,
    "folder": lambda _, path: (path / "in it").mkdir(parents=True),
    "fifo": _fifo,
    "socket": _socket,
    "zero": _node(_DEVICE, 1, 5),
    "full": _node(_DEVICE, 1, 7),
    "terminal": _node(_DEVICE, 5, 0),
    "disk": _disk,
    "empty": lambda _, path: path.touch(),
    "sparse": _sparse,
}


def replace(ground: Ground, target: str, kind: str) -> None:
    """Put one thing in the place of another, as the attacker's own wherever that can be."""
    path = ground.root / target
    if kind == GROWN:
        _grow(path, target)
        return
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    KINDS[kind](ground, path)
    for each in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
        if each.is_dir() or each.lstat().st_nlink == 1:  # a secret keeps its owner
            os.chown(each, OWNER, OWNER, follow_symlinks=False)


def _grow(path: Path, target: str) -> None:
    """The right content, and a terabyte of nothing behind it."""
    path.touch()
    os.chown(path, OWNER, OWNER)
    with path.open("r+b") as file:
        file.truncate(TERABYTE)
        if target == LOG:
            file.seek(TERABYTE)
            file.write(b"\n")
        if target == DATABASE:
            file.seek(_LENGTH_AT)
            file.write((TERABYTE // 4096 - 1).to_bytes(4, "big"))


def cases() -> Iterator[tuple[str, str, str]]:
    """Each command with each thing in each place."""
    for name in COMMANDS:
        for target in TARGETS:
            for kind in KINDS if target in {DATA, LOGS, TRIGGER} else (*KINDS, GROWN):
                yield name, target, kind
