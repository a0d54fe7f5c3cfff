"""`portfolio-ops alert`: what systemd calls when a unit has failed for good (OnFailure=), began, or succeeded."""

import os
from pathlib import Path

import click

from portfolio_ops import calling, config
from portfolio_ops.calling import tool
from portfolio_ops.cli.context import Context
from portfolio_ops.config import Alert
from portfolio_ops.errors import ExitCode, PortfolioOpsError, UnreachableError
from portfolio_ops.host import messages
from portfolio_ops.host.journal import Log
from portfolio_ops.host.timers import status_text
from portfolio_ops.jobs.alert import FAILED, STARTED, SUCCEEDED, tell

_NAMESPACE = "226"  # of systemd itself (systemd.exec(5)): it could not lay out what the unit may see


@click.command("alert")
@click.argument("unit")
@click.option("--start", "event", flag_value=STARTED, help="It has begun.")
@click.option("--success", "event", flag_value=SUCCEEDED, help="It went well, if systemd says so too.")
@click.pass_obj
def command(context: Context, unit: str, *, event: str | None) -> ExitCode:
    """Tell of a run of UNIT. systemd passes what happened in MONITOR_* (systemd.exec(5)).

    A failure goes into the journal, and to the receivers of [alert]. Exit code 8: one of them could not be reached.
    """
    site = unit.partition("@")[2].rsplit(".", 1)[0]
    calling.about(["--site", site])
    log = Log(site=site, job=unit.partition("@")[0].removeprefix("portfolio-"))
    result = os.environ.get("MONITOR_SERVICE_RESULT", "unknown")
    event = event or FAILED
    if event == SUCCEEDED and result != "success":
        return context.finish("alert", {"unit": unit, "event": None, "unreached": []}, lambda: None)
    said = "" if event == STARTED else status_text(unit)
    if event == FAILED:
        status = os.environ.get("MONITOR_EXIT_STATUS", "unknown")
        if status == _NAMESPACE:
            said = f"a folder that the unit needs is missing: {tool()} doctor"
        said = said or f"{result}, exit status {status}"
        log.event(
            messages.ALERT,
            f"{unit} failed for good: {result}, exit status {status}. See: journalctl -u {unit}",
            unit=unit,
            result=result,
            exit_status=status,
            invocation=os.environ.get("MONITOR_INVOCATION_ID", ""),
        )
    alert, state = _alert_of(site), os.environ.get("STATE_DIRECTORY")
    unreached = tell(alert, Path(state) if state else None, event, unit, said) if alert is not None else []
    for why in unreached:
        log.event(messages.RECEIVER_UNREACHED, f"Nobody could be told by {why}", unit=unit)
    failures = [
        UnreachableError(f"nobody could be told by {why}", suggestion="see [alert], and whether the receiver answers")
        for why in unreached
    ]
    data = {"unit": unit, "event": event, "unreached": unreached}
    return context.finish("alert", data, lambda: None, failures=failures)


def _alert_of(site: str) -> Alert | None:
    """Who wants to know; None where the site's file does not tell, and then nothing must be remembered as told.

    A fault in that file must not keep the journal from hearing of a failure.
    """
    try:
        return config.load(config.find(None, site)).alert
    except PortfolioOpsError:
        return None
