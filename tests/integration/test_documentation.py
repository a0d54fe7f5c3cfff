"""What the documentation shows is true: the tutorial is run, and every command that a page shows exists as written."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from portfolio_ops.cli.main import cli

ROOT = Path(__file__).parents[2]
CHANGING = ROOT / "CONTRIBUTING.md"
OTHERS = [CHANGING, ROOT / "ansible/README.md"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def test_the_tutorial_works(tmp_path: Path) -> None:
    script = "\n".join(["set -eux", *blocks(ROOT / "docs/tutorial.md")])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Winter light" in done.stdout + done.stderr
    assert "the drill passed" in done.stdout


def test_a_moment_comes_back_by_hand(tmp_path: Path) -> None:
    """On artifacts that are kept: on a host that has just been restored, the newest timeline may have no base yet."""
    shutil.copytree(ROOT / "tests/golden/0.1.0/backups", tmp_path / "backups")
    [script] = re.findall(
        r"^```bash\n(.*?)^```$", (ROOT / "docs/how-to/restore-by-hand.md").read_text(), re.MULTILINE | re.DOTALL
    )
    words = ["bash", "-euc", script]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "ok"
    assert done.stderr == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_shows_exists(page: Path) -> None:
    for line in "\n".join(blocks(page)).splitlines():
        words = shlex.split(line, comments=True) if line.startswith("portfolio-ops ") else []
        words = words[: words.index("|")] if "|" in words else words
        if words:
            parse(cli, words[1:], line)


def parse(command: click.Command, words: list[str], line: str) -> None:
    """Go down the groups and let click judge the options; nothing is run."""
    context = click.Context(command, info_name="portfolio-ops")
    if isinstance(command, click.Group):
        _, rest, _ = command.make_parser(context).parse_args(list(words))
        assert rest, line
        child = command.get_command(context, rest[0])
        assert child is not None, line
        parse(child, rest[1:], line)
    else:
        command.make_parser(context).parse_args(list(words))


def test_every_page_that_is_linked_exists() -> None:
    for page in [*PAGES, *OTHERS]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_place_and_target_that_a_change_begins_with_exists() -> None:
    words = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", CHANGING.read_text())
    places = [
        word for word in words if re.fullmatch(r"[\w./-]+", word) and ("/" in word or word.endswith((".py", ".toml")))
    ]
    assert len(places) > 20
    for place in places:
        assert (ROOT / place).exists() or (ROOT / "portfolio_ops" / place).exists(), place
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word.removeprefix("make ") for word in words if word.startswith("make ")} <= {*targets}
