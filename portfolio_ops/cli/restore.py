"""`portfolio-ops restore`: bring a database or its social tables back, or undo that."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from portfolio_ops.calling import tool
from portfolio_ops.cli import present
from portfolio_ops.cli.backup import wait_option
from portfolio_ops.cli.context import Context, output
from portfolio_ops.cli.restore_moment import chosen
from portfolio_ops.cli.restore_moment import data as moment_data
from portfolio_ops.cli.restore_moment import lines as moment_lines
from portfolio_ops.cli.restore_social import social
from portfolio_ops.cli.when import When
from portfolio_ops.config import Site
from portfolio_ops.errors import ExitCode, NotFoundError, RefusedError, UsageError
from portfolio_ops.host.files import require_space
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import restore
from portfolio_ops.jobs.exchange import Restored
from portfolio_ops.moment import exact, local
from portfolio_ops.restore.plan import (
    Plan,
    choose,
    fuller_before,
    plan_beside,
    plan_in_place,
    require_a_way_to_stop,
    require_at_home,
)
from portfolio_ops.restore.points import MomentPlan
from portfolio_ops.restore.replay import bytes_needed, stage
from portfolio_ops.restore.stage import Staged, restore_beside
from portfolio_ops.store.artifact import Artifact

dry_run_option = click.option("--dry-run", is_flag=True, help="Print the plan, and change nothing.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group("restore")
def command() -> None:
    """Bring the database or its social tables back; or undo that.

    \b
    Examples:
      portfolio-ops restore database latest --to /tmp/copy.sqlite
      portfolio-ops restore database 3f09 --in-place
      portfolio-ops restore undo
    """  # noqa: D301  (click's own mark, the character, not two)


@command.command("database", short_help="The whole database, beside the live one or over it.")
@click.argument("reference", metavar="[ID|FILE|latest]", required=False)
@click.option("--at", metavar="TIME", type=When(), help="As it was at this moment; see `list points`.")
@click.option("--before", metavar="EVENT", help="As it was just before an event backup: its ID, or the gallery's name.")
@click.option("--to", "target", metavar="PATH", type=click.Path(path_type=Path), help="Restore to this new file.")
@click.option("--in-place", is_flag=True, help="Replace the live database (as root; stops and starts the backend).")
@click.option("--force", metavar="WORDS", default="", help="Why it belongs here although it looks foreign.")
@dry_run_option
@yes_option
@wait_option
@click.pass_obj
def database(
    context: Context,
    reference: str | None,
    at: datetime | None,
    before: str | None,
    target: Path | None,
    *,
    in_place: bool,
    force: str,
    dry_run: bool,
    yes: bool,
    wait: timedelta,
) -> ExitCode:
    """Restore a whole database: the latest backup, one by its ID, an artifact's FILE wherever it lies, or any moment.

    It is decoded and checked in full first. In place, only then is the backend stopped and the database exchanged; the
    state before is kept, and comes back by itself if anything fails, or by `restore undo`.

    \b
    Examples:
      portfolio-ops restore database --to /tmp/copy.sqlite
      portfolio-ops restore database portfolio-2026-11-23 --in-place --dry-run
      portfolio-ops restore database --at 'yesterday 16:30' --in-place
      portfolio-ops restore database --before "Winter light" --to /tmp/copy.sqlite

    \b
    Times: 2025-10-14, '2025-10-14 14:30' or 'yesterday 04:00' (the host's clock), 2025-10-14T12:30:00Z,
    '2h ago', now.
    """  # noqa: D301
    context.file()  # so that what is suggested names the site
    if (target is not None) == in_place:
        raise UsageError("say where to: --to PATH, or --in-place", suggestion=f"{tool()} restore database --help")
    if target is not None:
        site = context.site()
        artifact, moment, later = chosen(site, reference, at, before)
        plan = _with_more(site, plan_beside(site, artifact, target), moment, later)
        return _beside(context, site, plan, force, dry_run=dry_run)
    site = context.site_as_root()
    finished = _finish_interrupted(context, site, wait, dry_run=dry_run)
    artifact, moment, later = chosen(site, reference, at, before)
    plan = _with_more(site, plan_in_place(site, artifact), moment, later)
    _show(context, _plan_lines(site, plan))  # also where it is refused: the plan says what that is about
    require_at_home(plan.artifact.path.name, plan.foreign, force)
    require_a_way_to_stop(site, plan.target, plan.holders, running=plan.running)
    require_space(plan.target.parent, _bytes_needed(plan))
    if not _agreed(context, dry_run=dry_run, yes=yes):
        return _only_planned(context, "restore database", plan)
    with restore.alone(site, wait=wait) as log:
        done = restore.restore_in_place(site, plan.artifact, log, force=force, moment=moment)
    return _done(context, "restore database", plan, done, finished)


@command.command("undo", short_help="Return to the state before the latest restore in place.")
@dry_run_option
@yes_option
@wait_option
@click.pass_obj
def undo(context: Context, *, dry_run: bool, yes: bool, wait: timedelta) -> ExitCode:
    """Return to the state before the latest restore in place. Undoing twice is as before the first.

    A restore that died in its middle is brought to its end first, and said so; if that has put the former state back,
    there is nothing more to undo.
    """
    site = context.site_as_root()
    words = _finish_interrupted(context, site, wait, dry_run=dry_run)
    if words and restore.was_put_back(site):
        return context.finish("restore undo", {"finished": words, "done": True}, lambda: None)
    former = restore.undoable(site)
    plan = None if former.undo.startswith("/") else plan_in_place(site, _undoing(site, former.undo))
    lines = [f"return to the raw files in {former.undo}"] if plan is None else _plan_lines(site, plan)
    _show(context, lines)
    if not _agreed(context, dry_run=dry_run, yes=yes):
        return _only_planned(context, "restore undo", plan)
    with restore.alone(site, wait=wait) as log:
        if plan is None:
            done = restore.restore_raw(site, former, log)
        else:
            done = restore.restore_in_place(site, plan.artifact, log, force="undo")
    return _done(context, "restore undo", plan, done, words)


def _undoing(site: Site, reference: str) -> Artifact:
    try:
        return choose(site, reference)
    except NotFoundError as error:
        raise NotFoundError(
            f"the state before the latest restore was in {reference}, and that is gone",
            suggestion=f"retention keeps it for [retention] event; another backup can be restored: {tool()} list",
        ) from error


def _finish_interrupted(context: Context, site: Site, wait: timedelta, *, dry_run: bool) -> str:
    """Bring a restore that died to its end; says in words what came of it, empty if there was none.

    Raises:
        RefusedError: There is one, and nothing may be changed.
    """
    if restore.interrupted(site) is None:
        return ""
    with restore.alone(site, wait=wait) as log:
        if dry_run and restore.interrupted(site) is not None:
            raise RefusedError(
                "an earlier restore was interrupted, and is to be brought to its end first",
                suggestion=f"{tool()} restore undo, or the same without --dry-run",
            )
        words = restore.finish_interrupted(site, log)
    if words and not context.json:
        print(words)
    return words


def _with_more(site: Site, plan: Plan, moment: MomentPlan | None, later: datetime | None) -> Plan:
    """A plan that says which moment it is for; or, of a whole backup, what else there is."""
    fuller = fuller_before(site, plan.artifact) if moment is None else None
    return replace(plan, moment=moment, later=later, fuller=fuller)


def _beside(context: Context, site: Site, plan: Plan, force: str, *, dry_run: bool) -> ExitCode:
    require_at_home(plan.artifact.path.name, plan.foreign, force)
    require_space(plan.target.parent, _bytes_needed(plan))
    _show(context, _plan_lines(site, plan))
    if dry_run:
        return _only_planned(context, "restore database", plan)
    log = Log(site=site.name, job="restore")
    staged = restore_beside(plan.target, lambda path: stage(plan.artifact, plan.moment, path, log))
    return _done(context, "restore database", plan, Restored(staged, 0.0, "", ()))


def _bytes_needed(plan: Plan) -> int:
    return plan.artifact.metadata.content.bytes if plan.moment is None else bytes_needed(plan.moment)


def _plan_lines(site: Site, plan: Plan) -> list[str]:
    """The plan for a person."""
    artifact, now = plan.artifact, datetime.now(UTC)
    if plan.moment is None:
        lines = [
            ("restore", f"{artifact.path.name}  (id {artifact.id})"),
            ("taken", f"{local(artifact.taken)}, {present.ago(artifact.taken, now)}"),
            ("holds", _content(artifact)),
        ]
        if plan.fuller is not None:
            fuller = plan.fuller
            held = f"{_content(fuller)}: {fuller.path.name} (id {fuller.id}) of {local(fuller.taken)}"
            lines += [("before", f"the database held much more, {held}")]
        if plan.later is not None:
            lines += [("later", f"moments up to {local(plan.later)} can be restored: --at {exact(plan.later)}")]
    else:
        lines = moment_lines(plan.moment)
    lines += [("over" if plan.in_place else "to", f"{plan.target}  ({present.size(plan.free)} free there)")]
    if plan.in_place:
        idle = "" if plan.holders else ", and nobody has the database open"
        stops = site.backend.described or f"nothing: [backend] does not say how{idle}"
        if plan.running is False:
            stops += ", which does not run and is left so"
        well = f", then waits for {site.backend.health}" if plan.running and site.backend.health else ""
        lines += [
            ("stops", stops + well),
            ("open in", ", ".join(map(str, plan.holders)) or "no process"),
            ("keeps", f"the present state, to which `{tool()} restore undo` returns" if plan.exists else "nothing"),
        ]
    lines += [("foreign", each) for each in plan.foreign]
    return [f"{name:8} {present.printable(text)}" for name, text in lines]


def _content(artifact: Artifact) -> str:
    rows = artifact.metadata.details.get("rows", {})
    held = f"{present.counted(sum(rows.values()), 'row')} of {present.counted(len(rows), 'table')}"
    return f"{present.size(artifact.metadata.content.bytes)}, {held}"


def _show(context: Context, lines: list[str]) -> None:
    """Show the plan to a person."""
    if not context.json:
        with output():
            print("\n".join(lines), flush=True)


def _agreed(context: Context, *, dry_run: bool, yes: bool) -> bool:
    """Whether it is to be done, and not only planned: ask; where nobody can be asked, it must be said already.

    Raises:
        RefusedError: Nobody can be asked, or the answer is no.
    """
    if dry_run or yes:
        return not dry_run
    context.require_consent("this replaces live data, and there is nobody to ask")
    return True


def _only_planned(context: Context, name: str, plan: Plan | None) -> ExitCode:
    data = {"plan": _plan_data(plan), "done": False}
    return context.finish(name, data, lambda: print("nothing was changed (--dry-run)"))


def _done(context: Context, name: str, plan: Plan | None, done: Restored, finished: str = "") -> ExitCode:
    staged = done.staged
    data = {
        "finished": finished,
        "plan": _plan_data(plan),
        "done": True,
        "decode_seconds": None if staged is None else round(staged.decode_seconds, 3),
        "check_seconds": None if staged is None else round(staged.check_seconds, 3),
        "down_seconds": round(done.down_seconds, 3),
        "undo": done.undo,
        "notes": list(done.notes),
    }

    def human() -> None:
        for line in _done_lines(plan, staged, done):
            print(line)

    return context.finish(name, data, human)


def _done_lines(plan: Plan | None, staged: Staged | None, done: Restored) -> list[str]:
    lines = []
    if staged is not None and plan is not None:
        lines.append(
            f"restored {plan.target}: {sum(staged.facts.rows.values()):,} rows, checked in full "
            f"({staged.decode_seconds:.1f} s to decode, {staged.check_seconds:.1f} s to check)"
        )
        if staged.facts.foreign_key_violations:
            lines.append(f"note: {staged.facts.foreign_key_violations:,} rows refer to nothing, as when it was taken")
    if done.down_seconds:
        lines.append(f"the backend was down for {done.down_seconds:.1f} s")
    lines += [f"note: {note}" for note in done.notes]
    if done.undo:
        lines.append(f"to return to the state before: {tool()} restore undo")
    return lines


def _plan_data(plan: Plan | None) -> dict[str, Any] | None:
    if plan is None:
        return None
    return {
        "artifact": present.artifact_data(plan.artifact),
        "moment": moment_data(plan.moment),
        "later": None if plan.later is None else exact(plan.later),
        "fuller": None if plan.fuller is None else present.artifact_data(plan.fuller),
        "target": str(plan.target),
        "in_place": plan.in_place,
        "holders": [{"pid": holder.pid, "name": holder.name} for holder in plan.holders],
        "running": plan.running,
        "foreign": list(plan.foreign),
        "free_bytes": plan.free,
    }


command.add_command(social)
