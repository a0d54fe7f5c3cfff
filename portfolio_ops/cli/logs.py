"""`portfolio-ops logs`: rotate the site's logs, or read one as if it had never been rotated."""

import os
import re
import sys
from datetime import datetime, timedelta

import click

from portfolio_ops.cli import present
from portfolio_ops.cli.backup import wait_option
from portfolio_ops.cli.context import Context, output
from portfolio_ops.cli.when import When
from portfolio_ops.config import Site
from portfolio_ops.errors import ExitCode, UsageError
from portfolio_ops.host.identity import act_as_owner, owner_of
from portfolio_ops.jobs.rotate import rotate_logs
from portfolio_ops.logs.read import LogReader, Period, choose, matching_lines
from portfolio_ops.moment import describe_moment, utc


def _pattern(ctx: click.Context, param: click.Parameter, value: str | None) -> re.Pattern[bytes] | None:  # noqa: ARG001
    """A regular expression on bytes."""
    try:
        return None if value is None else re.compile(value.encode("utf-8", "surrogateescape"))
    except re.error as error:
        raise click.BadParameter(f"{value!r} is no regular expression: {error}") from error


@click.group("logs")
def command() -> None:
    """Rotate the site's logs, or read archives and live file as one.

    \b
    Examples:
      portfolio-ops logs rotate
      portfolio-ops logs show --since 2d --grep ' 50[0-9] '
    """  # noqa: D301  (click's own mark, the character, not two)


@command.command("rotate", short_help="Archive whole lines of every log, losing none.")
@wait_option
@click.pass_obj
def rotate(context: Context, wait: timedelta) -> ExitCode:
    """Move whole lines of every log into logs-archive/, losing none; then prune the archives."""
    site = _site_seen_by_root(context)
    outcome = rotate_logs(site, wait=wait)
    missing = [str(log) for log in site.logs if not os.path.lexists(log)]
    data = {
        "artifacts": [
            {
                **present.artifact_data(artifact),
                "log": artifact.metadata.details["log"],
                "lines": artifact.metadata.details["lines"],
            }
            for artifact in outcome.made
        ],
        "pruned": [present.artifact_data(artifact) for artifact in outcome.pruned],
        "missing": missing,
        "seconds": round(outcome.seconds, 3),
    }

    def human() -> None:
        if not outcome.made and not missing:
            print("nothing to rotate: no log has a new line")
        for log in missing:
            cure = f"see why the site does not write it, or correct [logs] files in {site.file}"
            print(f"there is no log {present.printable(log)}: {cure}")
        for artifact in outcome.made:
            details, content = artifact.metadata.details, artifact.metadata.content.bytes
            print(
                f"{artifact.path}  ({details['lines']:,} lines of {present.printable(details['log'])}, "
                f"{present.size(artifact.bytes)} of {present.size(content)}, id {artifact.id})"
            )
        for artifact in outcome.pruned:
            print(f"pruned {artifact.path.name}")

    return context.finish("logs rotate", data, human)


def _site_seen_by_root(context: Context) -> Site:
    """The site, this process acting as the owner of its data; root stays able to look at everybody's processes."""
    site = context.configured()
    if os.geteuid() == 0 != owner_of(site.database, site.root, site.backups)[0]:
        act_as_owner(site.database, site.root, site.backups)
        return site
    return context.site()


@command.command("show", short_help="Read archives and live file as one stream.")
@click.option("--since", metavar="TIME", type=When(), help="Leave out archives that ended before.")
@click.option("--until", metavar="TIME", type=When(), help="Leave out what began later.")
@click.option(
    "--grep", "pattern", metavar="PATTERN", callback=_pattern, help="Only lines in which it is found (Python's re)."
)
@click.option("--log", "name", metavar="NAME", help="Which log, where the site has several.")
@click.pass_obj
def show(
    context: Context,
    since: datetime | None,
    until: datetime | None,
    pattern: re.Pattern[bytes] | None,
    name: str | None,
) -> ExitCode:
    """Write a log's archives and its live file to stdout as one stream of bytes.

    --since and --until choose whole pieces by when they were rotated, since lines carry no time that is sure: every
    line written between them is shown, with others of the same pieces. With --json, the archives are listed instead.

    \b
    Times: 2025-10-14, '2025-10-14 14:30' or 'yesterday 04:00' (the host's clock), 2025-10-14T12:30:00Z,
    6h (ago), now.
    """  # noqa: D301  (click's own mark, the character, not two)
    if since is not None and until is not None and since > until:
        raise UsageError(
            f"nothing lies between --since {describe_moment(since)} and --until {describe_moment(until)}: they are "
            "the wrong way round",
            suggestion="exchange them",
        )
    site = context.site()
    log = choose(site, name)
    reader = LogReader(site, log, Period(since, until), lambda text: print(f"warning: {text}", file=sys.stderr))
    if context.json:
        pieces = [
            {
                **present.artifact_data(artifact),
                **{key: artifact.metadata.details[key] for key in ("lines", "stream", "from", "to")},
                "since": utc(datetime.fromisoformat(since)) if (since := artifact.metadata.details["since"]) else None,
            }
            for artifact in reader.pieces()
        ]
        return context.finish("logs show", {"log": log, "archives": pieces}, lambda: None)
    out = sys.stdout.buffer
    for chunk in reader.chunks() if pattern is None else matching_lines(reader.chunks(), pattern):
        with output():
            out.write(chunk)
    return ExitCode.OK
