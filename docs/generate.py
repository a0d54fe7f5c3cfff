"""Write the reference pages from the code itself.

python -m docs.generate           write them
python -m docs.generate --check   fail if one is out of date
"""

import re
import sys
from pathlib import Path

import click

from portfolio_ops import config
from portfolio_ops.cli.main import cli
from portfolio_ops.errors import ExitCode
from portfolio_ops.host import messages

HERE = Path(__file__).parent
SYSTEMD = HERE.parent / "systemd"
_WIDTH = 100

_EXITS = {
    ExitCode.OK: "All went well.",
    ExitCode.FAILED: "It was tried and failed; nothing was published, nothing pruned. A later try may succeed. Or its output could not be "
    "written, which is said on stderr: then what was done is done.",
    ExitCode.USAGE: "The command line or the configuration is wrong. All faults of a file are named at once.",
    ExitCode.NOT_PERMITTED: "The user may not do this. Run it as the site's owner, or as root, which steps down.",
    ExitCode.REFUSED: "A precondition does not hold; nothing was changed.",
    ExitCode.NOT_FOUND: "A site, database, table or artifact that was named does not exist.",
    ExitCode.BUSY: "Another run, or the site itself, holds what is needed.",
    ExitCode.REMOTE_UNREACHABLE: "A receiver of alerts could not be reached (`alert`).",
    ExitCode.VERIFICATION_FAILED: "What was read back is not what it should be: it was not published or restored. Or a drill failed.",
    ExitCode.FINDINGS: "The command worked, and found something for a person to look at (`status`, `list`, `doctor`, an inconclusive "
    "`drill`).",
}

_KEYS = {
    "site.root": "The site's folder, absolute. Relative paths below start here.",
    "site.database": "Its SQLite database.",
    "site.backups": "Where artifacts go: a folder of its own.",
    "logs.files": "Its logs, below the root.",
    "social.tables": "What the social export holds. A name that ends in `?` may be missing.",
    "retention.daily": "How long daily backups are kept.",
    "retention.social": "How long social exports are kept.",
    "retention.event": "How long backups on an event are kept.",
    "retention.logs": "How long archives of logs are kept.",
    "retention.wal": "How long the archive keeps moments; what is older goes with the daily backup.",
    "retention.minimum": "Verified daily backups that no rule may prune.",
    "archive.stall_budget": "For how long the archive may hold the site's writers off at a time, to end a WAL. Without a WAL, a longer hold is told.",
    "backend.compose": "Folder of the compose file that the backend runs from: a restore in place stops and starts it.",
    "backend.service": "Its service in that file.",
    "backend.stop": "Without compose: the program that stops the backend, as a list. No shell reads it.",
    "backend.start": "The program that starts it.",
    "backend.status": "The program that exits with 0 while it runs.",
    "backend.health": "A URL that answers with 2xx when the backend is well: after a restore, and every hour.",
    "backend.patience": "How long to wait for it to be down, and to be well.",
    "alert.webhook": "A URL that gets a JSON object when a scheduled run fails for good, and when it is well again. "
    "`credential:NAME` reads it from a systemd credential.",
    "alert.mail": "An address for the same, through the host's `sendmail`, or its mail server on port 25.",
    "alert.command": "A program for the same, as a list; it gets the JSON object on its standard input.",
    "alert.ping": "A URL as of Healthchecks: `/start`, success and `/fail` of every scheduled run are reported to it, "
    "with the job's name as `{job}` where the URL has that. `credential:NAME` as above.",
    "gallery.table": "The table whose new rows are events: the archive sees them and makes a backup. A table with rowids.",
    "gallery.name": "Its column with the names. Both keys or neither; without them only `backup gallery NAME` makes such backups.",
    "api.token": "The systemd credential that holds the token which callers of the HTTP API must bring, as `credential:NAME`. None is asked for if empty; over TCP it is required.",
    "api.wait": "How long an answer of the HTTP API waits for its backup, before it says where to ask for it.",
    "drill.checks": "SQL on the restored copy, read-only; each must give a true value first.",
    "drill.scratch": "Where drills restore to; a hidden folder of the backups if empty.",
}


def pages() -> dict[str, str]:
    """Each reference page by its file's name."""
    return {
        "commands.md": _commands(),
        "configuration.md": _configuration(),
        "exit-codes.md": _exit_codes(),
        "messages.md": _messages(),
        "units.md": _units(),
    }


def _head(title: str, text: str) -> str:
    return f"<!-- Written by docs/generate.py; a test holds it against the code. -->\n# {title}\n\n{text}\n"


def _commands() -> str:
    parts = [_head("Commands", "As `--help` shows them.")]

    def add(command: click.Command, parent: click.Context | None, name: str) -> None:
        names = cli.context_settings["help_option_names"]
        context = click.Context(
            command, info_name=name, parent=parent, max_content_width=_WIDTH, help_option_names=names
        )
        context.terminal_width = _WIDTH
        parts.append(f"## {context.command_path}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
        if isinstance(command, click.Group):
            for each in command.list_commands(context):
                child = command.get_command(context, each)
                if child is not None:
                    add(child, context, each)

    add(cli, None, "portfolio-ops")
    return "\n".join(parts)


def _configuration() -> str:
    rows = []
    for section, keys in config._SCHEMA.items():  # noqa: SLF001  (the one description of the file)
        for key, (_, default) in keys.items():
            shown = "required" if default is config._REQUIRED else f"`{_toml(default)}`"  # noqa: SLF001
            name = f"{section}.{key}"
            rows.append(f"| `{name}` | {shown} | {_KEYS[name]} |")
    return _head(
        "Configuration",
        "`/etc/portfolio-ops/<site>.toml`, one file a site; the name is of a-z, 0-9 and -. Unknown keys and wrong types "
        "are errors, all reported at once (`portfolio-ops config check`). Durations are a number and `s`, `m`, `h`, `d` "
        "or `w`, or several: `1w 3d`.\n\n| key | default | |\n|---|---|---|\n" + "\n".join(rows),
    )


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{each}"' for each in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _exit_codes() -> str:
    rows = "\n".join(f"| {code.value} | {code.name.lower().replace('_', ' ')} | {_EXITS[code]} |" for code in ExitCode)
    return _head(
        "Exit codes",
        "The same with and without `--json`. An unknown code is a failure. `status --nagios` uses 0, 1, 2, 3 as "
        "monitoring plugins do. 128 + n: ended by signal n; what was not published is gone. "
        "141: who read the output has closed it (`| head`); what was done is done.\n\n"
        f"| code | | |\n|---|---|---|\n{rows}",
    )


def _messages() -> str:
    text = (SYSTEMD / "portfolio-ops.catalog").read_text()
    entries = dict(re.findall(r"^-- ([0-9a-f]{32})\n(.*?)(?=^-- |\Z)", text, re.MULTILINE | re.DOTALL))
    priorities = {2: "critical", 3: "error", 4: "warning", 5: "notice", 6: "info"}
    parts = [
        _head(
            "Messages in the journal",
            "Every entry has an id that never changes: `journalctl MESSAGE_ID=...` finds all of a kind, `journalctl -x` "
            "shows the explanation. Fields are `PORTFOLIO_SITE=`, `PORTFOLIO_JOB=`, and those named here.",
        )
    ]
    for name, kind in vars(messages).items():
        if isinstance(kind, messages.Message):
            head, _, body = entries[kind.id].partition("\n\n")
            subject = re.search(r"^Subject: (.*)$", head, re.MULTILINE)
            title = subject[1] if subject else name
            words = re.sub(r"@(PORTFOLIO_[A-Z_]+)@", r"`\1`", body.strip())
            parts.append(f"## {title}\n\n`{kind.id}` · {priorities[kind.priority]}\n\n{words}\n")
    return "\n".join(parts)


def _units() -> str:
    rows = []
    for path in sorted(SYSTEMD.iterdir()):
        if path.name.startswith("portfolio") and path.suffix != ".catalog":
            found = dict(re.findall(r"^(Description|OnCalendar|ExecStart)=(.+)$", path.read_text(), re.MULTILINE))
            what = found.get("ExecStart", "").replace("/opt/portfolio-ops/current/bin/", "")
            when = found.get("OnCalendar", "")
            detail = f"`{what}`" if what else f"`OnCalendar={when}`" if when else ""
            rows.append(f"| `{path.name}` | {found['Description'].replace('%i', '*site*')} | {detail} |")
    return _head(
        "Units",
        "In `/usr/local/lib/systemd/system`; what belongs to one site is in drop-ins under `/etc/systemd/system`, which "
        "the role writes. Your own drop-ins beside them stay.\n\n| unit | | |\n|---|---|---|\n" + "\n".join(rows),
    )


def main() -> None:
    """Write the pages, or say which are out of date."""
    stale = []
    for name, text in pages().items():
        path = HERE / "reference" / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text)
    if stale and "--check" in sys.argv:
        sys.exit(f"out of date, run `make docs`: {', '.join(stale)}")


if __name__ == "__main__":
    main()
