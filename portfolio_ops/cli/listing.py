"""`portfolio-ops list`: what there is."""

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from portfolio_ops.calling import tool
from portfolio_ops.cli import present
from portfolio_ops.cli.context import Context
from portfolio_ops.cli.listing_points import POINTS, list_points
from portfolio_ops.errors import ExitCode
from portfolio_ops.moment import local, utc
from portfolio_ops.restore import keeping
from portfolio_ops.store import catalogue, verified
from portfolio_ops.store.artifact import Artifact, Kind
from portfolio_ops.store.others import told
from portfolio_ops.store.retention import Verdict

HEADER = ("ID", "TAKEN", "AGE", "KIND", "SIZE", "VERIFIED", "FILE", "KEPT BECAUSE")


@click.command("list")
@click.argument("kind", required=False, type=click.Choice([*(kind.value for kind in Kind), POINTS]))
@click.pass_obj
def command(context: Context, kind: str | None) -> ExitCode:
    """List artifacts, oldest first; of one KIND, or all. Or the points to which the database can be restored.

    VERIFIED is when each was last read back and found sound: as it was made, or since, by `verify`.
    What lies in the folders but is no artifact is named on stderr (and in the JSON), and makes the exit code 10.
    """
    return list_points(context, context.site()) if kind == POINTS else _list_artifacts(context, kind)


def _list_artifacts(context: Context, kind: str | None) -> ExitCode:
    site, now = context.site(), datetime.now(UTC)
    found = catalogue.scan(site.backups, site.name)
    memory = verified.read(site.state)
    verdicts = keeping.verdicts(site, found.artifacts, now)
    shown = [verdict for verdict in verdicts if kind in {None, verdict.artifact.metadata.kind.value}]
    folders = {one.folder for one in Kind if kind in {None, one.value}}
    problems = [problem for problem in found.problems if folders & {problem.path.name, problem.path.parent.name}]
    data = {
        "artifacts": [
            {
                **present.artifact_data(verdict.artifact),
                "age_seconds": int((now - verdict.artifact.taken).total_seconds()),
                "verified": verdict.artifact.metadata.details.get("verified"),
                "last_verified": _last_verified(verdict.artifact, memory),
                "keep": verdict.keep,
                "reason": verdict.reason,
            }
            for verdict in shown
        ],
        "problems": [{"file": str(problem.path), "reason": problem.reason} for problem in problems],
    }

    def human() -> None:
        rows = artifact_rows(shown, memory, now)
        print(present.table(HEADER, rows) if rows else f"nothing yet; make a backup: {tool()} backup daily")
        for words in told(site.backups, problems):
            click.echo(present.printable(words), err=True)

    return context.finish("list", data, human, ExitCode.FINDINGS if problems else ExitCode.OK)


def artifact_rows(shown: Sequence[Verdict], memory: dict[str, datetime], now: datetime) -> list[list[str]]:
    """Artifacts, and what retention says of them, below `HEADER`.

    Args:
        memory: From `verified.read`.
    """
    return [
        [
            verdict.artifact.id,
            local(verdict.artifact.taken),
            present.ago(verdict.artifact.taken, now),
            verdict.artifact.metadata.kind.value,
            present.size(verdict.artifact.bytes),
            _verified_ago(verdict.artifact, memory, now),
            verdict.artifact.path.name,
            verdict.reason if verdict.keep else f"goes next: {verdict.reason}",
        ]
        for verdict in shown
    ]


def _last_verified(artifact: Artifact, memory: dict[str, datetime]) -> str | None:
    moment = verified.last(artifact, memory)
    return None if moment is None else utc(moment)


def _verified_ago(artifact: Artifact, memory: dict[str, datetime], now: datetime) -> str:
    moment = verified.last(artifact, memory)
    return "no" if moment is None else present.ago(moment, now)
