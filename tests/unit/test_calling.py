"""What is suggested can be typed as it stands: it names the site, which there may be several of."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from portfolio_ops import config
from portfolio_ops.cli import main
from portfolio_ops.config import Site

PACKAGE = Path(__file__).parents[2] / "portfolio_ops"
COMMAND = re.compile(rf"(?:portfolio-ops |`)(?:{'|'.join(main.COMMANDS)})\b")
ABOUT_COMMANDS = {"help", "short_help", "epilog"}
"""Arguments of click's with text on the commands themselves: no site is known there."""


def said(tree: ast.AST) -> Iterator[ast.Constant]:
    """All text of a module that somebody may be told: no docstrings, no help."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) and not (
            isinstance(node, ast.keyword) and node.arg in ABOUT_COMMANDS
        ):
            yield from said(node)


def test_no_suggestion_is_written_without_the_site() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{text.lineno}: {text.value!r}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for text in said(ast.parse(path.read_text()))
        if COMMAND.search(str(text.value))
    ]
    assert not found, "begin it with calling.tool()"


def called_at_once(tree: ast.AST) -> Iterator[str]:
    """What is called while a module is loaded, at which time no site is known."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.Lambda):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id
            yield from called_at_once(node)


def test_no_suggestion_is_made_before_the_site_is_known() -> None:
    early = [str(path) for path in PACKAGE.rglob("*.py") if "tool" in called_at_once(ast.parse(path.read_text()))]
    assert not early, "make it in a function"


def test_no_explanation_in_the_journal_names_a_command_without_the_site() -> None:
    catalog = (PACKAGE.parent / "systemd/portfolio-ops.catalog").read_text()
    assert COMMAND.findall(catalog) == [], "write portfolio-ops --site @PORTFOLIO_SITE@"


@pytest.fixture
def two_sites(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Of two configured sites, one."""
    monkeypatch.setattr(config, "DIRECTORY", site.file.parent)
    site.file.with_name("blog.toml").write_text('[site]\nroot = "/srv/blog"\n')
    return site


def suggested(text: str) -> list[list[str]]:
    """The commands that a text suggests, after the tool's name."""
    return [shlex.split(each)[1:] for each in re.findall(r"portfolio-ops --(?:site|config) [^`;,\n]+", text)]


@pytest.mark.usefixtures("two_sites")
@pytest.mark.parametrize("words", ["list", "status", "show nothing", "list points", "verify nothing"])
def test_where_there_are_several_sites_what_is_suggested_names_one(
    capsys: pytest.CaptureFixture[str], words: str
) -> None:
    main.run(["--site", "shop", *words.split()])
    captured = capsys.readouterr()
    found = suggested(captured.out + captured.err)
    assert found
    for command in found:
        assert command[:2] == ["--site", "shop"]
        if command[2] in {"list", "backup"}:
            assert main.run(command) in {0, 10}


@pytest.mark.parametrize("given", ["option", "environment"])
def test_a_file_that_lies_elsewhere_is_named_in_full(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    folder = site.file.with_name("a folder")
    folder.mkdir()
    file = site.file.rename(folder / "shop.toml")
    monkeypatch.chdir(folder)
    if given == "environment":
        monkeypatch.setenv(config.ENVIRONMENT, "shop.toml")
    main.run([*(["--config", "shop.toml"] if given == "option" else []), "list"])
    assert suggested(capsys.readouterr().out) == [["--config", str(file), "backup", "daily"]]
