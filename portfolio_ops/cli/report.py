"""`portfolio-ops report`: how a site is doing and what can be restored, as a page to keep or to show."""

import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from portfolio_ops.calling import tool
from portfolio_ops.cli import listing, status
from portfolio_ops.cli.context import Context
from portfolio_ops.cli.page import Lane, heading, items, page, table, timeline, verdict
from portfolio_ops.errors import ExitCode, UsageError
from portfolio_ops.jobs import health
from portfolio_ops.moment import describe_moment, local
from portfolio_ops.restore import keeping, points
from portfolio_ops.restore.points import Window
from portfolio_ops.sqlite.increment import RAW
from portfolio_ops.store import catalogue, verified
from portfolio_ops.store.artifact import Artifact
from portfolio_ops.store.timeline import HOUR, MINUTE

_LANES = {RAW: "any second", MINUTE: "any minute", HOUR: "any hour"}


@click.command("report")
@click.pass_obj
def command(context: Context) -> ExitCode:
    """Write one HTML page on standard output: jobs, findings, what can be restored, the last drill, every artifact.

    The page needs nothing besides, and holds no setting and no secret. Its exit code does not tell how the site is:
    that of `status` does.

    \b
    Example:
      portfolio-ops report > shop.html
    """  # noqa: D301
    context.file()  # so that what is suggested names the site
    if not context.json and sys.stdout.isatty():
        raise UsageError("the page is for a file, not for a terminal", suggestion=f"{tool()} report > report.html")
    site, now = context.site(), datetime.now(UTC)
    found, scanned = health.assess(site, now), catalogue.scan(site.backups, site.name)
    windows = points.windows(site)
    title = f"{site.name} on {socket.gethostname()}"
    count = len(found.findings)
    words = f"{count} finding{'' if count == 1 else 's'}" if count else "all is well"
    parts = [
        verdict(f"{describe_moment(now.replace(microsecond=0))}: {words}", well=not count),
        *([items(found.findings)] if count else []),
        heading("What can be restored"),
        timeline(_lanes(windows, scanned.artifacts), now),
        *_holes(windows),
        heading("Jobs"),
        table(status.JOB_HEADER, status.job_rows(found, now)),
        items(f"{name}: {text}" for name, text in status.facts(found, status.reach_of(windows), now)),
        *_evidence(found),
        heading("Artifacts"),
        table(
            listing.HEADER,
            listing.artifact_rows(keeping.verdicts(site, scanned.artifacts, now), verified.read(site.state), now),
        ),
    ]
    whole = page(title, parts)
    return context.finish("report", {"page": whole}, lambda: print(whole))


def _lanes(windows: Sequence[Window], artifacts: Sequence[Artifact]) -> list[Lane]:
    lanes = [
        Lane(name, tuple((each.first, each.last) for each in windows if each.resolution == resolution))
        for resolution, name in _LANES.items()
    ]
    backups = tuple((each.taken, each.taken) for each in artifacts if each.metadata.kind.holds_database)
    return [*(lane for lane in lanes if lane.spans), Lane("whole backups", backups, "mark")]


def _holes(windows: Sequence[Window]) -> list[str]:
    """The times of which nothing can be restored, the latest first."""
    found = points.holes(windows)
    rows = [[local(each.start), local(each.end), each.reason] for each in reversed(found)]
    return [table(("HOLE FROM", "TO", "WHY"), rows)] if rows else []


def _evidence(found: health.Health) -> list[str]:
    """What the last drill found."""
    report = found.drill
    if report is None:
        return []
    return [heading(f"The last drill: {report.verdict}"), items([*report.reasons, *report.evidence])]
