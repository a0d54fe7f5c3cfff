"""`portfolio-ops verify`: read artifacts back."""

import math
import random
import re
from collections.abc import Sequence
from datetime import timedelta

import click

from portfolio_ops.cli import present
from portfolio_ops.cli.backup import wait_option
from portfolio_ops.cli.context import Context
from portfolio_ops.errors import ExitCode, PortfolioOpsError, UsageError, VerificationError
from portfolio_ops.jobs.verify import Found, Verdict, newest_of_each_kind, put_away_damaged, verify
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Artifact
from portfolio_ops.store.catalogue import Catalogue
from portfolio_ops.store.others import told


def _share(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:  # noqa: ARG001
    """A share of all: `10%`."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)%", value)
    if found is None or not 0 < float(found[1]) <= 100:  # noqa: PLR2004  (per cent)
        raise click.BadParameter(f"{value!r} is no share; write for example 10%")
    return float(found[1]) / 100


@click.command("verify")
@click.argument("references", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every artifact.")
@click.option("--sample", "share", metavar="10%", callback=_share, help="A random share of all.")
@wait_option
@click.pass_obj
def command(
    context: Context, references: tuple[str, ...], *, everything: bool, share: float | None, wait: timedelta
) -> ExitCode:
    """Read artifacts back: hashes, content, structure, foreign keys, rows. Without an ID, the newest of each kind.

    What is found is remembered beside the artifacts and shown by `list`. A bad one is moved to quarantine/ and counts
    for nothing; the exit code is then 9. It is 1 if one could not be read, which says nothing of it.

    \b
    Examples:
      portfolio-ops verify
      portfolio-ops verify --sample 10%
    """  # noqa: D301
    if sum((bool(references), everything, share is not None)) > 1:
        raise UsageError("give IDs, or --all, or --sample", suggestion="one of them")
    site = context.site()
    found = catalogue.scan(site.backups, site.name)
    problems = list(put_away_damaged(site, found.problems, wait=wait)) if everything else []
    verdicts = verify(site, _chosen(found, references, everything=everything, share=share), wait=wait)
    data = {
        "verdicts": [
            {
                **present.artifact_data(verdict.artifact),
                "found": verdict.found.value,
                "why": verdict.why,
                "seconds": round(verdict.seconds, 3),
                "moved_to": None if verdict.moved_to is None else str(verdict.moved_to),
            }
            for verdict in verdicts
        ],
        "problems": [{"file": str(problem.path), "reason": problem.reason} for problem in problems],
    }

    def human() -> None:
        rows = [
            [
                "BAD" if verdict.found is Found.BAD else verdict.found.value,
                verdict.artifact.id,
                verdict.artifact.path.name,
                f"{verdict.seconds:.1f} s",
                verdict.why + (f"; moved to {verdict.moved_to}" if verdict.moved_to else ""),
            ]
            for verdict in verdicts
        ]
        print(present.table(["", "ID", "FILE", "TOOK", "WHY"], rows) if rows else "there is nothing to verify yet")
        for words in told(site.backups, problems):
            click.echo(present.printable(words), err=True)

    strange = [VerificationError(words, suggestion="look what it is") for words in told(site.backups, problems)]
    failures = [*_failures(verdicts, Found.BAD), *strange, *_failures(verdicts, Found.UNKNOWN)]
    return context.finish("verify", data, human, failures=failures)


def _failures(verdicts: Sequence[Verdict], found: Found) -> list[PortfolioOpsError]:
    """What is wrong with those of which this was found."""
    chosen = [(verdict.artifact.path.name, verdict.why) for verdict in verdicts if verdict.found is found]
    if found is Found.BAD:
        cure = "make a new backup; find the cause: the kernel log (journalctl -k) tells of faults of the disk"
        return [VerificationError(f"{name} is bad: {why}", suggestion=cure) for name, why in chosen]
    cure = "that says nothing of it: mend the cause, and verify it again"
    return [PortfolioOpsError(f"{name} could not be read: {why}", suggestion=cure) for name, why in chosen]


def _chosen(found: Catalogue, references: tuple[str, ...], *, everything: bool, share: float | None) -> list[Artifact]:
    if references:
        return list({one.id: one for one in (catalogue.find(found, each) for each in references)}.values())
    if everything:
        return list(found.artifacts)
    if share is not None:
        return random.SystemRandom().sample(found.artifacts, math.ceil(share * len(found.artifacts)))
    return newest_of_each_kind(found)
