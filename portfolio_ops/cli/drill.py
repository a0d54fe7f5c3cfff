"""`portfolio-ops drill`: rehearse a restore."""

from dataclasses import asdict
from datetime import timedelta

import click

from portfolio_ops.cli import present
from portfolio_ops.cli.backup import wait_option
from portfolio_ops.cli.context import Context
from portfolio_ops.errors import ExitCode, VerificationError
from portfolio_ops.jobs.drill import drill
from portfolio_ops.jobs.rehearsal import FAILED, INCONCLUSIVE

_CURE = "find the cause before a restore is needed; make a new backup, and rehearse again"


@click.command("drill")
@wait_option
@click.pass_obj
def command(context: Context, wait: timedelta) -> ExitCode:
    """Rehearse a restore: the newest backup, an older one and a second chosen at random, and the newest social export.

    They are restored to a scratch place as an operator would restore them, checked in full, asked the site's own
    [drill] checks, and held against the live database, which is only read. Exit code 0: passed. 9: failed; a backup
    would not have brought the site back. 10: inconclusive; it could not be told, and why.
    """
    report = drill(context.site(), wait=wait)

    def human() -> None:
        print(
            f"the drill {'was ' if report.verdict == INCONCLUSIVE else ''}{report.verdict}, in {report.seconds:.1f} s"
        )
        for reason in report.reasons:
            print(f"because: {present.printable(reason)}")
        for line in report.evidence:
            print(f"  {present.printable(line)}")

    code = ExitCode.FINDINGS if report.verdict == INCONCLUSIVE else ExitCode.OK
    failures = [VerificationError(reason, suggestion=_CURE) for reason in report.reasons]
    return context.finish("drill", asdict(report), human, code, failures if report.verdict == FAILED else ())
