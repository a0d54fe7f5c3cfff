"""The reference pages say what the code does."""

from pathlib import Path

import pytest

from docs.generate import pages

REFERENCE = Path(__file__).parents[2] / "docs/reference"


@pytest.mark.parametrize("name", pages())
def test_a_page_is_up_to_date(name: str) -> None:
    assert (REFERENCE / name).read_text() == pages()[name], "run `make docs`"


def test_there_is_no_page_that_nothing_writes() -> None:
    # json.md is written by hand, and held against the commands by tests/integration/test_json.py.
    assert {path.name for path in REFERENCE.iterdir()} == {*pages(), "json.md"}
