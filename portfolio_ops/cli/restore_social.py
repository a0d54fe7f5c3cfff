"""`portfolio-ops restore social`: the social tables back."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import click

from portfolio_ops.calling import tool
from portfolio_ops.cli import present
from portfolio_ops.cli.backup import wait_option
from portfolio_ops.cli.context import Context, output
from portfolio_ops.config import Site
from portfolio_ops.errors import ExitCode, NotFoundError, UsageError
from portfolio_ops.host.files import open_regular
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import restore_social as job
from portfolio_ops.jobs.restore_social import Staged
from portfolio_ops.restore.plan import require_at_home
from portfolio_ops.sqlite.replace import Change
from portfolio_ops.store.catalogue import LATEST


@click.command("social", short_help="The tables of [social], into the live database or another.")
@click.argument("reference", metavar="[ID|FILE|latest]", default=LATEST)
@click.option(
    "--into", "target", metavar="PATH", type=click.Path(path_type=Path), help="Another database, or a new one."
)
@click.option("--merge", is_flag=True, help="Bring back only rows that are missing; keep all that are there.")
@click.option("--force", metavar="WORDS", default="", help="Why it belongs here although it looks foreign.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@wait_option
@click.pass_obj
def social(
    context: Context,
    reference: str,
    target: Path | None,
    *,
    merge: bool,
    force: str,
    dry_run: bool,
    yes: bool,
    wait: timedelta,
) -> ExitCode:
    """Restore the social tables: an export, or another tool's plain SQL of these tables.

    The site may run: it is one transaction, for which its writers wait. Rows that would be lost are counted and shown
    first. What the tables held before is exported first. Foreign keys are checked: if a row came to refer to nothing,
    nothing is changed.

    \b
    Examples:
      portfolio-ops restore social --merge
      portfolio-ops restore social old-dump.sql --into /tmp/look.sqlite
    """  # noqa: D301  (click's own mark, the character, not two)
    site = context.site()
    source = job.choose(site, reference)
    require_at_home(source.path.name, source.foreign(site), force)
    into = None if target is None else _beside(site, target)
    log = Log(site=site.name, job="restore")
    with job.staged(site, source, log, into=into, wait=wait) as staged:
        if into is not None and not into.exists():
            if not dry_run:
                job.restore_into_new(staged, into)
            return _finished(context, into, _Result((), done=not dry_run), staged)
        database = into or site.database
        planned = job.compared(database, staged)
        if not context.json:
            with output():
                print(f"from {source.path.name} into {database}" + (", keeping what is there" if merge else ""))
                print(_table(planned, merge=merge))
                print("".join(f"note: {note}\n" for note in _plan_notes(planned)), end="", flush=True)
        if dry_run:
            return _finished(context, database, _Result(tuple(planned)), staged)
        if not yes:
            context.require_consent("this changes live data, and nobody can be asked")
        if into is not None:
            moved, undo = job.restore_rows(into, staged, merge=merge), ""
        else:
            moved, undo = job.restore_live(site, staged, log, merge=merge, wait=wait)
    return _finished(
        context, database, _Result(moved.changes, moved.unchecked, moved.searches, undo, done=True), staged
    )


def _beside(site: Site, target: Path) -> Path:
    """Where `--into` goes: a database that is not the live one, or a new name.

    Raises:
        UsageError: It is the live one.
        RefusedError: It is no regular file.
        NotFoundError: Its folder does not exist.
    """
    path = Path(os.path.abspath(target))  # noqa: PTH100  (resolve() would follow a link that stands there)
    if not os.path.lexists(path):
        if not path.parent.is_dir():
            raise NotFoundError(f"there is no folder {path.parent}", suggestion="make it first")
        return path
    os.close(open_regular(path))
    if site.database.exists() and path.samefile(site.database):
        raise UsageError(f"{path} is the live database", suggestion="leave --into out: it is exported first then")
    return path


@dataclass(frozen=True)
class _Result:
    """What is told at the end. Without `changes`, a new database was made."""

    changes: tuple[Change, ...]
    unchecked: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    undo: str = ""
    done: bool = False


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


def _plan_notes(planned: Sequence[Change]) -> list[str]:
    return [
        f"triggers of {change.table} do not fire, what they keep elsewhere stays as it is: {', '.join(change.triggers)}"
        for change in planned
        if change.triggers
    ]


def _finished(context: Context, database: Path, result: _Result, staged: Staged) -> ExitCode:
    data = {
        "database": str(database),
        "tables": [asdict(change) for change in result.changes],
        "unchecked": list(result.unchecked),
        "searches": list(result.searches),
        "left_out": list(staged.left_out),
        "undo": result.undo,
        "done": result.done,
    }
    return context.finish("restore social", data, lambda: print("\n".join(_lines(database, result, staged))))


def _lines(database: Path, result: _Result, staged: Staged) -> list[str]:
    if not result.done:
        return ["nothing was changed"]
    if not result.changes:
        lines = [f"made {database}"]
    else:
        put = sum(change.put for change in result.changes)
        lines = [f"put in place: {present.counted(put, 'row')} of {present.counted(len(result.changes), 'table')}"]
    lines += [
        f"note: {change.clashes:,} rows of {change.table} were left out: another row has their unique value"
        for change in result.changes
        if change.clashes
    ]
    lines += [f"note: the foreign keys of {table} name no key and cannot be checked" for table in result.unchecked]
    lines += [f"note: the full-text index {name} was made anew" for name in result.searches]
    lines += [f"note: the trigger {name} of the dump was left out" for name in staged.left_out]
    if result.undo:
        lines.append(f"to return to the rows before: {tool()} restore social {result.undo}")
    return [present.printable(line) for line in lines]
