"""The command `portfolio-ops`: which commands there are, and how every one of them ends."""

import importlib
import json
import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from portfolio_ops import __version__
from portfolio_ops.calling import tool
from portfolio_ops.cli.context import Context, OutputError, envelope, messages_of, output
from portfolio_ops.errors import ExitCode, PortfolioOpsError, UsageError, foreseen
from portfolio_ops.host.interrupted import interrupted_by
from portfolio_ops.host.journal import one_line, stderr_is_journal

COMMANDS = {
    "backup": "Make a verified backup now: daily, social, gallery.",
    "logs": "Rotate the site's logs, or read archives and live file as one.",
    "list": "List artifacts with age, size and why they are kept.",
    "show": "Show one artifact in full.",
    "status": "Show how every job is doing; the exit code tells.",
    "report": "Write one HTML page: how the site is, and what can be restored.",
    "archive": "Follow the database, so that any second of it can be restored.",
    "restore": "Bring the database or its social tables back; undo that.",
    "verify": "Read artifacts back; a bad one goes into quarantine.",
    "drill": "Rehearse a restore, and compare it with the live database.",
    "doctor": "Look at every precondition, each with its cure.",
    "prune": "Say what retention would delete and why; --yes acts.",
    "serve": "Answer the HTTP API on the sockets that systemd hands over.",
    "config": "Show or check the effective settings.",
    "alert": "Record that a unit failed for good (called by systemd).",
}
"""Each command, in `portfolio_ops.cli.<name>` under the same name, and its line in the help. Loaded when it is used."""

_GROUPS = {"archive", "backup", "logs", "config", "restore"}
_HIDDEN = {"alert"}
_MODULES = {"list": "listing"}


class _Commands(click.Group):
    """Imports a command's module only when it is called, so that `--help` and completion are quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return [name for name in COMMANDS if name not in _HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = _MODULES.get(cmd_name, cmd_name)
        command: click.Command = importlib.import_module(f"portfolio_ops.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 not permitted, 4 refused before changing anything, "
    "6 not found, 7 busy, 8 remote unreachable, 9 verification failed, 10 findings.",
)
@click.option("--config", metavar="FILE", help="The site's configuration file (or set PORTFOLIO_OPS_CONFIG).")
@click.option("--site", metavar="NAME", help="The site, as in /etc/portfolio-ops/NAME.toml.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; the exit code is the same.")
@click.version_option(__version__, message="portfolio-ops %(version)s")
@click.pass_context
def cli(ctx: click.Context, config: str | None, site: str | None, as_json: bool) -> None:
    """Keep a site's SQLite database and logs so that they can be brought back, and prove it.

    With one site configured, neither --config nor --site is needed.
    """
    ctx.obj = Context(config, site, as_json=as_json)


def main() -> NoReturn:
    """Run the command line and exit with the documented code."""
    signal.signal(signal.SIGTERM, _terminated)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1)
        signal.signal(signal.SIGHUP, _terminated)
    arguments = sys.argv[1:]
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Run one command; errors become one message (or one JSON object) and an exit code."""
    try:
        code = _answered(arguments)
        with output():
            print(end="", flush=True)
    except OutputError as error:
        return _unwritten(error)
    return code


def _unwritten(error: OutputError) -> int:
    """End a command whose output could not be written: who reads it (head, less) has enough, or the disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again at exit, and says so
    if isinstance(error.__cause__, BrokenPipeError):
        return 128 + signal.SIGPIPE
    print(f"error: the output could not be written ({error.__cause__}); what was done is done", file=sys.stderr)
    print(f"  try: another place for the output; `{tool()} status` tells how the jobs are", file=sys.stderr)
    return ExitCode.FAILED


def _answered(arguments: list[str]) -> int:
    """Run one command, and tell what it could not do; gives its exit code.

    Raises:
        OutputError: What it has to say cannot be written.
    """
    try:
        result: Any = cli.main(args=arguments, prog_name="portfolio-ops", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort) as error:
        _print_notes(error)
        _print_end(interrupted_by(error) or interrupted_by(error.__cause__) or "interrupted")
        return 128 + signal.SIGINT
    except SystemExit as error:
        _print_notes(error)
        _print_end(interrupted_by(error))
        raise
    except Exception as error:
        if isinstance(error, NoArgsIsHelpError) and "--json" not in arguments:
            print(error.message, file=sys.stderr)  # the help: no result, and a script that forgot a word must fail
            return ExitCode.USAGE
        if (failure := _as_ours(error)) is None:
            raise
        _print_notes(error)
        return _failed(arguments, failure)
    return result if isinstance(result, int) else ExitCode.OK


def _terminated(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  (signal(2)'s signature)
    """Unwind, so that unfinished files go, and a restore is taken back."""
    sys.exit(128 + number)


def _print_notes(error: BaseException) -> None:
    """What is known of an end that was not reported, for who reads stderr: in which state it left things."""
    for each in (error, error.__cause__):  # click makes an Abort of a KeyboardInterrupt
        for note in getattr(each, "__notes__", ()):
            print(one_line(note), file=sys.stderr)


def _print_end(words: str) -> None:
    """That it was ended from outside, if it was: nobody is left to wonder whether all was done."""
    if words:
        print(f"{words}; should anything be left to finish, `{tool()} status` tells", file=sys.stderr)


def _failed(arguments: list[str], failure: PortfolioOpsError) -> int:
    """Report a failure, for a program or for a person, and return its exit code."""
    if "--json" in arguments:
        with output():
            print(json.dumps(envelope(_command_words(arguments), failure.exit_code, None, [failure]), indent=2))
    elif not failure.reported:
        for each in messages_of(failure):
            print(f"error: {one_line(each)}", file=sys.stderr)
    # A job's failure is in the journal already, its cure in a field; there it needs no second line.
    if failure.suggestion and not (failure.reported and stderr_is_journal()) and "--json" not in arguments:
        print(f"  try: {one_line(failure.suggestion)}", file=sys.stderr)
    return failure.exit_code


def _as_ours(error: Exception) -> PortfolioOpsError | None:
    """What click says of the command line, or whatever else is foreseen; None for what is a fault of the program."""
    if not isinstance(error, click.ClickException):
        return foreseen(error)
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else "portfolio-ops"
    what = "Missing command." if isinstance(error, NoArgsIsHelpError) else error.format_message()
    return UsageError(what, suggestion=f"{path} --help")


def _command_words(arguments: list[str]) -> str:
    """The command that was called, with its subcommand: `backup daily`."""
    words = iter(arguments)
    for word in words:
        if word in {"--config", "--site"}:
            next(words, None)
        elif word in COMMANDS:
            subcommand = next(words, "")
            return f"{word} {subcommand}".rstrip() if word in _GROUPS and not subcommand.startswith("-") else word
    return ""
