"""Every failure the tool can report, with the exit code that scripts and systemd see.

An error says what was tried, what is wrong, and what to do next (`suggestion`).
"""

import errno
import os
import shlex
import stat
from enum import IntEnum, unique
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.mount import mount_of

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The system's words for a disk, or a share of it, that is full."""


@unique
class ExitCode(IntEnum):
    """The documented exit codes. An unknown code must be treated as a failure."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_PERMITTED = 3
    REFUSED = 4
    NOT_FOUND = 6
    BUSY = 7
    REMOTE_UNREACHABLE = 8
    VERIFICATION_FAILED = 9
    FINDINGS = 10


class PortfolioOpsError(Exception):
    """A failure that is reported as one message, without a traceback.

    Attributes:
        message: What was tried and what is wrong, one line.
        suggestion: What to do next, one line; empty only where nothing can be done.
        code: A stable word for programs, in the JSON output.
        reported: Whether who reads stderr has been told of it.
    """

    exit_code: ExitCode = ExitCode.FAILED
    code: str = "FAILED"

    def __init__(self, message: str, *, suggestion: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.suggestion = suggestion
        self.reported = False


class UsageError(PortfolioOpsError):
    """The command line asks for something that cannot be meant."""

    exit_code = ExitCode.USAGE
    code = "USAGE"


class ConfigurationError(PortfolioOpsError):
    """A configuration file has faults. `problems` holds all of them, not the first only."""

    exit_code = ExitCode.USAGE
    code = "CONFIGURATION"

    def __init__(self, problems: list[str], *, suggestion: str = "") -> None:
        super().__init__("; ".join(problems), suggestion=suggestion)
        self.problems = problems


class NotPermittedError(PortfolioOpsError):
    """The caller's user may not do this."""

    exit_code = ExitCode.NOT_PERMITTED
    code = "NOT_PERMITTED"


class RefusedError(PortfolioOpsError):
    """A precondition does not hold; nothing was changed."""

    exit_code = ExitCode.REFUSED
    code = "REFUSED"


class NoRoomError(RefusedError):
    """There is not the room on the disk that it takes, beside what is left to the site."""


class NotFoundError(PortfolioOpsError):
    """A database, artifact or site that was named does not exist."""

    exit_code = ExitCode.NOT_FOUND
    code = "NOT_FOUND"


class BusyError(PortfolioOpsError):
    """Another run, or the site itself, holds what is needed."""

    exit_code = ExitCode.BUSY
    code = "BUSY"


class VerificationError(PortfolioOpsError):
    """An artifact was read back and is not what it should be."""

    exit_code = ExitCode.VERIFICATION_FAILED
    code = "VERIFICATION_FAILED"


class UnreachableError(PortfolioOpsError):
    """Who was to be told could not be reached."""

    exit_code = ExitCode.REMOTE_UNREACHABLE
    code = "REMOTE_UNREACHABLE"


def explained(error: OSError) -> PortfolioOpsError:
    """An operating system's error as ours, with the cure where it is known."""
    where = f": {error.filename}" if error.filename else ""
    text = f"{os.strerror(error.errno) if error.errno else error}{where}"
    if error.errno == errno.EROFS:
        return _closed(text, error.filename)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return NotPermittedError(text, suggestion=cure_of_denial(error.filename))
    if error.errno in NO_ROOM:
        mount = mount_of(Path(os.fsdecode(error.filename))) if error.filename else None
        place = f" on the filesystem at {mount.point}" if mount is not None else ""
        return PortfolioOpsError(
            text, suggestion=f"free some space{place}; nothing unfinished was published, and the next run starts afresh"
        )
    return PortfolioOpsError(text, suggestion="see the kernel log (journalctl -k) for faults of the disk")


def _closed(text: str, path: object) -> PortfolioOpsError:
    """What cannot be written: a filesystem is mounted read-only, which may be mended, or a unit's sandbox says so."""
    mount = mount_of(Path(os.fsdecode(path))) if isinstance(path, str | bytes | os.PathLike) else None
    sandbox = "inside a unit, check ReadWritePaths= of its drop-in"
    if mount is None:
        return PortfolioOpsError(
            text, suggestion=f"see `journalctl -k` and `findmnt`: is a filesystem mounted read-only? Or, {sandbox}"
        )
    if mount.read_only:
        return PortfolioOpsError(f"{text}: {mount.text}", suggestion=mount.cure)
    return NotPermittedError(
        text, suggestion=f"{sandbox}; elsewhere, `findmnt -T {shlex.quote(str(mount.point))}` shows what is read-only"
    )


def cure_of_denial(path: object) -> str:
    """What gives access: from the path up, it is looked for what denies it, and to whom that belongs."""
    if not isinstance(path, str | bytes | os.PathLike):
        return "run as the owner of the site's data; inside a unit, check its drop-in"
    denied = Path(os.fsdecode(path))
    for each in (denied, *denied.parents):
        try:
            status = each.lstat()
        except OSError:
            continue
        if status.st_uid != os.geteuid():
            return (
                f"{each} belongs to uid {status.st_uid}, and this runs as uid {os.geteuid()}: run as its owner; or, if"
                f" it should be the site's, `{tool()} doctor`, as root, names the command that makes it so"
            )
        if keeps_out_its_owner(status.st_mode):
            return f"its own mode keeps the owner of {each} out: chmod u+rwX {shlex.quote(str(each))}"
        break
    return f"see who may do what on the way: namei -l {shlex.quote(str(denied))}; inside a unit, check its drop-in"


def keeps_out_its_owner(mode: int) -> bool:
    """Whether the owner of a file may not read and write it, or of a folder may not enter it either."""
    needed = stat.S_IRWXU if stat.S_ISDIR(mode) else stat.S_IRUSR | stat.S_IWUSR
    return not stat.S_ISLNK(mode) and mode & needed != needed


def foreseen(error: Exception) -> PortfolioOpsError | None:
    """An error of the operating system's or of SQLite's as ours; None for what is a fault of the program."""
    if isinstance(error, PortfolioOpsError):
        return error
    if isinstance(error, OSError):
        return explained(error)
    if type(error).__module__ == "apsw":  # not imported for this: most commands need no SQLite
        return PortfolioOpsError(
            f"SQLite: {error}", suggestion="free some space if it is the disk; see the kernel log (journalctl -k)"
        )
    return None
