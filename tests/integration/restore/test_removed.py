"""A live database that is removed, or replaced, under a process that has it open: nobody ends that unwarned."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.errors import RefusedError
from portfolio_ops.jobs import exchange, restore
from portfolio_ops.restore.plan import choose
from portfolio_ops.sqlite import removed
from tests.conftest import make_database
from tests.integration.restore.conftest import Stage
from tests.require import require_root

LATE = "INSERT INTO comments(id, image, body) VALUES(9999, 1, 'since it was removed')"


def remove(database: Path) -> None:
    database.unlink()


def remove_all(database: Path) -> None:
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()


def replace(database: Path) -> None:
    shutil.copy(database, database.with_name("new"))
    database.with_name("new").rename(database)


def remove_folder(database: Path) -> None:
    shutil.rmtree(database.parent)


def findings(stage: Stage) -> list[str]:
    found: list[str] = stage.asked("status", code=10)["data"]["findings"]
    return found


@pytest.mark.parametrize("act", [remove, remove_all, replace, remove_folder])
def test_who_has_it_open_is_named_with_all_that_rescues_it(
    stage: Stage, elsewhere: Callable[..., Any], act: Callable[[Path], None]
) -> None:
    database = stage.site.database
    stage.call("backup", "daily")
    program = elsewhere(database)
    program.execute("INSERT INTO comments(id, image, body) VALUES(9998, 1, 'in the WAL')")
    act(database)
    program.execute(LATE)
    [found] = [each for each in findings(stage) if f"(process {program.process.pid}) has " in each]
    assert "do NOT stop it yet: " in found
    looked = stage.asked("doctor", code=10)["data"]["findings"]
    [advised] = [each for each in looked if f"(process {program.process.pid}) has " in each["text"]]
    assert (advised["level"], advised["subject"]) == ("fault", "database")
    assert f"{advised['text']}; {advised['cure']}" == found
    if act is not replace:
        said = stage.asked("backup", "daily", code=6)["errors"][0]
        assert f"{said['message']}; {said['suggestion']}" == found
    with shell() as run:
        hold, copy, place = commands_of(advised["cure"])
        run(hold)
        program.execute("INSERT INTO comments(id, image, body) VALUES(10000, 1, 'while it was held')")
        program.kill()
        assert run(copy)[-1] == "ok"
        run(place)
    with contextlib.closing(sqlite3.connect(database)) as rescued:
        assert rescued.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert rescued.execute("SELECT id FROM comments WHERE id > 9000").fetchall() == [(9998,), (9999,), (10000,)]
    assert removed.look(database) is None
    assert not [*database.parent.glob("rescued-*")]
    assert database.parent.stat().st_uid == database.stat().st_uid


def test_a_wal_that_stayed_behind_is_not_replayed_over_what_is_rescued(
    stage: Stage, elsewhere: Callable[..., Any]
) -> None:
    """The WAL keeps its name where the database alone is removed; whoever looks at a copy takes the copy's away."""
    database = stage.site.database
    program = elsewhere(database)
    program.execute("INSERT INTO comments(id, image, body) VALUES(9998, 1, 'in the WAL')")
    database.unlink()
    for number in range(300):  # a WAL of the removed database that is begun anew behind the copy of the file
        program.execute(f"INSERT INTO comments(image, body) VALUES({number}, '{'x' * 3000}')")
    found = removed.look(database)
    assert found is not None
    with shell() as run:
        hold, copy, place = commands_of(found.cure)
        run(hold)
        program.kill()
        assert database.with_name(f"{database.name}-wal").exists()
        assert run(copy)[-1] == "ok"
        run(place)
    assert sorted(path.name for path in (database.parent / "before-rescue").iterdir()) == [
        f"{database.name}-shm",
        f"{database.name}-wal",
    ]
    with contextlib.closing(sqlite3.connect(database)) as rescued:
        assert rescued.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert rescued.execute("SELECT count(*) FROM comments").fetchone() == (351,)


def commands_of(cure: str) -> tuple[str, str, str]:
    """What a shell of root's is told: to hold the file, to copy it, to put the copy in its place."""
    found = re.fullmatch(
        r"do NOT stop it yet: first let a shell of root's hold it: (.*); then stop the site; then in the same shell: "
        r"(.*); if it is ok: (.*); then start the site, and leave that shell",
        cure,
    )
    assert found is not None, cure
    return found[1], found[2], found[3]


@contextlib.contextmanager
def shell() -> Iterator[Callable[[str], list[str]]]:
    """One shell for all commands; each gives the lines that it said, and has to succeed."""
    with subprocess.Popen(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to, of = process.stdin, process.stdout

        def run(command: str) -> list[str]:
            to.write(f"{command}; echo done $?\n")
            lines = [*iter(lambda: of.readline().rstrip("\n"), "done 0")] if process.poll() is None else []
            assert "" not in lines, f"{command} failed: {lines}"
            return lines

        yield run


@pytest.mark.parametrize("act", [remove, replace])
def test_a_restore_does_not_stop_a_site_that_alone_has_its_database(live: Stage, act: Callable[[Path], None]) -> None:
    pid = (live.folder / "pid").read_text()
    act(live.site.database)
    for words in (("--dry-run",), ("--yes",)):
        refused = live.asked("restore", "database", "--in-place", *words, code=4)["errors"][0]
        assert f"(process {pid}) has " in refused["message"]
        assert "for a restore it would have to end, and all of that with it" in refused["message"]
        assert f": exec 7</proc/{pid}/fd/" in refused["suggestion"]
        assert "If nothing of it is wanted: stop the site yourself" in refused["suggestion"]
    assert not (live.folder / "stops").exists()
    live.control("stop")
    live.call("restore", "database", "--in-place", "--yes")
    assert live.rows() == 50


def test_one_that_is_removed_while_a_restore_is_staged_stops_nothing(
    live: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    dressed = exchange._dressed

    def removing(database: Path) -> list[str]:
        notes = dressed(database)
        database.unlink()
        return notes

    monkeypatch.setattr(exchange, "_dressed", removing)
    with (
        restore.alone(live.site, wait=timedelta()) as log,
        pytest.raises(RefusedError, match="for a restore it would have to end") as refused,
    ):
        restore.restore_in_place(live.site, choose(live.site, "latest"), log, force="")
    assert "the former state is in place, and nothing was stopped: " in refused.value.message
    assert "do NOT stop it" in refused.value.suggestion
    assert not (live.folder / "stops").exists()
    assert restore.was_put_back(live.site)
    assert not live.site.database.exists()


def test_an_interruption_just_before_the_stop_waits_for_none(
    live: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exchange, "require_none_removed", interrupted)
    began = time.monotonic()
    with restore.alone(live.site, wait=timedelta()) as log, pytest.raises(KeyboardInterrupt):
        restore.restore_in_place(live.site, choose(live.site, "latest"), log, force="")
    assert time.monotonic() - began < live.site.backend.patience.total_seconds()
    assert "and nothing was stopped: it was interrupted" in capsys.readouterr().err
    assert live.runs


@pytest.mark.parametrize("act", [replace, remove_folder])
def test_a_container_knows_its_folder_by_another_path(
    stage: Stage, tmp_path: Path, act: Callable[[Path], None]
) -> None:
    require_root("a mount of its own")
    inside = tmp_path / "inside"
    inside.mkdir()
    code = f"import time; file = open('{inside}/portfolio.sqlite'); print(flush=True); time.sleep(600)"
    command = ["unshare", "-m", "sh", "-c", 'mount --bind "$1" "$2" && exec "$3" -c "$4"', "sh"]
    with subprocess.Popen([*command, stage.data, inside, sys.executable, code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            act(stage.site.database)
            found = removed.look(stage.site.database)
            assert found is not None
            assert f"(process {process.pid})" in found.text
            assert removed.look(stage.site.database, but=process.pid) is None
        finally:
            process.send_signal(signal.SIGKILL)


def test_one_of_another_site_is_not_taken_for_it(stage: Stage, tmp_path: Path, elsewhere: Callable[..., Any]) -> None:
    other = tmp_path / "other" / stage.site.database.name
    other.parent.mkdir()
    shutil.copy(stage.site.database, other)
    program = elsewhere(other)
    program.execute("SELECT count(*) FROM comments")
    other.unlink()
    assert removed.look(other) is not None
    assert removed.look(stage.site.database) is None
    remove(stage.site.database)
    assert removed.look(stage.site.database) is None
    shutil.rmtree(other.parent)
    assert removed.look(stage.site.database) is None
    remove_folder(stage.site.database)
    assert removed.look(stage.site.database) is None


def test_one_that_has_another_name_is_not_lost(stage: Stage, elsewhere: Callable[..., Any]) -> None:
    program = elsewhere(stage.site.database)
    program.execute("SELECT count(*) FROM comments")
    os.link(stage.site.database, stage.data / "second-name")
    remove(stage.site.database)
    assert removed.look(stage.site.database) is None
    (stage.data / "second-name").unlink()
    assert removed.look(stage.site.database) is not None


def test_a_database_that_is_gone_is_told_where_nobody_is_seen_to_have_it(stage: Stage) -> None:
    words = f"there is no database at {stage.site.database}"
    remove_all(stage.site.database)
    assert words not in "\n".join(findings(stage))  # there may never have been one
    make_database(stage.site.database)
    stage.call("backup", "daily")
    remove_all(stage.site.database)
    assert words in "\n".join(findings(stage))
    assert f"before `portfolio-ops --config {stage.file} doctor`" in stage.call("backup", "daily", code=6).stderr
