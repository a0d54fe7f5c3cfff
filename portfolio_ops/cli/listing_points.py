"""`portfolio-ops list points`: which moments can be restored."""

from collections.abc import Sequence
from datetime import timedelta

import click

from portfolio_ops.calling import tool
from portfolio_ops.cli import present
from portfolio_ops.cli.context import Context
from portfolio_ops.config import Site
from portfolio_ops.errors import ExitCode
from portfolio_ops.moment import describe_moment, exact
from portfolio_ops.restore.points import Hole, Window, damages, holes, read, windows_in
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Artifact, Kind
from portfolio_ops.store.lock import PINNED, is_held

POINTS = "points"


def list_points(context: Context, site: Site) -> ExitCode:
    """Show the windows of which every moment can be restored, the holes between them, and the events in them."""
    archived = read(site)
    found, wrong = windows_in(archived), damages(archived)
    missing, follows = holes(found), is_held(site.state, PINNED)
    events = [
        each
        for each in catalogue.scan(site.backups, site.name, [Kind.EVENT]).artifacts
        if any(window.first <= each.taken <= window.last for window in found)
    ]
    data = {
        "windows": [
            {
                "timeline": each.timeline,
                "first": exact(each.first),
                "last": exact(each.last),
                "resolution_seconds": each.resolution,
                "points": each.points,
                "ends": each.ends,
            }
            for each in found
        ],
        "holes": [{"start": exact(each.start), "end": exact(each.end), "reason": each.reason} for each in missing],
        "events": [present.artifact_data(each) for each in events],
        "archiver_runs": follows,
        "problems": [{"file": str(path), "reason": reason} for path, reason in wrong],
    }

    def human() -> None:
        _show(found, missing, events, follows=follows)
        for _, reason in wrong:
            click.echo(f"damaged: {present.printable(reason)}", err=True)

    return context.finish("list", data, human, ExitCode.FINDINGS if wrong else ExitCode.OK)


def _show(found: Sequence[Window], missing: Sequence[Hole], events: Sequence[Artifact], *, follows: bool) -> None:
    if not found:
        print(f"no moment can be restored yet, but for whole backups: {tool()} list")
    for window in found:
        print(f"from {describe_moment(window.first)}")
        print(f"  to {describe_moment(window.last)}")
        points = f"{window.points:,} point{'' if window.points == 1 else 's'}"
        within = present.span(timedelta(seconds=window.resolution))
        print(f"     {points}, any change in one within {within}; timeline {window.timeline}")
        if window.ends:
            print(f"     ends there: {present.printable(window.ends)}")
    if found and not follows:
        print("no archiver runs now")
    elif found and max(found, key=lambda window: (window.timeline, window.last)).ends:
        print(f"the archiver runs, but no later moment can be restored yet: {tool()} archive verify")
    elif found:
        print("the archiver runs: at any later moment it is as at the last point")
    for hole in missing:
        print(f"hole from {describe_moment(hole.start)} to {describe_moment(hole.end)}")
        print(f"     {present.printable(hole.reason)}")
    if events:
        rows = [[each.id, describe_moment(each.taken), str(each.metadata.details.get("name"))] for each in events]
        print(present.table(["EVENT", "TAKEN", "NAME"], rows))
