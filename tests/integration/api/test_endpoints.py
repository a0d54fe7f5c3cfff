"""What the API answers: a real server on a real socket, and real backups."""

import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.jobs.daily import backup_daily
from portfolio_ops.jobs.run import DAILY
from portfolio_ops.store import catalogue, lock
from portfolio_ops.store.artifact import Artifact, Kind
from tests.integration.api.conftest import Activated

WAIT = timedelta(minutes=1)
GALLERY, TRIGGER = "/api/admin/backup-on-gallery-add", "/api/admin/trigger-backup"
STATUS, BACKUPS = "/api/admin/backup-status", "/api/admin/backups"


def artifacts(site: Site, kind: Kind) -> list[Artifact]:
    return list(catalogue.scan(site.backups, site.name, [kind]).artifacts)


def test_a_gallery_is_backed_up_and_answered_as_the_requirements_say(api: Activated, site: Site) -> None:
    reply = api.call("POST", GALLERY, {"galleryName": "new-collection"})
    [made] = artifacts(site, Kind.EVENT)
    assert reply.status == 200
    assert reply.json.pop("request")
    assert reply.json | {"request": ""} == {
        "success": True,
        "message": "Gallery backup created successfully",
        "galleryName": "new-collection",
        "request": "",
        "output": f"Published {made.path.name}: {made.bytes:,} bytes, verified",
        "backup": {"id": made.id, "file": made.path.name, "bytes": made.bytes},
    }
    assert made.path.name.startswith("gallery-added-new-collection-")
    assert made.metadata.details["names"] == ["new-collection"]


def test_a_manual_backup_is_the_daily_one(api: Activated, site: Site) -> None:
    reply = api.call("POST", TRIGGER)
    [made] = artifacts(site, Kind.DAILY)
    assert reply.status == 200
    assert (reply.json["success"], reply.json["message"]) == (True, "Manual backup created successfully")
    assert reply.json["backup"]["id"] == made.id
    assert made.path.name in reply.json["output"]


def test_the_status_has_the_requirements_shape(api: Activated, site: Site) -> None:
    nothing = api.call("GET", STATUS)
    assert nothing.status == 200
    assert nothing.json["success"] is True
    assert {key: value["retention"] for key, value in nothing.json["backups"].items()} == {
        "daily": "30 days",
        "social": "12 weeks",
        "eventTriggered": "90 days",
        "logsArchive": "7 days",
    }
    assert nothing.json["backups"]["daily"] == {
        "count": 0,
        "retention": "30 days",
        "latest": "No backups",
        "latestAt": None,
    }
    [made] = backup_daily(site, wait=WAIT).made
    time.sleep(2.1)  # for so long an answer is remembered
    daily = api.call("GET", STATUS).json["backups"]["daily"]
    assert daily["count"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9} [+-]\d{4}", daily["latest"])
    assert daily["latest"].startswith(made.taken.astimezone().strftime("%Y-%m-%d %H:%M:%S."))


def test_backups_are_listed_with_what_lies_among_them(api: Activated, site: Site) -> None:
    [made] = backup_daily(site, wait=WAIT).made
    (site.backups / "daily/stray.txt").write_text("no artifact")
    reply = api.call("GET", BACKUPS)
    assert [each["id"] for each in reply.json["backups"]] == [made.id]
    assert reply.json["backups"][0]["keep"] is True
    assert [each["file"] for each in reply.json["problems"]] == ["stray.txt"]


NO_NAMES = [
    (b"", "Gallery name required"),
    (b"{}", "Gallery name required"),
    (b'{"galleryName": ""}', "Gallery name required"),
    (b'{"galleryName": null}', "Gallery name required"),
    (b'{"galleryName": []}', "Gallery name required"),
    (b"[]", "Gallery name required"),
    (b'"winter"', "Gallery name required"),
    (b"not json", "Gallery name required"),
    (b"\xff\xfe", "Gallery name required"),
    (b"[" * 60_000, "Gallery name required"),
    (b'{"galleryName": 7}', "The gallery's name is no text"),
    (b'{"galleryName": ["a"]}', "The gallery's name is no text"),
    (b'{"galleryName": "  "}', "The gallery's name is empty"),
    (b'{"galleryName": "\\ud800"}', "The gallery's name is no Unicode text"),
    (
        b'{"galleryName": "%s"}' % (b"x" * 10_001),
        "The gallery's name has 10,001 characters, at most 10,000 are taken",
    ),
]


def test_what_is_no_name_is_refused(api: Activated, site: Site) -> None:
    for body, message in NO_NAMES:
        reply = api.call("POST", GALLERY, body)
        expected = {"success": False, "message": message, "code": "INVALID_REQUEST"}
        assert (reply.status, reply.json) == (400, expected), body[:40]
    assert not list((site.root / "run/triggers").iterdir())


def test_any_name_is_a_name_and_never_a_path(api: Activated, site: Site) -> None:
    for name in ["../../etc/passwd", '"; rm -rf / #', "$(reboot)", "Zimní světlo", "a\0b\nc", "-rf", "x" * 10_000]:
        reply = api.call("POST", GALLERY, {"galleryName": name})
        assert (reply.status, reply.json["galleryName"]) == (200, name)
        [made] = [each for each in artifacts(site, Kind.EVENT) if each.metadata.details["name"] == name]
        assert made.path.parent == site.backups / "event-triggered"
        assert re.fullmatch(r"gallery-added-[A-Za-z0-9-]+-\d{4}-\d\d-\d\d-\d{6}\.sqlite\.zst", made.path.name)


def test_a_body_that_is_too_large_is_refused(api: Activated, site: Site) -> None:
    for path in (GALLERY, TRIGGER):
        reply = api.call("POST", path, b"x" * (3 << 20))
        assert (reply.status, reply.json["code"]) == (413, "REQUEST_TOO_LARGE")
    assert not site.backups.exists()


def test_other_paths_and_methods_are_told_apart(api: Activated) -> None:
    assert (api.call("GET", "/").status, api.call("GET", STATUS + "/").status) == (404, 404)
    assert api.call("GET", TRIGGER).status == 405
    assert api.call("DELETE", BACKUPS).json["code"] == "METHOD_NOT_ALLOWED"


def test_a_backup_that_fails_is_answered_as_the_requirements_say_and_made_later(api: Activated, site: Site) -> None:
    aside = site.database.rename(site.database.with_suffix(".aside"))
    reply = api.call("POST", GALLERY, {"galleryName": "winter"})
    assert reply.status == 500
    assert (reply.json["success"], reply.json["message"], reply.json["code"]) == (
        False,
        "Backup failed",
        "BACKUP_ERROR",
    )
    assert "portfolio.sqlite" in reply.json["error"]
    aside.rename(site.database)
    assert api.call("POST", TRIGGER).status == 200
    deadline = time.monotonic() + 60
    while not artifacts(site, Kind.EVENT) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [each.metadata.details["names"] for each in artifacts(site, Kind.EVENT)] == [["winter"]]


def test_a_missing_folder_is_a_failure_with_its_cure(api: Activated, site: Site) -> None:
    (site.root / "run/triggers").rmdir()
    reply = api.call("POST", TRIGGER)
    assert (reply.status, reply.json["code"]) == (500, "BACKUP_ERROR")
    assert str(site.root / "run/triggers") in reply.json["error"]


def test_what_takes_longer_goes_on_and_can_be_asked_for(
    activated: Activated, site: Site, configure: Callable[[str], None]
) -> None:
    configure('[api]\nwait = "1s"')
    activated.start()
    backup_daily(site, wait=WAIT)
    with lock.held(site.state, DAILY.kind.value, wait=WAIT, on_wait=lambda _: None):
        reply = activated.call("POST", TRIGGER)
        where = reply.headers["location"]
        assert (reply.status, reply.json["success"], reply.json["state"]) == (202, True, "waiting")
        assert reply.json["statusUrl"] == where
        assert activated.call("GET", where).json["state"] == "waiting"
    deadline = time.monotonic() + 60
    while activated.call("GET", where).json["state"] == "waiting" and time.monotonic() < deadline:
        time.sleep(0.2)
    done = activated.call("GET", where).json
    assert (done["state"], done["backup"]["id"]) == ("done", artifacts(site, Kind.DAILY)[-1].id)


def test_requests_that_nobody_knows(api: Activated) -> None:
    for identity in ("0" * 32, "x", "..%2f..%2fdaily", "%00", "a" * 3000):
        assert api.call("GET", f"/api/admin/backup-requests/{identity}").status == 404


def test_health_tells_a_monitor(api: Activated, site: Site) -> None:
    reply = api.call("GET", "/healthz")
    assert (reply.status, reply.json["status"], reply.json["success"]) == (503, "findings", False)
    assert any("backup-daily" in finding for finding in reply.json["findings"])
    assert site.backups.exists() is False


@pytest.fixture
def token(activated: Activated, configure: Callable[[str], None], tmp_path: Path) -> Activated:
    """The API of a site that asks for the token `secret-7`."""
    configure('[api]\ntoken = "credential:api-token"')
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "api-token").write_text("secret-7\n")
    activated.start(environment={"CREDENTIALS_DIRECTORY": str(folder)})
    return activated


def test_a_token_is_asked_for(token: Activated, site: Site) -> None:
    for method, path in [("POST", GALLERY), ("POST", TRIGGER), ("GET", STATUS), ("GET", BACKUPS)]:
        _is_guarded(token, site, method, path)


def _is_guarded(token: Activated, site: Site, method: str, path: str) -> None:
    without = token.call(method, path)
    assert (without.status, without.headers["www-authenticate"]) == (401, "Bearer")
    assert without.json == {"success": False, "message": "Unauthorized", "code": "UNAUTHORIZED"}
    for wrong in ("Bearer wrong", "Bearer secret-77", "Bearer secret-", "bearer \xe9\xff"):
        refused = token.call(method, path, headers={"Authorization": wrong})
        assert (refused.status, refused.json) == (403, {"success": False, "message": "Forbidden", "code": "FORBIDDEN"})
    assert token.call(method, path, headers={"Authorization": "Basic secret-7"}).status == 401
    assert not list((site.root / "run/triggers").iterdir())
    allowed = token.call(method, path, headers={"Authorization": "Bearer secret-7"})
    assert allowed.status == (400 if path == GALLERY else 200)


def test_who_has_no_token_cannot_use_up_the_calls_of_who_has(token: Activated) -> None:
    answers = [token.call("POST", TRIGGER).status for _ in range(70)]
    assert answers[:60] == [401] * 60
    assert 429 in answers
    assert token.call("GET", STATUS, headers={"Authorization": "Bearer secret-7"}).status == 200


def test_what_was_just_made_is_counted(api: Activated) -> None:
    assert api.call("GET", STATUS).json["backups"]["daily"]["count"] == 0
    api.call("POST", TRIGGER)
    assert api.call("GET", STATUS).json["backups"]["daily"]["count"] == 1
    assert len(api.call("GET", BACKUPS).json["backups"]) == 1


def test_without_a_token_health_says_no_details(token: Activated) -> None:
    assert token.call("GET", "/healthz").json == {"success": False, "status": "findings"}
    assert token.call("GET", "/healthz", headers={"Authorization": "Bearer secret-7"}).json["findings"]


def test_triggers_are_limited_and_said_when_to_come_again(api: Activated, site: Site) -> None:
    for _ in range(30):
        assert api.call("POST", GALLERY, {}).status == 400
    reply = api.call("POST", GALLERY, {"galleryName": "one too many"})
    assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (429, "TOO_MANY_REQUESTS", "2")
    assert api.call("GET", STATUS).status == 200
    assert not site.backups.exists()


def test_every_call_is_told_with_its_peer(api: Activated) -> None:
    api.call("GET", "/nowhere\t\x7f".replace("\t", "%09").replace("\x7f", "%1b%5b31m"))
    said = api.stop()
    assert re.search(r"^<6>GET /nowhere\\u0009\\u001b\[31m by uid \d+, pid \d+: 404$", said, re.MULTILINE), said
