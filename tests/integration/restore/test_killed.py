"""A restore in place killed anywhere: one database is in place, whole; the next command says which and finishes.

The places are not listed by hand: a child counts what it does in the modules that change something (`bomb.py`), and
kills itself where it was told.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from portfolio_ops import config
from portfolio_ops.cli.main import run
from portfolio_ops.config import Site
from portfolio_ops.errors import RefusedError
from portfolio_ops.host.backend import BackendError
from portfolio_ops.jobs import restore
from portfolio_ops.jobs.daily import backup_daily
from portfolio_ops.store import catalogue
from tests.integration.bomb import EVERY, in_child

_CHANGING = (
    "jobs/restore.py",
    "jobs/exchange.py",
    "restore/swap.py",
    "restore/record.py",
    "restore/stage.py",
    "restore/work.py",
    "host/files.py",
)


def _restore(site: Site) -> None:
    artifact = catalogue.find(catalogue.scan(site.backups, site.name), "latest")
    with restore.alone(site, wait=timedelta()) as log:
        restore.restore_in_place(site, artifact, log, force="")


def _with_backend(site: Site, folder: Path, start: list[str] | None = None) -> Site:
    """A backend that is a file: it runs while the file is there."""
    flag = folder / "runs"
    flag.touch()
    words = {
        "stop": ["rm", "-f", str(flag)],
        "start": start or ["touch", str(flag)],
        "status": ["test", "-e", str(flag)],
    }
    lines = [f"{verb} = {json.dumps(argv)}" for verb, argv in words.items()]
    site.file.write_text("\n".join([f'[site]\nroot = "{site.root}"', "[backend]", *lines, ""]))
    return config.load(site.file)


def _live_state(site: Site, template: Path, *, damaged: bool, but: Path | None = None) -> None:
    """The live database as a crashed site leaves it: the newest commits are in the WAL only."""
    for path in site.database.parent.iterdir():
        if path == but:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in template.iterdir():
        shutil.copy(path, site.database.parent)
    if damaged:
        site.database.write_bytes(b"damaged" * 1000)


def _what_is_live(site: Site) -> str:
    """`old` with its last commit, `new`, or `damaged`; anything else is a failure."""
    if site.database.read_bytes().startswith(b"damaged"):
        assert site.database.with_name(f"{site.database.name}-wal").stat().st_size > 0
        return "damaged"
    look = site.root.parent / "look"
    shutil.rmtree(look, ignore_errors=True)
    look.mkdir()
    for ending in ("", "-wal", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(f"{site.database}{ending}", look / f"copy{ending}")
    with contextlib.closing(sqlite3.connect(look / "copy")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute("SELECT count(*), max(id) FROM comments").fetchone()
    return {(50, 50): "new", (41, 9999): "old"}[rows]


def _make_template(site: Site, folder: Path) -> None:
    """What a site leaves that was killed with a WAL: ten comments fewer than in the backup, and one more at last."""
    folder.mkdir()
    writer = os.fork()
    if writer == 0:
        connection = sqlite3.connect(site.database)
        connection.execute("DELETE FROM comments WHERE id <= 10")
        connection.execute("INSERT INTO comments(id, image, body) VALUES(9999, 1, 'the last commit')")
        connection.commit()
        for ending in ("", "-wal"):
            shutil.copy(f"{site.database}{ending}", folder)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(writer, 0)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["sound", "damaged", "sick"])
def test_killed_at_any_event_one_of_both_is_whole(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: str
) -> None:
    """`sick`: the backend does not start with the restored database, so that all is put back; killed then too."""
    monkeypatch.setattr("portfolio_ops.host.backend._STILL_RUNNING", 0.0)
    backup_daily(site, wait=timedelta())
    template, former = tmp_path / "template", site.database.with_name("second-name")  # elsewhere it would be refused
    _make_template(site, template)
    starts = f"test {site.database} -ef {former} && touch {tmp_path / 'runs'}"
    site = _with_backend(site, tmp_path, ["sh", "-c", starts] if scenario == "sick" else None)
    before = "damaged" if scenario == "damaged" else "old"
    fuse, events, seen = 1 - EVERY, 0, set()

    def work() -> None:
        with contextlib.suppress(BackendError):
            _restore(site)

    while not events:
        fuse += EVERY
        _live_state(site, template, damaged=scenario == "damaged")
        former.unlink(missing_ok=True)
        os.link(site.database, former)
        (tmp_path / "runs").touch()
        events = in_child(work, fuse, _CHANGING)
        found = "" if not events else before if scenario == "sick" else "new"
        if not events:
            if site.database.with_name(f"{site.database.name}-wal").exists() or scenario != "damaged":
                found = _what_is_live(site)
            with restore.alone(site, wait=timedelta()) as log:
                words = restore.finish_interrupted(site, log)
            found = found or _what_is_live(site)
            if words:
                assert ("restored database" in words) is (found == "new"), f"killed at event {fuse}"
                seen.add(words.partition(": ")[2].partition(";")[0])
        assert _what_is_live(site) == found, f"killed at event {fuse}"
        assert found in {before, "new"}
        assert (tmp_path / "runs").exists() or (scenario, found) == ("sick", "new"), f"killed at event {fuse}"
        assert restore.interrupted(site) is None
        kept = [path for path in site.database.parent.iterdir() if path.is_dir()]
        assert all(".before-restore-" in path.name for path in kept), f"killed at event {fuse}"
        if found == "new":
            assert restore.undoable(site).undo, f"killed at event {fuse}"
        for path in (site.backups / "event-triggered").glob("*"):
            path.unlink()
    assert seen == {"the restored database is in place", "the former state is in place"}
    assert fuse > 150


@pytest.mark.slow
def test_killed_at_any_event_of_a_return_to_raw_files(site: Site, tmp_path: Path) -> None:
    backup_daily(site, wait=timedelta())
    site.database.write_bytes(b"damaged" * 1000)
    side = site.database.with_name(f"{site.database.name}-wal")
    side.write_bytes(b"what it had besides")
    _restore(site)
    raw = Path(restore.undoable(site).undo)
    record = (site.state / "restore.json").read_bytes()
    (tmp_path / "new").mkdir()
    shutil.copy(site.database, tmp_path / "new")
    fuse, events, seen = 1 - EVERY, 0, set()

    def work() -> None:
        with restore.alone(site, wait=timedelta()) as log:
            restore.restore_raw(site, restore.undoable(site), log)

    while not events:
        fuse += EVERY
        side.unlink(missing_ok=True)
        _live_state(site, tmp_path / "new", damaged=False, but=raw)
        (site.state / "restore.json").write_bytes(record)
        for path in (site.backups / "event-triggered").glob("*"):  # each that there is makes events
            path.unlink()
        events = in_child(work, fuse, _CHANGING)
        with restore.alone(site, wait=timedelta()) as log:
            restore.finish_interrupted(site, log)
        seen.add(site.database.read_bytes()[:7])
        if site.database.read_bytes() == b"damaged" * 1000:
            assert side.read_bytes() == b"what it had besides", f"killed at event {fuse}"
        else:
            assert site.database.read_bytes() == (tmp_path / "new" / site.database.name).read_bytes()
            # Killed while SQLite had it open: it leaves an empty one.
            assert not side.exists() or side.stat().st_size == 0, f"killed at event {fuse}"
        assert (raw / site.database.name).read_bytes() == b"damaged" * 1000
        assert restore.interrupted(site) is None
    assert seen == {b"damaged", b"SQLite "}


@pytest.mark.slow
def test_a_wal_without_its_database_survives_a_death(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed anywhere, and taken back by the next command: what lay there lies there again, or is kept."""
    monkeypatch.setattr("portfolio_ops.host.backend._STILL_RUNNING", 0.0)
    backup_daily(site, wait=timedelta())
    site = _with_backend(site, tmp_path)
    side = site.database.with_name(f"{site.database.name}-wal")
    fuse, events = 1 - EVERY, 0
    while not events:
        fuse += EVERY
        for path in site.database.parent.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        side.write_bytes(b"precious")
        (site.state / "restore.json").unlink(missing_ok=True)
        events = in_child(lambda: _restore(site), fuse, _CHANGING)
        with restore.alone(site, wait=timedelta()) as log:
            restore.finish_interrupted(site, log)
        kept = [side, *site.database.parent.glob("*.before-restore-*/*.stray")]
        assert b"precious" in [path.read_bytes() for path in kept if path.exists()], f"killed at event {fuse}"
        if site.database.exists():
            assert not side.exists(), f"killed at event {fuse}"


def _die_with_the_new_one_in_place(site: Site) -> None:
    fuse = 100
    while True:
        in_child(lambda: _restore(site), fuse, _CHANGING)
        record = restore.interrupted(site)
        if record is not None and record.new is not None and site.database.stat().st_ino == record.new:
            return
        with restore.alone(site, wait=timedelta()) as log:
            restore.finish_interrupted(site, log)
        fuse += 4


def _lose_all_comments(site: Site) -> None:
    with contextlib.closing(sqlite3.connect(site.database)) as connection:
        connection.execute("DELETE FROM comments")
        connection.commit()


def test_a_volume_with_another_device_number_after_the_power_cut(tmp_path: Path, site: Site) -> None:
    """As a droplet's volumes may have after a reboot; what was in place is known all the same."""
    image, volume = tmp_path / "image", tmp_path / "volume"
    devices: list[str] = []
    subprocess.run(["truncate", "-s", "64M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", image], check=True)
    volume.mkdir()
    try:
        for _ in range(2):
            command = ["losetup", "--find", "--show", str(image)]
            devices.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        subprocess.run(["mount", devices[0], volume], check=True)
        shutil.copytree(site.root, volume / "site")
        site.file.write_text(f'[site]\nroot = "{volume / "site"}"\n')
        site = _with_backend(config.load(site.file), tmp_path)
        backup_daily(site, wait=timedelta())
        _lose_all_comments(site)
        _die_with_the_new_one_in_place(site)
        before = volume.stat().st_dev
        subprocess.run(["umount", volume], check=True)
        subprocess.run(["mount", devices[1], volume], check=True)
        assert volume.stat().st_dev != before
        with restore.alone(site, wait=timedelta()) as log:
            assert "the restored database is in place" in restore.finish_interrupted(site, log)
        assert restore.undoable(site).undo
    finally:
        subprocess.run(["umount", volume], check=False)
        for each in devices:
            subprocess.run(["losetup", "--detach", each], check=False)


def test_a_restore_that_died_meanwhile_is_not_forgotten(site: Site, tmp_path: Path) -> None:
    """Another one was begun, and died, while a person was asked about this one."""
    backup_daily(site, wait=timedelta())
    site = _with_backend(site, tmp_path)
    _die_with_the_new_one_in_place(site)
    record = restore.interrupted(site)
    with pytest.raises(RefusedError, match="was interrupted meanwhile"):
        _restore(site)
    assert restore.interrupted(site) == record


@pytest.mark.parametrize("start", ["touch", "false"])
def test_the_command_line_says_what_it_finished(
    site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str], start: str
) -> None:
    """Died with the new database in place: undo finishes, and then undoes, even if the backend cannot be started."""
    backup_daily(site, wait=timedelta())
    site = _with_backend(site, tmp_path)
    _lose_all_comments(site)
    _die_with_the_new_one_in_place(site)
    site = _with_backend(site, tmp_path, [start, str(tmp_path / "runs")])
    (tmp_path / "runs").unlink()
    assert run(["--config", str(site.file), "status"]) == 10
    assert "was interrupted" in capfd.readouterr().out
    assert run(["--config", str(site.file), "restore", "undo", "--dry-run"]) == 4
    assert run(["--config", str(site.file), "restore", "undo", "--yes"]) == 0
    said = capfd.readouterr().out
    assert "the restored database is in place" in said
    assert ("could not be started" in said) is (start == "false")
    with contextlib.closing(sqlite3.connect(site.database)) as connection:
        assert connection.execute("SELECT count(*) FROM comments").fetchone() == (0,)


def _copied(site: Site, folder: Path) -> Site:
    """The whole site, copied to another place; the former one stays."""
    folder.mkdir()
    shutil.copytree(site.root, folder / "site")
    file = folder / site.file.name
    file.write_text(site.file.read_text().replace(str(site.root), str(folder / "site")))
    return config.load(file)


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_in_a_copy_of_a_site_an_interrupted_restore_is_the_former_sites(
    site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backup_daily(site, wait=timedelta())
    site = _with_backend(site, tmp_path)
    _die_with_the_new_one_in_place(site)
    copy = _copied(site, tmp_path / "copy")
    before = _contents(site.root), _contents(copy.database.parent)
    for words in (["restore", "undo"], ["restore", "database", "latest", "--in-place"]):
        assert run(["--config", str(copy.file), *words, "--yes"]) == 4
        said = capfd.readouterr().err
        assert f"tells of {site.database}" in said
        assert f"delete {copy.state / 'restore.json'}" in said
    assert (_contents(site.root), _contents(copy.database.parent)) == before
    (copy.state / "restore.json").unlink()
    shutil.rmtree(copy.database.parent / ".portfolio-ops-restore")
    assert run(["--config", str(copy.file), "restore", "database", "latest", "--in-place", "--yes"]) == 0
    assert _contents(site.root) == before[0]


def test_in_a_copy_of_a_site_raw_files_are_the_former_sites(
    site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backup_daily(site, wait=timedelta())
    site.database.write_bytes(b"damaged" * 1000)
    _restore(site)
    copy = _copied(site, tmp_path / "copy")
    before = _contents(site.root), _contents(copy.database.parent)
    assert run(["--config", str(copy.file), "restore", "undo", "--yes"]) == 4
    assert f"tells of {site.database}" in capfd.readouterr().err
    assert (_contents(site.root), _contents(copy.database.parent)) == before
    assert run(["--config", str(site.file), "restore", "undo", "--yes"]) == 0
    assert site.database.read_bytes() == b"damaged" * 1000


@pytest.mark.parametrize("has_come", [True, False])
def test_a_backend_that_is_not_configured_any_more_is_not_started_and_that_is_said(
    site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str], *, has_come: bool
) -> None:
    backup_daily(site, wait=timedelta())
    site = _with_backend(site, tmp_path)
    _die_with_the_new_one_in_place(site)
    if not has_come:
        record = json.loads((site.state / "restore.json").read_bytes())
        (site.state / "restore.json").write_text(json.dumps({**record, "new": 0}))
        shutil.rmtree(site.database.parent / ".portfolio-ops-restore")
    site.file.write_text(f'[site]\nroot = "{site.root}"\n')
    assert run(["--config", str(site.file), "restore", "undo", "--yes"]) == 0
    said = capfd.readouterr()
    assert ("restored database is in place" if has_come else "former state is in place") in said.out
    assert "the backend ran before, and is not started again: there is no [backend]" in said.out
    assert "the backend ran before, and is not started again: there is no [backend]" in said.err
