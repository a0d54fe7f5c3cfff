"""`portfolio-ops list`: what there is."""

from datetime import UTC, datetime

import click

from portfolio_ops.cli import present
from portfolio_ops.cli.context import Context
from portfolio_ops.errors import ExitCode
from portfolio_ops.store import catalogue, retention
from portfolio_ops.store.artifact import Kind


@click.command("list")
@click.argument("kind", required=False, type=click.Choice([kind.value for kind in Kind]))
@click.pass_obj
def command(context: Context, kind: str | None) -> ExitCode:
    """List artifacts, oldest first; of one KIND, or all.

    What lies in the folders but is no artifact is named on stderr (and in the JSON), and makes the exit code 10.
    """
    site, now = context.site(), datetime.now(UTC)
    found = catalogue.scan(site.backups, site.name)
    verdicts = retention.decide(found.artifacts, site.retention, now)
    shown = [verdict for verdict in verdicts if kind in {None, verdict.artifact.metadata.kind.value}]
    folders = {one.folder for one in Kind if kind in {None, one.value}}
    problems = [problem for problem in found.problems if folders & {problem.path.name, problem.path.parent.name}]
    data = {
        "artifacts": [
            {
                **present.artifact_data(verdict.artifact),
                "age_seconds": int((now - verdict.artifact.taken).total_seconds()),
                "verified": verdict.artifact.metadata.details.get("verified"),
                "keep": verdict.keep,
                "reason": verdict.reason,
            }
            for verdict in shown
        ],
        "problems": [{"file": str(problem.path), "reason": problem.reason} for problem in problems],
    }

    def human() -> None:
        rows = [
            [
                verdict.artifact.id,
                present.local(verdict.artifact.taken),
                present.ago(verdict.artifact.taken, now),
                verdict.artifact.metadata.kind.value,
                present.size(verdict.artifact.bytes),
                "yes" if "verified" in verdict.artifact.metadata.details else "no",
                verdict.artifact.path.name,
                verdict.reason if verdict.keep else f"goes next: {verdict.reason}",
            ]
            for verdict in shown
        ]
        header = ["ID", "TAKEN", "AGE", "KIND", "SIZE", "VERIFIED", "FILE", "KEPT BECAUSE"]
        print(present.table(header, rows) if rows else "nothing yet; make a backup: portfolio-ops backup daily")
        for problem in problems:
            click.echo(f"not an artifact: {present.printable(problem.reason)}", err=True)

    return context.finish("list", data, human, ExitCode.FINDINGS if problems else ExitCode.OK)
