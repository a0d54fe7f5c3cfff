"""`portfolio-ops restore social`: the social tables back."""

import os
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import click

from portfolio_ops.cli import present
from portfolio_ops.cli.backup import wait_option
from portfolio_ops.cli.context import Context
from portfolio_ops.errors import ExitCode, RefusedError
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import restore_social as job
from portfolio_ops.sqlite.replace import Change
from portfolio_ops.store.catalogue import LATEST


@click.command("social", short_help="The tables of [social], into the live database or another.")
@click.argument("reference", metavar="[ID|FILE|latest]", default=LATEST)
@click.option(
    "--into", "target", metavar="PATH", type=click.Path(path_type=Path), help="Another database, or a new one."
)
@click.option("--merge", is_flag=True, help="Bring back only rows that are missing; keep all that are there.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@wait_option
@click.pass_obj
def social(
    context: Context, reference: str, target: Path | None, *, merge: bool, dry_run: bool, yes: bool, wait: timedelta
) -> ExitCode:
    """Restore the social tables: an export, or another tool's plain SQL of these tables.

    The site may run: it is one transaction. Rows that would be lost are counted and shown first. What the tables held
    before is exported first. Foreign keys are checked: if a row came to refer to nothing, nothing is changed.

    \b
    Examples:
      portfolio-ops restore social --merge
      portfolio-ops restore social old-dump.sql --into /tmp/look.sqlite
    """  # noqa: D301  (click's own mark, the character, not two)
    site = context.site()
    source = job.choose(site, reference)
    log = Log(site=site.name, job="restore")
    with job.staged(site, source, log) as staged:
        database = site.database if target is None else Path(os.path.abspath(target))  # noqa: PTH100
        if target is not None and not os.path.lexists(database):
            if not dry_run:
                job.restore_into_new(staged, database)
            return _finished(context, database, [], "", merge=merge, done=not dry_run)
        planned = job.compared(database, staged)
        if not context.json:
            print(f"from {source.path.name} into {database}" + (", keeping what is there" if merge else ""))
            print(_table(planned, merge=merge))
        if dry_run or not _agreed(context, yes=yes):
            return _finished(context, database, planned, "", merge=merge, done=False)
        if target is not None:
            return _finished(
                context, database, job.restore_rows(database, staged, merge=merge), "", merge=merge, done=True
            )
        done, undo = job.restore_live(site, staged, log, merge=merge, wait=wait)
    return _finished(context, database, done, undo, merge=merge, done=True)


def _agreed(context: Context, *, yes: bool) -> bool:
    if yes:
        return True
    if context.json or not sys.stdin.isatty():
        raise RefusedError("this changes live data, and nobody can be asked", suggestion="--yes, or --dry-run to look")
    return click.confirm("Go on?", err=True)


def _table(planned: list[Change], *, merge: bool) -> str:
    rows = [
        [
            change.table + (" (new)" if change.made else ""),
            f"{change.source:,}",
            f"{change.live:,}",
            f"{change.back:,}",
            f"{change.changed:,}",
            f"{change.lost:,}",
            ", ".join(change.unfilled) and f"without {', '.join(change.unfilled)}",
        ]
        for change in planned
    ]
    fate = ["DIFFER, KEPT", "ONLY LIVE, KEPT"] if merge else ["REPLACED", "WOULD BE LOST"]
    return present.table(["TABLE", "EXPORTED", "LIVE NOW", "COME BACK", *fate, ""], rows)


def _finished(
    context: Context, database: Path, changes: list[Change], undo: str, *, merge: bool, done: bool
) -> ExitCode:
    data = {"database": str(database), "tables": [asdict(change) for change in changes], "undo": undo, "done": done}

    def human() -> None:
        if not done:
            print("nothing was changed")
        elif not changes:
            print(f"made {database}")
        else:
            came = sum(change.back if merge else change.source for change in changes)
            print(f"{came:,} rows of {len(changes)} tables were {'brought back' if merge else 'put in place'}")
        if undo:
            print(f"to return to the rows before: portfolio-ops restore social {undo}")

    return context.finish("restore social", data, human)
