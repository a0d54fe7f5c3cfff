"""Deleting behind what is published: where that fails, the backup is none the worse, and who looks is told."""

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.jobs import health
from portfolio_ops.jobs.archive import make_base
from portfolio_ops.jobs.daily import backup_daily
from portfolio_ops.jobs.expire import prune_increments
from portfolio_ops.jobs.gallery import backup_gallery
from portfolio_ops.jobs.requested import make_requested
from portfolio_ops.jobs.rotate import rotate_logs
from portfolio_ops.jobs.run import DAILY, Outcome, prune_kind
from portfolio_ops.jobs.social import backup_social
from portfolio_ops.store import catalogue, prune, requests, runs
from portfolio_ops.store.artifact import Kind
from tests.integration.test_jobs import asked, enlarge, planted

WAIT = timedelta(minutes=1)
YEAR = timedelta(days=365)
ASKED = "ab" * 16

JOBS: dict[str, tuple[Kind, Callable[[Site], Outcome]]] = {
    "backup-daily": (Kind.DAILY, lambda site: backup_daily(site, wait=WAIT)),
    "backup-social": (Kind.SOCIAL, lambda site: backup_social(site, wait=WAIT)),
    "backup-gallery": (Kind.EVENT, lambda site: backup_gallery(site, "winter", wait=WAIT)),
    "logs-rotate": (Kind.LOGS, lambda site: rotate_logs(site, wait=WAIT)),
    "archive-base": (Kind.WAL, lambda site: make_base(site, wait=WAIT)),
}


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The disk deletes no artifact, until this is undone."""

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(prune, "read_artifact", fail)
        yield patch


def overdue(site: Site, kind: Kind) -> list[Path]:
    """What retention lets go with the next success; and what was made lately, so that the clock is not doubted."""
    old = [planted(site, kind, YEAR + timedelta(days=number), f"old-{number}") for number in range(4)]
    for number in range(4):
        planted(site, kind, timedelta(days=2 + number), f"of-late-{number}")
    planted(site, Kind.DAILY, timedelta(days=100), "past-its-time")  # stands in for a base
    return old


def pruning_findings(site: Site) -> list[str]:
    return [each for each in health.assess(site, datetime.now(UTC)).findings if "pruned" in each]


@pytest.mark.parametrize("job", JOBS)
def test_a_job_that_cannot_prune_has_made_what_it_made(
    site: Site, job: str, stuck: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, run = JOBS[job]
    old = overdue(site, kind)
    outcome = run(site)
    assert [artifact.path.exists() for artifact in outcome.made] == [True]
    assert outcome.pruned == ()
    assert all(path.exists() for path in old)
    told = capsys.readouterr().err
    assert "<3>" not in told
    assert f"<4>{job}: what is past its time could not be pruned" in told
    assert "Input/output error" in told
    [finding] = pruning_findings(site)
    assert finding.startswith(f"{job}: ")
    record = runs.read(site.state, job)
    assert record is not None
    assert record.latest.state == runs.SUCCEEDED
    stuck.undo()
    assert run(site).pruned
    assert not any(path.exists() for path in old[1:])
    assert pruning_findings(site) == []


def test_a_requested_daily_that_cannot_prune_is_made_once(site: Site, stuck: pytest.MonkeyPatch) -> None:
    overdue(site, Kind.DAILY)
    before = len(catalogue.scan(site.backups, site.name).of(Kind.DAILY))
    triggers = site.root / "run/triggers"
    triggers.mkdir(parents=True)
    (triggers / "now").write_text(json.dumps({"request": ASKED, "backup": "daily"}))
    [made] = make_requested(site, wait=WAIT)
    assert make_requested(site, wait=WAIT) == []
    assert len(catalogue.scan(site.backups, site.name).of(Kind.DAILY)) == before + 1
    answer = requests.answer_to(site.state, ASKED)
    assert answer == requests.Answer(requests.DONE, made.path.name, made.id, made.bytes)
    stuck.undo()
    assert len(backup_daily(site, wait=WAIT).pruned) == 5


def test_increments_that_cannot_be_pruned_are_none_of_the_backups_business(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = site.backups / "wal" / "nowhere" / "x.wal.zst"
    with monkeypatch.context() as patch:
        patch.setattr("portfolio_ops.jobs.expire.expired_increments", lambda *_: [gone])
        assert backup_daily(site, wait=WAIT).made
    assert "<4>archive: what is past its time could not be pruned: No such file" in capsys.readouterr().err
    [finding] = pruning_findings(site)
    assert finding.startswith("archive: ")
    assert prune_increments(site, wait=WAIT) == []
    assert pruning_findings(site) == []


def test_by_hand_it_fails_and_a_success_is_all_that_the_check_waits_for(site: Site, stuck: pytest.MonkeyPatch) -> None:
    overdue(site, Kind.DAILY)
    backup_daily(site, wait=WAIT)
    with pytest.raises(OSError, match="Input/output"):
        prune_kind(site, DAILY, wait=WAIT)
    assert pruning_findings(site)
    stuck.undo()
    assert prune_kind(site, DAILY, wait=WAIT)
    assert pruning_findings(site) == []


def test_a_fault_of_the_program_is_not_hidden(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portfolio_ops.restore.keeping.decide", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backup_daily(site, wait=WAIT)


def test_status_shows_it_and_asks_for_a_person(site: Site, stuck: pytest.MonkeyPatch) -> None:
    overdue(site, Kind.DAILY)
    backup_daily(site, wait=WAIT)
    stuck.undo()
    findings = asked(site, "status", code=10)["data"]["findings"]
    assert [each for each in findings if "could not be pruned" in each and "Input/output error" in each]


def test_a_merge_that_cannot_begin_is_none_of_the_backups_business(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> list[str]:
        raise PortfolioOpsError("the folder cannot be listed")

    planted(site, Kind.DAILY, timedelta(days=2), "of-late")
    monkeypatch.setattr("portfolio_ops.jobs.age.timeline", SimpleNamespace(own=fail))
    monkeypatch.setattr("portfolio_ops.restore.keeping._grounds", lambda *_: {})
    monkeypatch.setattr("portfolio_ops.jobs.expire.expired_increments", lambda *_: [])
    assert backup_daily(site, wait=WAIT).made
    assert "<4>Older increments could not be merged" in capsys.readouterr().err


def refusal(site: Site) -> str:
    """What is advised where a daily does not fit. Nothing is pruned for it."""
    before = sorted(site.backups.rglob("*.zst"))
    [error] = asked(site, "backup", "daily", code=4)["errors"]
    assert "bytes free" in error["message"]
    assert sorted(site.backups.rglob("*.zst")) == before
    return str(error["suggestion"])


def test_a_backup_that_does_not_fit_names_what_may_go(small_disk: Site) -> None:
    site = small_disk
    enlarge(site.database, 30_000_000)
    overdue(site, Kind.DAILY)
    old = planted(site, Kind.EVENT, YEAR, "event-old")
    advice = refusal(site)
    said = re.search(
        r"`portfolio-ops --config \S+ prune --yes` deletes (\d+) artifacts that are past their time, ([\d,]+) bytes",
        advice,
    )
    assert said is not None, advice
    freed = asked(site, "prune", "--yes")["data"]["pruned"]
    assert (int(said[1]), int(said[2].replace(",", ""))) == (len(freed), sum(each["bytes"] for each in freed))
    assert not old.exists()
    assert "prune --yes" not in refusal(site)


def test_where_the_clock_may_be_wrong_nobody_is_advised_to_prune(small_disk: Site) -> None:
    enlarge(small_disk.database, 30_000_000)
    for number in range(6):
        planted(small_disk, Kind.DAILY, YEAR + timedelta(days=number), f"old-{number}")
    assert "prune --yes" not in refusal(small_disk)


def test_a_disk_at_the_reserve_is_a_finding_that_names_what_may_go(small_disk: Site) -> None:
    overdue(small_disk, Kind.DAILY)
    with (small_disk.backups / "of-the-site").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 23 << 20)
    [finding] = [each for each in asked(small_disk, "status", code=10)["data"]["findings"] if "the reserve is" in each]
    assert "prune --yes` deletes 5 artifacts" in finding
