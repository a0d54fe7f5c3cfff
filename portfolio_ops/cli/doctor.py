"""`portfolio-ops doctor`: every precondition, each with its cure."""

import os
from dataclasses import asdict
from pathlib import Path

import click

from portfolio_ops.cli import present
from portfolio_ops.cli.context import Context
from portfolio_ops.config import Site
from portfolio_ops.doctor import data, engines, machine, neighbours, sandbox
from portfolio_ops.doctor.finding import Finding, Level, ok
from portfolio_ops.errors import ExitCode
from portfolio_ops.host.journal import notify, one_line


@click.command("doctor")
@click.option("--sandboxed", is_flag=True, help="Only what a unit's sandbox allows, as portfolio-doctor@ asks.")
@click.pass_obj
def command(context: Context, *, sandboxed: bool) -> ExitCode:
    """Look at every precondition, and name the cure for each that does not hold. Changes nothing.

    Run it as root to see the processes of all users, and to try the units' sandbox. Exit code 10 if there is a fault;
    advice is no fault.
    """
    site = context.site_as_root() if os.geteuid() == 0 and not sandboxed else context.site()
    found = list(sandbox.look(site)) if sandboxed else _all(site)
    faults = [each for each in found if each.level is Level.FAULT]
    if sandboxed:
        notify(f"STATUS={one_line('; '.join(each.text for each in faults) or 'all folders are open')}")

    def human() -> None:
        print(present.table(["", "WHAT", "FOUND"], [[each.level.value, each.subject, each.text] for each in found]))
        for subject, cure in dict.fromkeys((each.subject, each.cure) for each in found if each.cure):
            print(f"{subject}: {present.printable(cure)}")

    rows = [{**asdict(each), "level": each.level.value} for each in found]
    return context.finish("doctor", {"findings": rows}, human, ExitCode.FINDINGS if faults else ExitCode.OK)


def _all(site: Site) -> list[Finding]:
    found = [ok("configuration", f"{site.file} is in order"), *neighbours.look(site), *data.look(site)]
    # Without the site's data or its backups, what else there is cannot be looked at.
    if not Path(site.root).is_dir() or any(each.subject == "backups" and each.level is Level.FAULT for each in found):
        return found
    told = [each.text for each in found if each.level is Level.FAULT]
    return [*found, *engines.look(site), *machine.look(site, told)]
