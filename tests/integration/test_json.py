"""The page on JSON: every field that a command gives is on it, and every field that is on it is given."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Site
from tests.integration.test_jobs import asked, call

PAGE = (Path(__file__).parents[2] / "docs/reference/json.md").read_text()
FREE = {"details", "plan.moment", "settings.*.value"}
"""What is a value of any kind to this page."""


def documented(section: str) -> set[str]:
    """The fields of a section's table, with those of an artifact where it says so."""
    found = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, section
    fields: set[str] = set()
    for row in re.findall(r"^\|(.*)\|$", found[1], re.MULTILINE)[2:]:
        cells = row.split(" | ")
        names = re.findall(r"`([^`]+)`", cells[0])
        if "an artifact" in cells[-1]:
            [base] = names or [""]
            fields |= {f"{base}.{each}".lstrip(".") for each in documented("An artifact")}
        else:
            fields |= set(names)
    return fields


def given(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all that an answer holds. The keys of jobs and settings are data."""
    if path in FREE:
        yield path
    elif isinstance(value, dict) and value:
        for key, each in value.items():
            name = "*" if path in {"jobs", "settings"} else key
            yield from given(each, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for each in value or [None]:
            yield from given(each, f"{path}[]")
    else:
        yield path


def require_documented(section: str, answer: Any) -> None:
    """The answer holds what is documented; what an empty list or an object that is null would hold, it need not say."""
    fields, seen = documented(section), set(given(answer))
    empty = {path for path in seen - fields if any(each.startswith(f"{path}.") for each in fields)}
    unsaid = {each for each in fields - seen if any(each.startswith(f"{path}.") for path in empty)}
    assert (seen - fields - empty, fields - seen - unsaid) == (set(), set()), section


@pytest.fixture
def lived_in(site: Site) -> Iterator[Site]:
    """A site with something of everything: artifacts, an archive of two timelines, a problem."""
    connection = sqlite3.connect(site.database, isolation_level=None)
    for words in (("backup", "daily"), ("backup", "social"), ("backup", "gallery", "Winter light")):
        call(site, *words)
    call(site, "archive", "once")
    connection.execute("CREATE TABLE more(a)")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # nobody can tell what else has passed
    call(site, "archive", "once")
    yield site
    connection.close()


def test_what_commands_answer(lived_in: Site, tmp_path: Path) -> None:
    site = lived_in

    def data(*words: str, code: int = 0) -> Any:
        return asked(site, *words, code=code)["data"]

    require_documented("logs rotate", data("logs", "rotate"))
    require_documented("logs show", data("logs", "show"))
    require_documented("backup daily", data("backup", "daily"))
    require_documented("drill", data("drill"))
    require_documented("show", data("show", "latest"))
    require_documented("prune", data("prune", "--explain"))
    require_documented("verify", data("verify"))
    require_documented("archive verify", data("archive", "verify"))
    require_documented("config show", data("config", "show"))
    require_documented("doctor", data("doctor", code=10))
    require_documented("list points", data("list", "points"))
    (site.backups / "daily/stranger").touch()
    require_documented("list", data("list", code=10))
    require_documented("report", data("report"))
    require_documented("archive accept", data("archive", "accept"))
    status = data("status", code=10)
    require_documented("status", status)
    assert status["recovery_window"]["holes"] == 1
    beside = data("restore", "database", "latest", "--to", str(tmp_path / "beside.sqlite"))
    require_documented("restore database", beside)


def test_a_social_restore_answers(site: Site) -> None:
    connection = sqlite3.connect(site.database, isolation_level=None)
    connection.execute("DELETE FROM comments WHERE rowid = 1")  # it refers to nothing
    call(site, "backup", "social")
    connection.execute("DELETE FROM comments")
    connection.close()
    require_documented("restore social", asked(site, "restore", "social", "--merge", "--yes")["data"])


def test_an_error_is_one_too(site: Site) -> None:
    answer = asked(site, "show", "nothing", code=6)
    assert (answer["status"], answer["data"]) == ("error", None)
    assert [set(each) for each in answer["errors"]] == [{"code", "message", "suggestion"}]


def test_what_went_on_and_found_something_bad_says_both(site: Site) -> None:
    call(site, "backup", "daily")
    [bad] = (site.backups / "daily").iterdir()
    with bad.open("r+b") as file:
        file.seek(1000)
        file.write(b"damaged")
    (site.backups / "daily/stranger").touch()
    answer = asked(site, "verify", "--all", code=9)
    assert [each["found"] for each in answer["data"]["verdicts"]] == ["bad"]
    assert [each["code"] for each in answer["errors"]] == ["VERIFICATION_FAILED"] * 2
    assert answer["errors"][0]["message"].startswith(f"{bad.name} is bad: ")
    assert "stranger" in answer["errors"][1]["message"]
    assert all(each["suggestion"] for each in answer["errors"])
    answer = asked(site, "drill", code=9)
    assert answer["errors"][0]["message"] == answer["data"]["reasons"][0]
