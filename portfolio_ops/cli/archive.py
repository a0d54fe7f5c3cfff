"""`portfolio-ops archive`: keep every moment of the database."""

from datetime import timedelta

import click

from portfolio_ops.calling import tool
from portfolio_ops.cli import present
from portfolio_ops.cli.backup import Wait, finish, wait_option
from portfolio_ops.cli.context import Context
from portfolio_ops.errors import ExitCode, VerificationError
from portfolio_ops.host import messages
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import archive_health
from portfolio_ops.jobs.archive import archive, archive_once, make_base
from portfolio_ops.jobs.gallery import backup_seen
from portfolio_ops.moment import describe_moment, exact
from portfolio_ops.restore.audit import State, audit
from portfolio_ops.store import ended


@click.group("archive")
def command() -> None:
    """Follow the database, so that any second of it can be restored.

    \b
    Examples:
      portfolio-ops archive once
      portfolio-ops archive verify
      portfolio-ops list points
    """  # noqa: D301  (click's own mark, the character, not two)


@command.command("run", short_help="Follow it until stopped (what the service does).")
@wait_option
@click.pass_obj
def run(context: Context, wait: timedelta) -> ExitCode:
    """Follow the database until SIGTERM or Ctrl-C: what is committed is archived within a second.

    Without a WAL, it is archived as often as the database can be read through at 5 % of a core.

    Nothing is written into the database, and nothing of it passes unseen. After any trouble (the database was replaced,
    the disk was full) it goes on by itself, on a new timeline with a base of its own.
    """
    archive(context.site(), once=False, wait=wait)
    return context.finish("archive run", {}, lambda: None)


@command.command("once", short_help="Archive what is committed now, and end.")
@click.option(
    "--wait", type=Wait(), default="0", show_default=True, help="How long to wait for the end of one that runs already."
)
@click.pass_obj
def once(context: Context, wait: timedelta) -> ExitCode:
    """Archive what is committed now, and end: one restore point.

    It goes on with the newest timeline if it can prove that nothing is missing since, and else begins one with its
    base. Beside one that runs, the service for example, it is refused at once: that one archives by itself.
    """
    archive_once(context.site(), wait=wait)
    return context.finish("archive once", {}, lambda: None)


@command.command("verify", short_help="Read the archive back, and tell what is missing.")
@click.pass_obj
def verify(context: Context) -> ExitCode:
    """Read every increment back, and tell of each span whether it is there, still to come, or lost.

    The exit code is 9 if something is lost or damaged. Nothing is ever deleted or moved.
    """
    site = context.site()
    pieces, damaged = audit(site)
    log = Log(site=site.name, job="archive")
    for path, reason in damaged:
        log.event(messages.ARCHIVE_DAMAGED, f"The archive is damaged: {reason}", file=str(path), suggestion=_cure())
    data = {
        "pieces": [
            {
                "timeline": each.timeline,
                "from": exact(each.start),
                "to": None if each.end is None else exact(each.end),
                "state": each.state.value,
                "why": each.why,
            }
            for each in pieces
        ],
        "damaged": [{"file": str(path), "reason": reason} for path, reason in damaged],
    }

    def human() -> None:
        rows = [
            [
                each.timeline,
                describe_moment(each.start),
                "open" if each.end is None else describe_moment(each.end),
                each.state.value,
                each.why,
            ]
            for each in pieces
        ]
        print(present.table(["TIMELINE", "FROM", "TO", "STATE", "WHY"], rows) if rows else "nothing is archived yet")

    bad = [f"the archive is damaged: {reason}" for _, reason in damaged]
    bad += [f"lost from {exact(each.start)} on: {each.why}" for each in pieces if each.state is State.LOST]
    failures = [VerificationError(words, suggestion=_cure()) for words in bad]
    return context.finish("archive verify", data, human, failures=failures)


@command.command("accept", short_help="Say that the database is as it should be.")
@click.pass_obj
def accept(context: Context) -> ExitCode:
    """Say that the database is as it should be, although something else than the site replaced or changed it.

    `status` tells of that until then, or until a restore in place. Nothing else is forgotten.
    """
    site = context.site()
    accepted = archive_health.endings(site)
    ended.accept(site.state)
    said = [f"accepted: {words}" for words in accepted] or ["nothing waits to be accepted"]
    return context.finish(
        "archive accept", {"accepted": accepted}, lambda: print(*map(present.printable, said), sep="\n")
    )


@command.command("base", hidden=True)
@wait_option
@click.pass_obj
def base(context: Context, wait: timedelta) -> ExitCode:
    """Make the whole backup that a timeline begins with; the daemon asks for it."""
    return finish(context, "archive base", make_base(context.site(), wait=wait))


@command.command("gallery", hidden=True)
@wait_option
@click.pass_obj
def gallery(context: Context, wait: timedelta) -> ExitCode:
    """Make the backup for the rows that the daemon has seen being added; the daemon asks for it."""
    return finish(context, "archive gallery", backup_seen(context.site(), wait=wait))


def _cure() -> str:
    """What makes up for what is lost."""
    return f"make a whole backup: {tool()} backup daily; check the kernel log for I/O errors"
