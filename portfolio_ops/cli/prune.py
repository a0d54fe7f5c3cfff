"""`portfolio-ops prune`: what goes, and why."""

from datetime import UTC, datetime, timedelta

import click

from portfolio_ops.cli import present
from portfolio_ops.cli.backup import wait_option
from portfolio_ops.cli.context import Context
from portfolio_ops.errors import ExitCode
from portfolio_ops.jobs.expire import expired_increments, prune_increments
from portfolio_ops.jobs.run import JOBS, prune_kind
from portfolio_ops.restore import keeping
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Kind


@click.command("prune")
@click.option("--explain", is_flag=True, help="Name what is kept too, with the reason for each.")
@click.option("--yes", is_flag=True, help="Delete. Without it nothing is changed.")
@wait_option
@click.pass_obj
def command(context: Context, *, explain: bool, yes: bool, wait: timedelta) -> ExitCode:
    """Say what retention would delete, and why; with --yes, delete it.

    The jobs do this by themselves after each success; this is for looking, and for after a change of [retention].
    """
    site = context.site()
    found = catalogue.scan(site.backups, site.name)
    verdicts = keeping.verdicts(site, found.artifacts, datetime.now(UTC))
    # On a full disk there may be no room for the lock of a kind of which there is nothing.
    there = {kind for kind in Kind if (site.backups / kind.folder).is_dir()} if yes else set()
    pruned = [each for job in JOBS if job.kind in there for each in prune_kind(site, job, wait=wait)]
    archived = prune_increments(site, wait=wait) if Kind.WAL in there else []
    increments = archived if yes else expired_increments(site, datetime.now(UTC))
    data = {
        "verdicts": [
            {**present.artifact_data(verdict.artifact), "keep": verdict.keep, "reason": verdict.reason}
            for verdict in verdicts
            if explain or not verdict.keep
        ],
        "pruned": [present.artifact_data(artifact) for artifact in pruned],
        "increments": [str(path) for path in increments],
    }

    def human() -> None:
        rows = [
            ["keep" if verdict.keep else "go", verdict.artifact.id, verdict.artifact.path.name, verdict.reason]
            for verdict in verdicts
            if explain or not verdict.keep
        ]
        if rows:
            print(present.table(["", "ID", "FILE", "REASON"], rows))
        going = sum(1 for verdict in verdicts if not verdict.keep)
        if increments:
            print(f"increments of the archive that {'were deleted' if yes else 'would go'}: {len(increments)}")
        if yes:
            print(f"{len(pruned)} deleted, {present.size(sum(artifact.bytes for artifact in pruned))} freed")
        else:
            print(f"{going} would go; nothing was changed" + ("; --yes deletes" if going else ""))

    return context.finish("prune", data, human)
