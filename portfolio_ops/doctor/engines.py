"""The SQLite of each program that has the database open, found in what it has loaded.

Versions from 3.7.0 to 3.51.2 can corrupt a database when one connection checkpoints while another commits and begins
the WAL anew; 3.51.3 mends it, and so do 3.50.7 and 3.44.6 (<https://www.sqlite.org/wal.html>, "The WAL-reset bug").
"""

import contextlib
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

import apsw

from portfolio_ops.config import Site
from portfolio_ops.doctor.finding import Finding, advice, fault, ok
from portfolio_ops.host.identity import as_root
from portfolio_ops.restore.plan import others_that_hold

_MAGIC = b"SQLite format 3\0"
_VERSION = re.compile(rb"\0(3\.\d{1,2}\.\d{1,2})\0")
_LARGEST = 300 << 20
_FIRST, _MENDED = (3, 7, 0), (3, 51, 3)
_BACKPORTS = {(3, 44): 6, (3, 50): 7}


def look(site: Site) -> Iterator[Finding]:
    """Ours, and those of the programs that run now."""
    yield _ours()
    for holder in others_that_hold(site, Path(os.path.realpath(site.database))):
        version = version_in(holder.pid)
        if version is None:
            yield ok("SQLite", f"the version in {holder} was not found")
        elif is_affected(version):
            words = ".".join(map(str, version))
            yield advice(
                "SQLite",
                f"{holder} runs SQLite {words}: it can corrupt the database when a checkpoint races a commit",
                "update the backend's SQLite driver to 3.51.3 or later (for Node: better-sqlite3, or Node itself)",
            )
        else:
            yield ok("SQLite", f"{holder} runs SQLite {'.'.join(map(str, version))}")


def _ours() -> Finding:
    text = apsw.sqlite_lib_version()
    if not is_affected(tuple(map(int, text.split(".")))):
        return ok("SQLite", f"ours is {text}")
    return fault(
        "SQLite",
        f"ours is {text}: it can corrupt the database when a checkpoint races a commit",
        "install the apsw that this tool asks for, which brings its own SQLite; deploy again",
    )


def is_affected(version: tuple[int, ...]) -> bool:
    """Whether a version has the WAL-reset bug."""
    patched = _BACKPORTS.get((version[0], version[1]))
    return _FIRST <= version < _MENDED and not (patched is not None and version[2] >= patched)


def version_in(pid: int) -> tuple[int, ...] | None:
    """The version of the SQLite that a process has loaded; None where it is not found, or not clear."""
    with as_root():
        found = {version for path in _loaded(pid) for version in _versions(path)}
    return found.pop() if len(found) == 1 else None


def _loaded(pid: int) -> Iterator[Path]:
    """The files that a process runs code from, as they are inside its own root (a container's is another)."""
    paths = set()
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
            words = line.split(maxsplit=5)
            if len(words) == 6 and "x" in words[1] and words[5].startswith("/"):  # noqa: PLR2004  (proc_pid_maps(5))
                paths.add(words[5])
    for path in sorted(paths):
        yield Path(f"/proc/{pid}/root{path}")


def _versions(path: Path) -> set[tuple[int, ...]]:
    """The version strings of a file that holds SQLite."""
    try:
        with path.open("rb") as file:
            if not 0 < path.stat().st_size <= _LARGEST:
                return set()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if data.find(_MAGIC) < 0:
                    return set()
                return {tuple(map(int, found[1].split(b"."))) for found in _VERSION.finditer(data)}
    except (OSError, ValueError):
        return set()
