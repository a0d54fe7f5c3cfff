"""`portfolio-ops config`: the effective settings."""

import contextlib
import sys
from pathlib import Path

import click

from portfolio_ops.cli import present
from portfolio_ops.cli.context import Context
from portfolio_ops.config import Site, load, parse
from portfolio_ops.errors import ConfigurationError, ExitCode, NotFoundError
from portfolio_ops.host.identity import become_owner
from portfolio_ops.store.left_behind import require_nothing


@click.group("config")
def command() -> None:
    """Show or check the effective settings."""


@command.command("show")
@click.pass_obj
def show(context: Context) -> ExitCode:
    """Print every effective setting and where it comes from."""
    site = context.configured()
    data = {
        "site": site.name,
        "file": str(site.file),
        "settings": {setting.key: {"value": setting.value, "origin": setting.origin} for setting in site.settings},
    }

    def human() -> None:
        rows = [[setting.key, _written(setting.value), setting.origin] for setting in site.settings]
        print(present.table(["SETTING", "VALUE", "FROM"], rows))

    return context.finish("config show", data, human)


@command.command("check")
@click.option("--stdin", is_flag=True, help="Check what comes on standard input, before it takes the file's place.")
@click.pass_obj
def check(context: Context, *, stdin: bool) -> ExitCode:
    """Exit 2 with a line for every fault of the file, 0 if there is none.

    The statements of [drill] checks are looked at once the rest is in order.

    With --stdin, exit 4 if the site would get another folder of backups, and the former one holds some of its own.
    """
    site = _next(context.file()) if stdin else context.configured()
    _require_statements(site)
    return context.finish(
        "config check",
        {"site": site.name, "file": str(site.file)},
        lambda: print(f"{site.file} {'would be' if stdin else 'is'} in order"),
    )


def _require_statements(site: Site) -> None:
    """Refuse a [drill] check that cannot be one. Only here: a drill tells of it too, and no backup is to fail for it.

    Raises:
        ConfigurationError: One is none.
    """
    if not site.drill.checks:
        return
    from portfolio_ops.sqlite.assertions import faults_of_words  # noqa: PLC0415  (few sites have any)

    problems = [f"{site.file}: drill.checks {fault}" for fault in faults_of_words(site.drill.checks)]
    if problems:
        raise ConfigurationError(problems, suggestion="write each as one SELECT that gives a true value")


def _next(file: Path) -> Site:
    """The site as it would be, once nothing speaks against it.

    Raises:
        ConfigurationError: It has faults.
        RefusedError: Backups would be left behind.
        PortfolioOpsError: What is in the former folder of backups may not be seen.
    """
    try:
        site = parse(file, sys.stdin.buffer.read())
    except ConfigurationError as error:
        raise ConfigurationError(
            error.problems, suggestion="correct it where it comes from; the file that stands there was not touched"
        ) from error
    with contextlib.suppress(NotFoundError, ConfigurationError):  # there is none, or it says nothing of a folder
        former = load(file)
        if former.backups != site.backups:
            become_owner(former.database, former.root, former.backups)
            require_nothing(former.backups, site.backups, site.name)
    return site


def _written(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, tuple | list) else str(value)
