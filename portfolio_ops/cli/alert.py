"""`portfolio-ops alert`: what systemd calls when a unit has failed for good (OnFailure=)."""

import os

import click

from portfolio_ops.cli.context import Context
from portfolio_ops.errors import ExitCode
from portfolio_ops.host import messages
from portfolio_ops.host.journal import Log


@click.command("alert")
@click.argument("unit")
@click.pass_obj
def command(context: Context, unit: str) -> ExitCode:
    """Record that UNIT failed for good. systemd passes the facts in MONITOR_* (systemd.exec(5))."""
    result = os.environ.get("MONITOR_SERVICE_RESULT", "unknown")
    status = os.environ.get("MONITOR_EXIT_STATUS", "unknown")
    site = unit.partition("@")[2].rsplit(".", 1)[0]
    Log(site=site, job=unit.partition("@")[0].removeprefix("portfolio-")).event(
        messages.ALERT,
        f"{unit} failed for good: {result}, exit status {status}. See: journalctl -u {unit}",
        unit=unit,
        result=result,
        exit_status=status,
        invocation=os.environ.get("MONITOR_INVOCATION_ID", ""),
    )
    return context.finish("alert", {"unit": unit, "result": result, "exit_status": status}, lambda: None)
