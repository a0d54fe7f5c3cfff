"""Ids of messages are a promise: each is unique, explained in the catalogue, and in use."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from portfolio_ops.host import messages
from portfolio_ops.host.messages import Message

ROOT = Path(__file__).parents[2]
KINDS = {name: value for name, value in vars(messages).items() if isinstance(value, Message)}
CATALOGUE = (ROOT / "systemd/portfolio-ops.catalog").read_text()


def test_every_id_of_the_code_is_in_the_catalogue_and_no_other() -> None:
    assert sorted(re.findall(r"^-- ([0-9a-f]{32})$", CATALOGUE, re.MULTILINE)) == sorted(
        kind.id for kind in KINDS.values()
    )


def test_ids_are_unique_and_well_formed() -> None:
    ids = [kind.id for kind in KINDS.values()]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_every_kind_is_used() -> None:
    code = "".join(path.read_text() for path in (ROOT / "portfolio_ops").rglob("*.py") if path.name != "messages.py")
    assert [name for name in KINDS if f"messages.{name}" not in code] == []


def test_every_entry_has_a_subject_and_an_explanation_of_lines_that_fit() -> None:
    for entry in CATALOGUE.split("\n-- ")[1:]:
        head, _, body = entry.partition("\n\n")
        assert "\nSubject: " in head
        assert len(body.strip()) > 60, head
        assert all(len(line) <= 76 for line in entry.splitlines()), head


def shown(kind: Message) -> set[str]:
    """The fields that its entry of the catalogue shows, but for those that a log adds itself."""
    [entry] = [each for each in CATALOGUE.split("\n-- ")[1:] if each.startswith(kind.id)]
    return {field.lower() for field in re.findall(r"@PORTFOLIO_([A-Z_]+)@", entry)} - {"site", "job"}


def kinds_in(tree: ast.AST) -> list[str]:
    """The kinds of entries that are named in a piece of code."""
    return [
        each.attr
        for each in ast.walk(tree)
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "messages"
    ]


def events() -> Iterator[tuple[str, list[str], set[str]]]:
    """Every place at which something is reported: where it is, of which kinds it may be, and the fields it sends."""
    for path in sorted((ROOT / "portfolio_ops").rglob("*.py")):
        tree = ast.walk(ast.parse(path.read_text()))
        for function in [each for each in tree if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]:
            for each in ast.walk(function):
                if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == "event":
                    kind = each.args[0]
                    kinds = kinds_in(function if isinstance(kind, ast.Name) else kind)
                    yield f"{path.name}:{each.lineno}", kinds, {word.arg or "" for word in each.keywords}


def test_every_entry_has_the_fields_that_the_catalogue_shows_of_its_kind() -> None:
    found = list(events())
    assert {kind for _, kinds, _ in found for kind in kinds} == set(KINDS)
    missing = [(where, kind, shown(KINDS[kind]) - sent) for where, kinds, sent in found for kind in kinds]
    assert [each for each in missing if each[2]] == []
