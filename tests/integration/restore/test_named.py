"""Files that a person names for a restore and that are not what it takes: each is called what it is, with a way on."""

import contextlib
import os
import shlex
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.integration.restore.conftest import Stage
from tests.require import require_root

OWNER = 4242


@pytest.fixture
def daily(stage: Stage) -> Path:
    """The one daily backup of a site."""
    stage.call("backup", "daily")
    [path] = (stage.site.backups / "daily").iterdir()
    return path


@pytest.mark.usefixtures("daily")
def test_a_plain_database_is_called_one(stage: Stage, tmp_path: Path) -> None:
    plain = tmp_path / "plain one.sqlite"
    shutil.copy(stage.site.database, plain)
    for to in (("--to", str(tmp_path / "new")), ("--in-place", "--yes")):
        done = stage.call("restore", "database", str(plain), *to, code=4)
        assert f"error: {plain} is a plain SQLite database, no artifact" in done.stderr
        assert "docs/how-to/restore-by-hand.md" in done.stderr
        assert "move it away" not in done.stderr
    check = done.stderr.partition("try: ")[2].partition(";")[0]
    assert subprocess.run(shlex.split(check), capture_output=True, check=True).stdout == b"ok\n"


@pytest.mark.usefixtures("daily")
def test_a_packed_database_is_unpacked_first(stage: Stage, tmp_path: Path) -> None:
    packed = tmp_path / "old.sqlite.gz"
    packed.write_bytes(subprocess.run(["gzip", "-c", stage.site.database], capture_output=True, check=True).stdout)
    done = stage.call("restore", "database", str(packed), "--to", str(tmp_path / "new"), code=4)
    assert "is compressed by another program" in done.stderr
    subprocess.run(shlex.split(done.stderr.partition("unpack it first: ")[2].partition(";")[0]), check=True)
    with sqlite3.connect(tmp_path / "old.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM images").fetchone()[0] > 0


def given_away(stage: Stage) -> None:
    """To another user, who may come to it."""
    for path in [stage.site.root, *stage.site.root.rglob("*")]:
        os.chown(path, OWNER, OWNER)
    for parent in stage.site.root.parents:
        if str(parent).startswith("/tmp/") and parent.stat().st_uid == os.geteuid():  # noqa: S108
            parent.chmod(0o755)


def test_a_truncated_artifact_is_called_damaged(daily: Path, stage: Stage, tmp_path: Path) -> None:
    os.truncate(daily, daily.stat().st_size - 5)
    for reference in (daily.name, daily.name.partition(".")[0]):
        done = stage.call("restore", "database", reference, "--to", str(tmp_path / "new"), code=9)
        assert f"{daily.name} lies there, and is damaged" in done.stderr
    done = stage.call("restore", "database", str(daily), "--to", str(tmp_path / "new"), code=9)
    assert "cut short, damaged, or of another tool" in done.stderr
    assert f"`zstd -t {daily}`" in done.stderr
    assert "move it away" not in done.stderr


@pytest.mark.parametrize("ago", [0, 3600])
def test_a_damaged_artifact_goes_into_quarantine(daily: Path, stage: Stage, ago: int) -> None:
    sound = daily.with_name("portfolio-2026-01-01.sqlite.zst")
    shutil.copy(daily, sound)
    others = [daily.with_name(name) for name in ("portfolio-2020-01-01.sqlite.gz", "dump.sqlite.zst", "empty")]
    for path in (daily, *others):
        path.write_bytes(b"\x28\xb5\x2f\xfd half of something" * 9)
        os.utime(path, (0, path.stat().st_mtime - ago))
    assert (
        f"{daily} does not end as an artifact does; `portfolio-ops --config {stage.site.file} verify --all` moves it to"
        in stage.call("status", code=10).stdout
    )
    done = stage.call("verify", "--all", code=9)
    moved = stage.site.backups / "quarantine" / daily.name
    assert daily.exists() is (ago == 0)
    assert moved.exists() is (ago > 0)
    assert ("may be being copied" in done.stderr) is (ago == 0)
    assert (f"moved to {moved}" in done.stderr) is (ago > 0)
    assert all(path.exists() for path in (sound, *others))
    assert "sound" in done.stdout


@pytest.mark.usefixtures("daily")
def test_what_is_no_database_is_called_by_its_own_name(stage: Stage, tmp_path: Path) -> None:
    stage.call("backup", "social")
    other = tmp_path / "notes.toml"
    other.write_text("[notes]\n" * 100)
    done = stage.call("restore", "social", "--into", str(other), "--yes", code=4)
    assert f"{other} is not a SQLite database" in done.stderr
    assert "is it the right file?" in done.stderr


def test_a_folder_in_the_place_of_the_database_is_called_one(stage: Stage) -> None:
    require_root("a database of another user")
    stage.site.database.unlink()
    stage.site.database.mkdir()
    given_away(stage)
    os.chown(stage.site.database, 0, 0)
    done = stage.call("backup", "daily", code=4)
    assert f"{stage.site.database} is a folder" in done.stderr


def test_a_plan_names_who_has_the_database_open_and_does_not_deny_it(stage: Stage, daily: Path) -> None:
    stage.file.write_text(f'[site]\nroot = "{stage.site.root}"\n')
    words = ("restore", "database", daily.name, "--in-place", "--dry-run")
    assert "nobody has the database open" in stage.call(*words).stdout
    with contextlib.closing(sqlite3.connect(stage.site.database)) as connection:
        connection.execute("SELECT count(*) FROM images")
        done = stage.call(*words, code=4)
    assert f"(process {os.getpid()})" in done.stdout
    assert "nothing: [backend] does not say how\n" in done.stdout


def test_an_artifact_of_another_kind_is_called_so(daily: Path, stage: Stage) -> None:
    done = stage.call("restore", "social", daily.name, code=2)
    assert f"{daily.name} holds daily, not social tables" in done.stderr


def test_what_only_root_may_read_is_handed_over(daily: Path, stage: Stage, tmp_path: Path) -> None:
    require_root("a file that only root may read")
    stage.call("backup", "social")
    [export] = (stage.site.backups / "social").iterdir()
    given_away(stage)
    tmp_path.chmod(0o777)
    roots = tmp_path / "root's"
    roots.mkdir(mode=0o700)
    for carried, words in ((daily, ("database",)), (export, ("social",))):
        shutil.copy(carried, roots)
        into = ("--to" if carried is daily else "--into", str(tmp_path / f"new-{words[0]}"))
        done = stage.call("restore", *words, str(roots / carried.name), *into, code=3)
        assert f"may not be opened by uid {OWNER}, the owner of the site's data" in done.stderr
        command, _, then = done.stderr.partition("try: ")[2].strip().partition("; then name ")
        subprocess.run(shlex.split(command), check=True)
        try:
            stage.call("restore", *words, then, *into)
        finally:
            Path(then).unlink()
