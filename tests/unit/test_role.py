"""The role says the same of its variables wherever it speaks of them."""

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader  # type: ignore[import-untyped]
from ansible.template import Templar, trust_as_template  # type: ignore[import-untyped]

from portfolio_ops import config
from portfolio_ops.host.identity import owner_of
from tests.require import require_root

ANSIBLE = Path(__file__).parents[2] / "ansible"
ROLE = ANSIBLE / "roles/portfolio_ops"
LOADER = DataLoader()
NONE = {"exists": False}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROLE / name).read_text())
    return found


def trusted(name: str) -> Any:
    """A file of the role as Ansible reads it: what stands in braces is a template."""
    return LOADER.load_from_file(str(ROLE / name), trusted_as_template=True)


def template(name: str) -> Any:
    """A template of the role, not templated yet."""
    return trust_as_template((ROLE / "templates" / name).read_text())


def templated(what: Any, **variables: Any) -> Any:
    """What Ansible makes of a template, or of a structure that holds some."""
    return Templar(loader=LOADER, variables={**trusted("vars/main.yml"), **variables}).template(what)


def task_of_a_site(name: str) -> dict[str, Any]:
    """A task of the role, not templated yet."""
    [found] = [task for task in trusted("tasks/site.yml") if task["name"] == f"site | {name}"]
    return dict(found)


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


def test_what_the_tool_reads_of_the_archive_stands_beside_its_switch() -> None:
    assert set(config._SCHEMA["archive"]) < set(OPTIONS["portfolio_ops_sites"]["options"])


def test_a_secret_has_the_same_name_wherever_it_is_named_and_no_other_sites(tmp_path: Path) -> None:
    alert = {"webhook": "credential:chat", "ping": "credential:not-the-roles"}
    sites = [
        {"name": name, "root": f"/srv/{name}", "stall_budget": "20ms", "alert": alert, "credentials": {"chat": name}}
        for name in ("a", "a-b")
    ]
    loaded = templated(template("messenger.conf.j2"), portfolio_ops_sites=sites).splitlines()
    kept = json.loads(templated(template("lists/secrets.json.j2"), portfolio_ops_sites=[*sites, {"name": "none"}]))
    assert len(kept) == len(sites)
    for site in sites:
        file = tmp_path / f"{site['name']}.toml"
        given = {"portfolio_ops_site": site}
        file.write_text(templated(template("site.toml.j2"), **given))
        read_back = config.load(file)
        assert read_back.archive.stall_budget == timedelta(milliseconds=20)
        assert read_back.alert.ping == "credential:not-the-roles"
        name = read_back.alert.webhook.removeprefix("credential:")
        assert name == f"{site['name']}.chat"
        item = {"key": "chat", "value": site["name"]}
        path = templated(task_of_a_site("Write its secrets")["ansible.builtin.copy"]["dest"], item=item, **given)
        assert f"LoadCredential={name}:{path}" in loaded
        assert path in kept
        assert path.endswith(f"/{name}")


def test_a_sites_owner_is_whom_the_tool_takes_for_it(tmp_path: Path) -> None:
    require_root("whom the role takes for the owner of a site")
    database = tmp_path / "data/portfolio.sqlite"
    backups = tmp_path / "backups"
    database.parent.mkdir()
    os.chown(tmp_path, 1001, 1002)
    os.chown(database.parent, 1003, 1004)
    task = task_of_a_site("See whose it is")

    def owner() -> tuple[int, int]:
        seen = [
            {"item": {"name": name}, "stat": {"exists": True, "uid": status.st_uid, "gid": status.st_gid}}
            for name, status in (("other", tmp_path.stat()), ("shop", database.parent.stat()))
        ]
        mine: dict[str, Any] = {"exists": database.exists()}
        if database.exists():
            mine |= {"uid": database.stat().st_uid, "gid": database.stat().st_gid}
        found = templated(
            task["ansible.builtin.set_fact"]["__portfolio_ops_owner"],
            portfolio_ops_site={"name": "shop"},
            __portfolio_ops_database={"stat": mine},
            __portfolio_ops_folders={"results": seen},
            **task["vars"],
        )
        return int(found["uid"]), int(found["gid"])

    assert owner() == owner_of(database, tmp_path, backups) == (1003, 1004)
    database.touch()
    os.chown(database, 1005, 1006)
    assert owner() == owner_of(database, tmp_path, backups) == (1005, 1006)
    os.chown(database, 0, 0)
    assert owner_of(database, tmp_path, backups) == (1003, 1004)  # the role refuses it
    backups.mkdir()
    assert owner() == owner_of(database, tmp_path, backups) == (0, 0)
    os.chown(backups, 1003, 1004)
    assert owner_of(database, tmp_path, backups) == (1003, 1004)  # the role refuses it
    os.chown(database.parent, 0, 0)
    assert owner() == owner_of(database, tmp_path, backups) == (0, 0)


@pytest.mark.parametrize(
    ("database", "folder", "kept", "passes"),
    [
        ({"exists": False}, 1003, NONE, True),
        ({"exists": True, "uid": 1003}, 1003, NONE, True),
        ({"exists": True, "uid": 0}, 0, NONE, True),
        ({"exists": True, "uid": 0}, 1003, NONE, False),
        ({"exists": True, "uid": 0}, 1003, {"exists": True, "isdir": True, "uid": 1003}, False),
        ({"exists": True, "uid": 0}, 1003, {"exists": True, "isdir": False, "uid": 0}, False),
        ({"exists": True, "uid": 0}, 1003, {"exists": True, "isdir": True, "uid": 0}, True),
    ],
)
def test_a_database_of_roots_in_anothers_folder_is_deployed_only_where_the_site_is_roots(
    database: dict[str, Any], folder: int, kept: dict[str, Any], *, passes: bool
) -> None:
    task = task_of_a_site("Refuse one that is root's in a folder of another's, unless the site was deployed as root's")
    told = templated(
        {
            **task["ansible.builtin.assert"],
            "that": trust_as_template("{{ " + task["ansible.builtin.assert"]["that"] + " }}"),
        },
        portfolio_ops_site={"name": "shop"},
        __portfolio_ops_paths={"database": "/srv/my shop/data/portfolio.sqlite"},
        __portfolio_ops_database={"stat": database},
        __portfolio_ops_kept={"stat": kept},
        __portfolio_ops_folders={"results": [{"item": {"name": "shop"}, "stat": {"exists": True, "uid": folder}}]},
        **task["vars"],
    )
    assert told["that"] is passes
    assert "Try: chown '--reference=/srv/my shop/data' '/srv/my shop/data/portfolio.sqlite'" in told["fail_msg"]


def test_every_unit_with_a_timer_has_its_schedule_but_the_hourly_check() -> None:
    known = read("vars/main.yml")
    assert set(known["__portfolio_ops_schedule"]) == set(known["__portfolio_ops_jobs"]) - {"check"}
    said = OPTIONS["portfolio_ops_sites"]["options"]["schedule"]["options"]
    assert set(known["__portfolio_ops_schedule"].values()) == set(said)
