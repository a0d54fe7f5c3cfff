"""Every failure the tool can report, with the exit code that scripts and systemd see.

An error says what was tried, what is wrong, and what to do next (`suggestion`).
"""

import errno
import os
from enum import IntEnum, unique
from pathlib import Path

from portfolio_ops.calling import tool


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
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return NotPermittedError(text, suggestion=_cure_of_denial(error.filename))
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return PortfolioOpsError(
            text, suggestion="free some space; nothing was published or pruned, and the next run starts afresh"
        )
    return PortfolioOpsError(text, suggestion="see the kernel log (journalctl -k) for faults of the disk")


def _cure_of_denial(path: object) -> str:
    """What gives access: from the path up, it is looked for to whom belongs what denies it."""
    if isinstance(path, str | bytes | os.PathLike):
        denied = Path(os.fsdecode(path))
        for each in (denied, *denied.parents):
            try:
                owner = each.lstat().st_uid
            except OSError:
                continue
            if owner == os.geteuid():
                break
            return (
                f"{each} belongs to uid {owner}, and this runs as uid {os.geteuid()}: run as its owner; or, if it"
                f" should be the site's, `{tool()} doctor` names the command that makes it so"
            )
    return "run as the site's owner; inside a unit, check ReadWritePaths= of its drop-in"


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
