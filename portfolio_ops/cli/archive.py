"""`portfolio-ops archive`: keep every moment of the database."""

from datetime import timedelta

import click

from portfolio_ops.cli.backup import finish, wait_option
from portfolio_ops.cli.context import Context
from portfolio_ops.errors import ExitCode
from portfolio_ops.jobs.archive import archive, make_base
from portfolio_ops.jobs.gallery import backup_seen


@click.group("archive")
def command() -> None:
    """Follow the database's WAL, so that any second of it can be restored.

    \b
    Examples:
      portfolio-ops archive once
      portfolio-ops list points
    """  # noqa: D301  (click's own mark, the character, not two)


@command.command("run", short_help="Follow it until stopped (what the service does).")
@wait_option
@click.pass_obj
def run(context: Context, wait: timedelta) -> ExitCode:
    """Follow the database until SIGTERM or Ctrl-C: what is committed is archived within a second.

    Nothing is written into the database, and nothing of it passes unseen. After any trouble (the database was replaced,
    the disk was full) it goes on by itself, on a new timeline with a base of its own.
    """
    archive(context.site(), once=False, wait=wait)
    return context.finish("archive run", {}, lambda: None)


@command.command("once", short_help="Archive what is committed now, and end.")
@wait_option
@click.pass_obj
def once(context: Context, wait: timedelta) -> ExitCode:
    """Archive what is committed now, and end: one restore point.

    It goes on with the newest timeline if the WAL still holds all that came since, and else begins one with its base.
    """
    archive(context.site(), once=True, wait=wait)
    return context.finish("archive once", {}, lambda: None)


@command.command("base", hidden=True)
@wait_option
@click.pass_obj
def base(context: Context, wait: timedelta) -> ExitCode:
    """Make the whole backup that a timeline begins with; the daemon asks for it."""
    return finish(context, "archive base", make_base(context.site(), wait=wait))


@command.command("gallery", hidden=True)
@wait_option
@click.pass_obj
def gallery(context: Context, wait: timedelta) -> ExitCode:
    """Make the backup for the rows that the daemon has seen being added; the daemon asks for it."""
    return finish(context, "archive gallery", backup_seen(context.site(), wait=wait))
