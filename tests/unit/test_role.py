"""The role says the same of its variables wherever it speaks of them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from portfolio_ops import config

ANSIBLE = Path(__file__).parents[2] / "ansible"
ROLE = ANSIBLE / "roles/portfolio_ops"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROLE / name).read_text())
    return found


OPTIONS = read("meta/argument_specs.yml")["argument_specs"]["main"]["options"]


def test_every_default_has_its_spec_and_the_same_value() -> None:
    defaults = read("defaults/main.yml")
    assert set(defaults) == set(OPTIONS)
    assert {name: OPTIONS[name]["default"] for name in defaults} == defaults


def test_the_guard_against_misspelt_names_knows_every_variable_and_no_other() -> None:
    assert set(read("vars/main.yml")["__portfolio_ops_known"]) == set(OPTIONS)


def test_the_readme_names_every_variable_and_every_setting_of_a_site() -> None:
    text = (ANSIBLE / "README.md").read_text()
    assert set(re.findall(r"^\| `(portfolio_ops_\w+)` \|", text, re.MULTILINE)) == set(OPTIONS)
    for setting in OPTIONS["portfolio_ops_sites"]["options"]:
        assert re.search(rf"\b{setting}:", text), setting


@pytest.mark.parametrize("section", ["retention", "gallery", "backend", "alert", "drill"])
def test_what_a_site_may_say_of_a_section_is_what_the_tool_reads(section: str) -> None:
    site = OPTIONS["portfolio_ops_sites"]["options"]
    assert set(site[section]["options"]) == set(config._SCHEMA[section])


def test_every_unit_with_a_timer_has_its_schedule_but_the_hourly_check() -> None:
    known = read("vars/main.yml")
    assert set(known["__portfolio_ops_schedule"]) == set(known["__portfolio_ops_jobs"]) - {"check"}
    said = OPTIONS["portfolio_ops_sites"]["options"]["schedule"]["options"]
    assert set(known["__portfolio_ops_schedule"].values()) == set(said)
