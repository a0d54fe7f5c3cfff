"""Ids of messages are a promise: each is unique, explained in the catalogue, and in use."""

import re
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


def test_fields_that_the_catalogue_shows_are_fields_that_the_code_sends() -> None:
    code = "".join(path.read_text() for path in (ROOT / "portfolio_ops").rglob("*.py"))
    for field in re.findall(r"@PORTFOLIO_([A-Z_]+)@", CATALOGUE):
        assert re.search(rf"\b{field.lower()}\b\s*[=\"]", code), field
