"""The contract of the command line: one JSON object, the same exit code with and without it, errors with a cure."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from portfolio_ops.cli import main
from portfolio_ops.config import Site
from portfolio_ops.errors import ExitCode

CONTRACT = {0, 1, 2, 3, 4, 6, 7, 8, 9, 10}


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main.run(list(words))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_exit_codes_are_those_of_the_contract() -> None:
    assert {code.value for code in ExitCode} == CONTRACT


@pytest.mark.parametrize(
    ("words", "code", "command"),
    [
        (("status",), {0, 10}, "status"),
        (("list",), {0}, "list"),
        (("show", "latest"), {6}, "show"),
        (("prune", "--explain"), {0}, "prune"),
        (("config", "show"), {0}, "config show"),
        (("config", "check"), {0}, "config check"),
        (("backup", "gallery", ""), {2}, "backup gallery"),
        (("backup", "gallery"), {2}, "backup gallery"),
        (("backup", "nightly"), {2}, "backup nightly"),
        (("logs", "show", "--log", "nothing"), {6}, "logs show"),
        (("logs", "show", "--since", "yesterday"), {2}, "logs show"),
        (("logs", "show", "--grep", "("), {2}, "logs show"),
    ],
)
def test_every_answer_is_one_object_with_the_exit_code_of_the_plain_one(
    site: Site, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: set[int], command: str
) -> None:
    plain, _, told = call(capsys, "--config", str(site.file), *words)
    status, out, _ = call(capsys, "--config", str(site.file), "--json", *words)
    answer = json.loads(out)
    assert set(answer) == {"result_version", "command", "status", "exit_code", "data", "errors"}
    assert answer["exit_code"] == status == plain
    assert status in code
    assert answer["command"] == command
    if status not in {0, 10}:
        [error] = answer["errors"]
        assert set(error) == {"code", "message", "suggestion"}
        assert error["suggestion"]
        assert "error: " in told
        assert "  try: " in told


def test_every_fault_of_a_configuration_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('[site]\nrot = "/x"\n[retention]\ndaily = "30 days"\nminimum = true\n[alerts]\n')
    status, out, err = call(capsys, "--config", str(file), "config", "check")
    assert (status, out) == (2, "")
    for key in ("site.rot", "site.root", "retention.daily", "retention.minimum", "[alerts]"):
        assert key in err
    assert "did you mean root?" in err


@pytest.mark.parametrize("words", ["", "backup", "archive", "logs", "config", "restore"])
def test_who_names_no_command_gets_the_help_as_it_is(capsys: pytest.CaptureFixture[str], words: str) -> None:
    _, shown, _ = call(capsys, *words.split(), "--help")
    status, out, err = call(capsys, *words.split())
    assert (status, out, err) == (ExitCode.USAGE, "", shown)
    assert err.count("\n") > 5
    status, out, err = call(capsys, "--json", *words.split())
    answer = json.loads(out)
    assert (status, answer["exit_code"], answer["command"], err) == (ExitCode.USAGE, ExitCode.USAGE, words, "")
    assert answer["errors"] == [
        {
            "code": "USAGE",
            "message": "Missing command.",
            "suggestion": f"{' '.join(('portfolio-ops', *words.split()))} --help",
        }
    ]


def ended(site: Site, *words: str, stdout: int) -> tuple[int, str]:
    """How a process ends that writes to `stdout`, and what it says of that."""
    command = [sys.executable, "-c", "from portfolio_ops.cli.main import main; main()", "--config", str(site.file)]
    done = subprocess.run([*command, *words], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stderr


OUTPUTS = [
    "--json list",
    "list",
    "--json show nothing",
    "report",
    "status",
    "--json verify",
    "backup daily",
    "logs show",
]


@pytest.mark.parametrize("words", OUTPUTS)
def test_output_that_cannot_be_written_is_told_and_what_was_done_is_done(site: Site, words: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        status, told = ended(site, *words.split(), stdout=full)
    finally:
        os.close(full)
    assert status == ExitCode.FAILED
    assert "error: the output could not be written ([Errno 28] No space left on device); what was done is done" in told
    assert told.count("error: ") == 1
    for fault in ("Traceback", "Exception ignored", "nothing was published"):
        assert fault not in told
    assert (site.backups / "daily").exists() == (words == "backup daily")


@pytest.mark.parametrize("words", OUTPUTS)
def test_who_has_read_enough_is_told_nothing(site: Site, words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        status, told = ended(site, *words.split(), stdout=writing)
    finally:
        os.close(writing)
    assert status == 128 + signal.SIGPIPE
    assert "rror" not in told
    assert "Exception" not in told
    assert (site.backups / "daily").exists() == (words == "backup daily")


def test_help_needs_no_site_and_loads_no_engine() -> None:
    code = "import sys; from portfolio_ops.cli.main import run; run(['-h']); print(list(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Commands:" in done.stdout
    for heavy in ("'apsw'", "'zstandard'", "'asyncio'", "'subprocess'"):
        assert heavy not in done.stderr, heavy


@pytest.mark.parametrize("words", ["status", "list", "show latest", "backup daily", "backup social"])
def test_what_is_not_the_archive_loads_nothing_that_only_it_needs(site: Site, words: str) -> None:
    code = "import sys; from portfolio_ops.cli.main import run; run(sys.argv[1:]); print(list(sys.modules))"
    command = [sys.executable, "-c", code, "--config", str(site.file), *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "'portfolio_ops.store.catalogue'" in done.stdout
    assert "'numpy'" not in done.stdout


def test_a_check_of_the_drill_that_is_not_one_select_is_refused(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [
        "SELECT count(*) > 0 FROM a_table_that_is_not_here",
        "WITH few AS (SELECT 1 LIMIT 1) SELECT a_function(column) FROM few ORDER BY 1;",
        "VALUES (1) -- true",
        "SELECT ';' || group_concat(body ORDER BY id) FROM comments",
    ]
    bad = [
        "DELETE FROM comments",
        "SELECT",
        "SELECT 1; SELECT 2",
        "WITH a AS (SELECT 1) DELETE FROM a",
        "SELECT '",
        "x",
    ]
    text = f'[site]\nroot = "{site.root}"\n[drill]\nchecks = {json.dumps([*good, *bad])}\n'
    site.file.write_text(text)
    status, _, err = call(capsys, "--config", str(site.file), "config", "check")
    assert status == ExitCode.USAGE
    refused = [line for line in err.splitlines() if line.startswith("error: ")]
    assert [line.partition("drill.checks ")[2].partition(" is not one SELECT: ")[0] for line in refused] == [
        repr(each) for each in bad
    ]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert call(capsys, "--config", str(site.file), "config", "check", "--stdin")[0] == ExitCode.USAGE
    assert call(capsys, "--config", str(site.file), "backup", "daily")[0] == 0, "no backup fails for it"
    site.file.write_text(text.replace(json.dumps([*good, *bad]), json.dumps(good)))
    assert call(capsys, "--config", str(site.file), "config", "check")[0] == 0


def test_no_help_shows_a_formatting_mark() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.generate", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "\\b" not in (Path(__file__).parents[2] / "docs/reference/commands.md").read_text()


def test_names_from_outside_cannot_move_a_terminals_cursor(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "--config", str(site.file), "backup", "gallery", "a\x1b[2J\nb")
    _, out, _ = call(capsys, "--config", str(site.file), "list")
    _, shown, _ = call(capsys, "--config", str(site.file), "show", "latest")
    assert {line.find(" ") for line in shown.splitlines() if line.startswith("foreign_key_violations")} == {22}
    assert all(line[22] == " " for line in shown.splitlines()), "one column"
    assert "\x1b" not in out + shown
    assert "a\\u001b[2J\\u000ab" in shown


def test_several_sites_must_be_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portfolio_ops.config.DIRECTORY", tmp_path)
    assert call(capsys, "status")[0] == ExitCode.NOT_FOUND
    for name in ("blog", "shop"):
        (tmp_path / f"{name}.toml").write_text(f'[site]\nroot = "{tmp_path}"\n')
    status, _, err = call(capsys, "status")
    assert status == ExitCode.USAGE
    assert "blog, shop" in err
    assert call(capsys, "--site", "../x", "status")[0] == ExitCode.USAGE
