"""`portfolio-ops backup`: make a backup now."""

import time
from datetime import timedelta

import click

from portfolio_ops.cli import present
from portfolio_ops.cli.context import Context
from portfolio_ops.errors import ExitCode
from portfolio_ops.jobs.daily import backup_daily
from portfolio_ops.jobs.gallery import backup_gallery
from portfolio_ops.jobs.requested import make_requested
from portfolio_ops.jobs.run import Outcome
from portfolio_ops.jobs.social import backup_social
from portfolio_ops.setting import parse_duration


class Wait(click.ParamType[timedelta]):
    """How long to wait for another run: a duration, or 0."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """A duration from the command line; click reports what is none as a usage error."""
        if isinstance(value, timedelta):
            return value
        if value == "0":
            return timedelta()
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


wait_option = click.option(
    "--wait",
    type=Wait(),
    default="10m",
    show_default=True,
    help="How long to wait for another run of the same job; 0 gives up at once.",
)


@click.group("backup")
def command() -> None:
    """Make a verified backup now.

    \b
    Examples:
      portfolio-ops backup daily
      portfolio-ops --site shop backup gallery "Winter light"
    """  # noqa: D301  (click's own mark, the character, not two)


@command.command("daily", short_help="The whole database.")
@wait_option
@click.pass_obj
def daily(context: Context, wait: timedelta) -> ExitCode:
    """The whole database, verified, into daily/; then prune the dailies."""
    return finish(context, "backup daily", backup_daily(context.site(), wait=wait))


@command.command("social", short_help="The tables of [social], as SQL.")
@wait_option
@click.pass_obj
def social(context: Context, wait: timedelta) -> ExitCode:
    """The tables of [social] as SQL, verified, into social/; then prune the exports."""
    return finish(context, "backup social", backup_social(context.site(), wait=wait))


@command.command("gallery", short_help="The whole database, because a gallery was added.")
@click.argument("name")
@wait_option
@click.pass_obj
def gallery(context: Context, name: str, wait: timedelta) -> ExitCode:
    """The whole database because the gallery NAME was added, into event-triggered/."""
    return finish(context, "backup gallery", backup_gallery(context.site(), name, wait=wait))


@command.command("requested", short_help="What was asked for in run/triggers, or through the API.")
@wait_option
@click.pass_obj
def requested(context: Context, wait: timedelta) -> ExitCode:
    """What was asked for: by a file in run/triggers below the site's root, or through the API. The path unit starts it.

    Such a file is empty and named as the gallery, or it holds JSON: {"galleryName": "Winter light"}. Write it under a
    name that begins with a dot, then rename it. What is no request goes to run/failed, with the reason.
    """
    began = time.monotonic()
    made = make_requested(context.site(), wait=wait)
    return finish(context, "backup requested", Outcome(tuple(made), (), time.monotonic() - began))


def finish(context: Context, command_name: str, outcome: Outcome) -> ExitCode:
    """Show what a run made and let go."""
    data = {
        "artifacts": [present.artifact_data(artifact) for artifact in outcome.made],
        "pruned": [present.artifact_data(artifact) for artifact in outcome.pruned],
        "seconds": round(outcome.seconds, 3),
    }

    def human() -> None:
        for artifact in outcome.made:
            content = artifact.metadata.content.bytes
            print(
                f"{artifact.path}  ({present.size(artifact.bytes)} of {present.size(content)}, verified, "
                f"id {artifact.id}, {outcome.seconds:.1f} s)"
            )
        for artifact in outcome.pruned:
            print(f"pruned {artifact.path.name}")

    return context.finish(command_name, data, human)
