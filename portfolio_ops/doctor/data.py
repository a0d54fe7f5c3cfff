"""The site's data: paths, mounts, owner and modes, side files, the database, the logs."""

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from portfolio_ops.config import Site
from portfolio_ops.doctor.finding import Finding, advice, fault, ok
from portfolio_ops.errors import NotFoundError, PortfolioOpsError
from portfolio_ops.host.files import TEMPORARY_PREFIX, open_regular
from portfolio_ops.host.identity import as_root
from portfolio_ops.logs import writers
from portfolio_ops.sqlite.connection import reading

_FSTAB, _MOUNTS = Path("/etc/fstab"), Path("/proc/self/mounts")
_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH
_WAL_VERSION = 2  # bytes 18 and 19 of the database header (fileformat2.html, section 1.3.3)
_FICLONE = 0x40049409  # ioctl_ficlone(2)
_COLLAPSING = {"ext4", "xfs"}


def look(site: Site) -> Iterator[Finding]:
    """Everything about the data."""
    if not site.root.is_dir():
        yield fault("root", f"{site.root} does not exist", "is the volume mounted? Or correct [site] root")
        return
    yield _mounted(site.root)
    yield _backups(site)
    yield from _database(site)
    for log in site.logs:
        yield _log(log)
    yield _abilities(site)


def _mounted(root: Path) -> Finding:
    """A volume that fstab names and that is not mounted leaves a bare folder, which looks like a site without data."""
    try:
        fields = [line.split() for line in _FSTAB.read_text().splitlines() if line and not line.startswith("#")]
        now = {line.split()[1] for line in _MOUNTS.read_text().splitlines()}
    except (OSError, IndexError):
        return ok("mount", "there is no fstab to compare with")
    wanted = [Path(words[1]) for words in fields if len(words) > 1 and words[1].startswith("/")]
    missing = [path for path in wanted if root.is_relative_to(path) and str(path) not in now and path != Path("/")]
    if missing:
        return fault("mount", f"{missing[0]} is in fstab and not mounted", f"mount {missing[0]}")
    return ok("mount", f"{root} is there")


def _backups(site: Site) -> Finding:
    folder = site.backups
    if not folder.is_dir():
        return advice("backups", f"{folder} does not exist yet", "the first backup makes it")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        return fault("backups", f"{folder} may not be written by uid {os.geteuid()}", f"chown {os.geteuid()} {folder}")
    if folder.stat().st_mode & _OTHERS:
        return advice("backups", f"everybody on this host may look into {folder}", f"chmod o= {folder}")
    return ok("backups", f"{folder} is the owner's alone")


def _database(site: Site) -> Iterator[Finding]:
    path = Path(os.path.realpath(site.database))
    if not path.is_file():
        yield fault("database", f"there is no database at {site.database}", "restore one, or correct [site] database")
        return
    status = path.stat()
    if status.st_mode & stat.S_IWOTH:
        yield fault("database", f"everybody on this host may write {path}", f"chmod o-w {path}")
    yield from _side_files(path, status.st_uid)
    try:
        with reading(path) as connection:
            mode = str(connection.pragma("journal_mode"))
    except PortfolioOpsError as error:
        yield fault("database", error.message, error.suggestion)
        return
    if mode == "wal":
        yield ok("database", f"{path} opens, in WAL mode")
    else:
        yield advice(
            "database",
            f"its journal mode is {mode}: writers wait while a backup copies it, and no moment between backups is kept",
            f"with the site stopped: sqlite3 {path} 'PRAGMA journal_mode=wal'",
        )


def _side_files(path: Path, owner: int) -> Iterator[Finding]:
    foreign = []
    for ending in ("-wal", "-shm", "-journal"):
        side = path.with_name(f"{path.name}{ending}")
        with contextlib.suppress(FileNotFoundError):
            if side.stat().st_uid != owner:
                foreign.append(side)
    if foreign:
        yield fault(
            "side files",
            f"{foreign[0].name} is not of uid {owner}, as the database is: the site may fail to write",
            f"stop the site, then: chown {owner} {' '.join(map(str, foreign))}",
        )
        return
    wal = path.with_name(f"{path.name}-wal")
    with path.open("rb") as file:
        version = file.read(20)[18:20]
    if wal.exists() and wal.stat().st_size and version and version[0] != _WAL_VERSION:
        yield fault(
            "side files",
            f"{wal.name} lies beside a database that has no WAL: it is a stray, and would be replayed into it",
            f"stop the site and move it away: mv {wal} {wal}.stray",
        )
    else:
        yield ok("side files", "none is foreign or stray")


def _log(log: Path) -> Finding:
    try:
        descriptor = open_regular(log)
    except NotFoundError:
        return advice("log", f"{log} does not exist", "it is rotated once it does; or correct [logs] files")
    except PortfolioOpsError as error:
        return fault("log", error.message, error.suggestion)
    try:
        with as_root():
            found = writers.look(descriptor)
    finally:
        os.close(descriptor)
    if found.unsafe:
        who = ", ".join(f"{writer.command} (process {writer.pid})" for writer in found.unsafe)
        return fault(
            "log", f"{log} is written without O_APPEND by {who}", "open it in append mode ('a'); else it is not rotated"
        )
    unseen = f"; {found.unseen} processes could not be looked at, run this as root" if found.unseen else ""
    return ok("log", f"{log}: no writer without O_APPEND{unseen}")


def _abilities(site: Site) -> Finding:
    kind = _filesystem(site.root)
    shares = _can_share_blocks(site)
    words = f"{kind}: logs are rotated {'losing nothing' if kind in _COLLAPSING else 'by copying and truncating'}"
    words += ", copies share blocks" if shares else ", copies take their full size"
    if kind not in _COLLAPSING:
        return advice("filesystem", words, "ext4 and xfs can remove the head of a file that is being written")
    return ok("filesystem", words)


def _filesystem(path: Path) -> str:
    """The type of the mount that holds a path (proc_pid_mountinfo(5))."""
    best, kind = "", "unknown"
    with contextlib.suppress(OSError, IndexError):
        for line in _MOUNTS.read_text().splitlines():
            words = line.split()
            if path.is_relative_to(words[1]) and len(words[1]) >= len(best):
                best, kind = words[1], words[2]
    return kind


def _can_share_blocks(site: Site) -> bool:
    if not site.state.is_dir():
        return False
    try:
        with (
            tempfile.NamedTemporaryFile(prefix=TEMPORARY_PREFIX, dir=site.state) as one,
            tempfile.NamedTemporaryFile(prefix=TEMPORARY_PREFIX, dir=site.state) as two,
        ):
            one.write(bytes(4096))
            one.flush()
            fcntl.ioctl(two.fileno(), _FICLONE, one.fileno())
    except OSError:
        return False
    return True
