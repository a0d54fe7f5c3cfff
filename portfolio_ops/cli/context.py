"""What every command gets: the site it is about, and the one way to end."""

import contextlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from portfolio_ops import calling, config
from portfolio_ops.config import Site
from portfolio_ops.errors import ConfigurationError, ExitCode, NotPermittedError, PortfolioOpsError, RefusedError
from portfolio_ops.host.identity import act_as_owner, become_owner

RESULT_VERSION = 1


class OutputError(Exception):
    """What a command has to say cannot be written. No OSError: click itself ends a command whose pipe is closed."""


@contextlib.contextmanager
def output() -> Iterator[None]:
    """While the block writes a result on stdout, and does nothing else that can fail.

    Raises:
        OutputError: It cannot be written; its cause is the operating system's error.
    """
    try:
        yield
    except OSError as error:
        raise OutputError from error


class Context:
    """The global options of one call."""

    def __init__(self, config_file: str | None, site_name: str | None, *, as_json: bool) -> None:
        self._config_file, self._site_name = config_file, site_name
        self.json = as_json

    def configured(self) -> Site:
        """The site as configured, for commands that do not touch its data.

        Raises:
            PortfolioOpsError: No site, or faults in its file.
        """
        return config.load(self.file())

    def file(self) -> Path:
        """The file of the site; where the site is named, there need be none.

        Raises:
            PortfolioOpsError: No site.
        """
        file = Path(self._config_file).absolute() if self._config_file is not None else None
        found = config.find(file, self._site_name)
        calling.about(config.options_for(found))
        return found

    def site(self) -> Site:
        """The site, this process having become the owner of its data.

        Raises:
            PortfolioOpsError: As `configured`; or the site is not there; or this user may not act for it.
        """
        site = self.configured()
        become_owner(site.database, site.root, site.backups)
        return site

    def site_as_root(self) -> Site:
        """The site, for what only root can do; files are still handled as the owner of its data.

        Raises:
            PortfolioOpsError: As `configured`; or the site is not there; or this user is not root.
        """
        site = self.configured()
        _require_roots_file(site.file)
        act_as_owner(site.database, site.root, site.backups)
        return site

    def require_consent(self, otherwise: str) -> None:
        """Ask a person whether to go on.

        Args:
            otherwise: What is wrong where nobody can be asked.

        Raises:
            RefusedError: Nobody can be asked, or the answer is no.
        """
        if self.json or not sys.stdin.isatty():
            raise RefusedError(otherwise, suggestion="--yes, or --dry-run to look")
        if not click.confirm("Go on?", err=True):
            raise RefusedError("nothing was changed: the answer was no", suggestion="--dry-run looks, and does not ask")

    def finish(
        self,
        command: str,
        data: dict[str, Any],
        human: Callable[[], None],
        code: ExitCode = ExitCode.OK,
        failures: Sequence[PortfolioOpsError] = (),
    ) -> ExitCode:
        """Show a command's result, for a program or for a person, and hand on its exit code.

        Args:
            code: Where nothing failed.
            failures: What did, the worst first, whose exit code it is. A person is told by `human`.

        Raises:
            OutputError: The result cannot be written.
        """
        code = failures[0].exit_code if failures else code
        with output():
            if self.json:
                print(json.dumps(envelope(command, code, data, failures), indent=2))
            else:
                human()
        return code


def _require_roots_file(file: Path) -> None:
    """Commands that a file names are run as root only if nobody but root can have written it."""
    status = file.stat()
    if os.geteuid() == 0 and (status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise NotPermittedError(
            f"{file} can be changed by others than root, and what it says of [backend] would be run as root",
            suggestion=f"chown root: {file} && chmod go-w {file}",
        )


def envelope(
    command: str, code: ExitCode, data: dict[str, Any] | None, failures: Sequence[PortfolioOpsError]
) -> dict[str, Any]:
    """The one JSON object: bytes are integers, times RFC 3339 in UTC."""
    return {
        "result_version": RESULT_VERSION,
        "command": command,
        "status": {ExitCode.OK: "ok", ExitCode.FINDINGS: "findings"}.get(code, "error"),
        "exit_code": int(code),
        "data": data,
        "errors": [
            {"code": failure.code, "message": each, "suggestion": failure.suggestion}
            for failure in failures
            for each in messages_of(failure)
        ],
    }


def messages_of(failure: PortfolioOpsError) -> list[str]:
    """What is wrong, one thing a line."""
    return failure.problems if isinstance(failure, ConfigurationError) else [failure.message]
