"""What runs have left unfinished goes within hours, also where the job has no other run; nothing of one that runs."""

import errno
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.jobs import health
from portfolio_ops.store import runs, timeline
from portfolio_ops.store.artifact import Kind
from tests.integration.test_jobs import asked, call, lock_held

HOURS = 2 * 3600


def left(folder: Path, name: str, age: float = HOURS) -> Path:
    """An unfinished file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"x")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_the_hourly_check_removes_what_runs_left_unfinished(site: Site) -> None:
    call(site, "backup", "daily")
    gone = [left(site.backups / kind.folder, ".tmp-old") for kind in Kind]
    gone.append(left(site.state, ".tmp-old"))
    gone.append(
        left(timeline.folder_of(site.backups, timeline.following_id(site.backups, datetime.now(UTC))), ".tmp-old")
    )
    kept = [left(site.backups / kind.folder, ".tmp-young", age=60) for kind in Kind]
    kept += [left(site.backups / kind.folder, "tmp-of-somebody") for kind in Kind]
    kept.append(left(site.backups / "daily/.tmp-folder", "file"))
    kept += [path for path in (site.backups / "daily").iterdir() if path.suffix == ".zst"]
    call(site, "status", "--check", code=10)
    assert not [path for path in gone if path.exists()]
    assert [path for path in kept if not path.exists()] == []


def test_what_a_run_has_under_way_is_left_to_it(site: Site) -> None:
    daily, event = (left(site.backups / folder, ".tmp-old") for folder in ("daily", "event-triggered"))
    with lock_held(site):
        call(site, "status", "--check", code=10)
    assert daily.exists()
    assert not event.exists()


def test_where_nothing_lies_no_lock_is_taken(site: Site) -> None:
    """Who would not wait for it, as the merging of the archive, would lose a day."""
    (site.backups / "wal").mkdir(parents=True)
    call(site, "status", "--check", code=10)
    assert not (site.state / "wal.lock").exists()


def test_one_that_cannot_be_removed_is_told_behind_the_verdict(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = left(site.backups / "daily", ".tmp-old")

    def fail(path: Path, *, missing_ok: bool = False) -> None:  # noqa: ARG001
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(OSError, match="Input/output error"):
        health.check(site, health.assess(site, datetime.now(UTC)))
    assert stuck.exists()
    record = runs.read(site.state, "check")
    assert record is not None
    assert record.latest.state == runs.FAILED  # as it judged, of jobs that never ran
    assert "never run" in record.latest.message


def test_a_site_without_a_folder_of_backups_can_be_checked(site: Site) -> None:
    assert asked(site, "status", "--check", code=10)["data"]["findings"]
