"""`portfolio-ops config`: the effective settings."""

import click

from portfolio_ops.cli import present
from portfolio_ops.cli.context import Context
from portfolio_ops.errors import ExitCode


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
@click.pass_obj
def check(context: Context) -> ExitCode:
    """Exit 2 with a line for every fault of the file, 0 if there is none."""
    site = context.configured()
    return context.finish(
        "config check",
        {"site": site.name, "file": str(site.file)},
        lambda: print(f"{site.file} is in order"),
    )


def _written(value: object) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, tuple | list) else str(value)
