"""The site's data: paths, mounts, owner and modes, side files, the database, the logs."""

import contextlib
import fcntl
import os
import re
import shlex
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw

from portfolio_ops.config import Site
from portfolio_ops.doctor.finding import Finding, advice, fault, ok
from portfolio_ops.errors import NotFoundError, PortfolioOpsError
from portfolio_ops.host.files import TEMPORARY_PREFIX, open_regular
from portfolio_ops.logs import writers
from portfolio_ops.mount import read_only, unescaped
from portfolio_ops.sqlite import removed, rows
from portfolio_ops.sqlite.connection import reading
from portfolio_ops.sqlite.export import missing_tables
from portfolio_ops.sqlite.place import SIDES, located, require_the_sites, side
from portfolio_ops.store.lock import ARCHIVING, holder_of

_FSTAB, _MOUNTS = Path("/etc/fstab"), Path("/proc/self/mounts")
_WORD = re.compile(rb"[^ \t]+")
_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH
_WAL_VERSION = b"\2"  # byte 19 of the database header (fileformat2.html, section 1.3.3)
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
        wanted, mounts = _table(_FSTAB), _table(_MOUNTS)
    except OSError:
        return ok("mount", "there is no fstab to compare with")
    now, places = {words[1] for words in mounts}, (root, Path(os.path.realpath(root)))
    for words in wanted:
        path, by_hand = Path(words[1]), "noauto" in words[-1].split(",")
        if by_hand or not any(place.is_relative_to(path) for place in places):
            continue
        if os.path.realpath(path) not in {*now, "/"}:
            return fault("mount", f"{path} is in fstab and not mounted", _command("mount", path))
    return ok("mount", f"{root} is there")


def _table(file: Path) -> list[list[str]]:
    """The lines of a table of mounts: device, folder, type and options (fstab(5), proc_pid_mounts(5))."""
    lines = [_WORD.findall(line)[:4] for line in file.read_bytes().split(b"\n")]
    return [list(map(unescaped, words)) for words in lines if len(words) > 2 and not words[0].startswith(b"#")]  # noqa: PLR2004  (the options may be missing)


def _backups(site: Site) -> Finding:
    folder = site.backups
    if not folder.is_dir():
        return advice(
            "backups", f"{folder} does not exist", "the first backup by hand makes it; where units run, deploy again"
        )
    if mount := read_only(folder):
        return fault("mount", mount.text, mount.cure)
    if not _may(folder, os.R_OK | os.W_OK | os.X_OK):
        return fault(
            "backups",
            f"{folder} may not be written by uid {os.geteuid()}",
            _command("chmod", "u+rwX", folder) if folder.stat().st_uid == os.geteuid() else _to_the_owner(folder),
        )
    if denied := _denied(folder, site.state):
        return fault(
            "backups",
            f"{len(denied)} of what lies in {folder} may not be used by uid {os.geteuid()}, {denied[0]} first",
            _to_the_owner(folder),
        )
    return _rights(folder)


def _rights(folder: Path) -> Finding:
    """What others on this host may do with the backups."""
    if (mode := folder.stat().st_mode) & stat.S_IWOTH:
        words = f"everybody on this host may write into {folder}, and delete what lies there"
        return fault("rights", words, _command("chmod", "o=", folder))
    if mode & _OTHERS:
        return advice("backups", f"everybody on this host may look into {folder}", _command("chmod", "o=", folder))
    return ok("backups", f"{folder} is the owner's alone")


def _to_the_owner(folder: Path) -> str:
    """What gives all that lies in a folder to who acts for the site."""
    owner = f"{os.geteuid()}:{os.getegid()}"
    return f"{_command('chown', '-R', owner, folder)} && {_command('chmod', '-R', 'u+rwX', folder)}"


def _denied(folder: Path, state: Path) -> list[Path]:
    """What a job could not use: folders that it may not write, artifacts that it may not read, state that it may not.

    So it is where somebody copied backups as root.
    """
    denied = []
    for parent, folders, files in os.walk(folder):
        written = os.W_OK if Path(parent).is_relative_to(state) else 0
        for names, needs in ((folders, os.R_OK | os.W_OK | os.X_OK), (files, os.R_OK | written)):
            denied += [path for path in (Path(parent, name) for name in names) if _is_denied(path, needs)]
    return denied


def _is_denied(path: Path, needs: int) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:  # gone meanwhile
        return False
    except OSError:
        return True
    return not stat.S_ISLNK(mode) and not _may(path, needs)


def _may(path: Path, needs: int) -> bool:
    return os.access(path, needs, effective_ids=True)


def _database(site: Site) -> Iterator[Finding]:
    try:
        path = located(site.database)
    except PortfolioOpsError as error:
        yield fault("database", error.message, error.suggestion)
        return
    if lost := removed.look(path, but=holder_of(site.state, ARCHIVING)):
        yield fault("database", *lost)
    if path.is_dir():
        yield fault("database", f"{path} is a folder", "correct [site] database, or move the folder away")
        return
    if not path.is_file():
        if not lost:
            yield fault("database", f"there is no database at {path}", "restore one, or correct [site] database")
        return
    try:
        require_the_sites(path)
    except PortfolioOpsError as error:  # it is not opened then
        yield fault("database", error.message, error.suggestion)
        return
    status = path.stat()
    if status.st_mode & stat.S_IWOTH:
        yield fault("database", f"everybody on this host may write {path}", _command("chmod", "o-w", path))
    foreign, touched = _foreign_sides(path, status.st_uid), touched_by_opening(path)
    yield from foreign
    yield from touched
    if not foreign and not touched:
        yield ok("side files", "none is foreign or stray")
    if not touched:
        yield from _opened(site, path)


def _opened(site: Site, path: Path) -> Iterator[Finding]:
    try:
        with reading(path) as connection:
            yield _journal(path, str(connection.pragma("journal_mode")))
            yield from _tables(site, connection)
    except PortfolioOpsError as error:
        yield fault("database", error.message, error.suggestion)


def _journal(path: Path, mode: str) -> Finding:
    if mode == "wal":
        return ok("database", f"{path} opens, in WAL mode")
    return advice(
        "database",
        f"its journal mode is {mode}: writers wait while a backup copies it, and the archive has to read all of it to "
        "see what changed",
        f"with the site stopped: {_command('sqlite3', path, 'PRAGMA journal_mode=wal')}",
    )


def _tables(site: Site, connection: apsw.Connection) -> Iterator[Finding]:
    """Whether the tables are there that the configuration names."""
    needed = [table.name for table in site.social_tables if not table.optional]
    if missing := missing_tables(connection, needed):
        words = f"[social] tables names {', '.join(missing)}, and the database has no such table"
        yield fault(
            "tables", words, "correct it, or end a name that may be missing with `?`; till then no export is made"
        )
    if site.gallery is None:
        return
    try:
        found = rows.look(connection, site.gallery.table, site.gallery.name, None)
    except rows.NotWatchableError as error:
        yield fault("tables", f"[gallery]: {error}", "correct [gallery] table and name; until then no row is an event")
    else:
        if not found.is_there:
            words = f"[gallery] names {site.gallery.table}, and the database has no such table yet"
            yield advice("tables", words, "its rows are events once it is there; or correct [gallery] table")


def _foreign_sides(path: Path, owner: int) -> list[Finding]:
    foreign = []
    for ending in SIDES:
        file = side(path, ending)
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_uid != owner:
                foreign.append(file)
    if not foreign:
        return []
    return [
        fault(
            "side files",
            f"{foreign[0].name} is not of uid {owner}, as the database is: the site may fail to write",
            f"stop the site, then: {_command('chown', owner, *foreign)}",
        )
    ]


def touched_by_opening(path: Path) -> list[Finding]:
    """Side files for which SQLite would change the database, or them, as soon as anybody opens it to read.

    Args:
        path: Of the database; no link.
    """
    wal, shm, journal = (side(path, ending) for ending in SIDES)
    if path.is_file() and not _may(path, os.R_OK):
        return [
            fault("database", f"{path} may not be read by uid {os.geteuid()}", _command("chmod", "u+rw", path)),
        ]
    if _head(wal, 1) and _head(path, 20)[19:] != _WAL_VERSION:
        away = " && ".join(_command("mv", file, f"{file}.stray") for file in (wal, shm) if file.exists())
        return [
            fault(
                "side files",
                f"{wal.name} lies beside a database that has no WAL: it is a stray, and whoever opens the database "
                "replays it into that, or deletes it",
                f"stop the site and move it away: {away}",
            )
        ]
    # Once it has ended, a transaction leaves no journal, an empty one, or one whose head is zeros.
    if _head(journal, 1).strip(b"\0"):
        return [
            advice(
                "side files",
                f"{journal.name} holds a transaction that runs, or was interrupted: the database was not opened, since "
                "that may roll it back",
                "look again; if it stays and no program has the database open, the site's next start rolls it back",
            )
        ]
    return []


def _command(*words: object) -> str:
    """A command as a person pastes it."""
    return shlex.join(map(str, words))


def _head(file: Path, count: int) -> bytes:
    """The first bytes of a regular file; none where it cannot be read."""
    if not file.is_file():
        return b""
    try:
        with file.open("rb") as opened:
            return opened.read(count)
    except OSError:
        return b""


def _log(log: Path) -> Finding:
    try:
        descriptor = open_regular(log)
    except NotFoundError:
        return advice("log", f"{log} does not exist", "it is rotated once it does; or correct [logs] files")
    except PortfolioOpsError as error:
        return fault("log", error.message, error.suggestion)
    try:
        found = writers.look(descriptor)
    finally:
        os.close(descriptor)
    if found.unsafe:
        who = ", ".join(f"{writer.command} (process {writer.pid})" for writer in found.unsafe)
        cure = (
            "open it in append mode ('a'), and restart that: who rotates as root, or as its user, is refused till then"
        )
        words = f"{log} is written without O_APPEND by {who}: a rotation that does not see it leaves a hole of NULs"
        return fault("log", words, cure)
    unseen = f"; {found.unseen} processes could not be looked at" if found.unseen else ""
    unseen += "" if found.entitled else "; run this as root to look at those of all users"
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
    """The type of the mount that holds a path."""
    best, kind, place = "", "unknown", Path(os.path.realpath(path))
    with contextlib.suppress(OSError):
        for words in _table(_MOUNTS):
            if place.is_relative_to(words[1]) and len(words[1]) >= len(best):
                best, kind = words[1], words[2]
    return kind


def _can_share_blocks(site: Site) -> bool:
    try:
        if not site.state.is_dir():
            return False
        with (
            tempfile.TemporaryFile(prefix=TEMPORARY_PREFIX, dir=site.state) as one,
            tempfile.TemporaryFile(prefix=TEMPORARY_PREFIX, dir=site.state) as two,
        ):
            one.write(bytes(4096))
            one.flush()
            fcntl.ioctl(two.fileno(), _FICLONE, one.fileno())
            return True
    except OSError:
        return False
