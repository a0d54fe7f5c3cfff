"""Rotation as an operator sees it: what is refused, what is left alone, what the archives are called and hold."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.errors import NotPermittedError, PortfolioOpsError, RefusedError
from portfolio_ops.host import messages
from portfolio_ops.jobs.rotate import rotate_logs
from portfolio_ops.logs.archive import stem_of
from portfolio_ops.store.artifact import Kind

COLLAPSING = ("ext4", "xfs")
LINE = b"a line of some length, so that blocks fill\n"

_HOLDER = "import os, sys; os.open(sys.argv[1], int(sys.argv[2])); print(flush=True); sys.stdin.read()"


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "bigalloc"])
def test_whole_lines_go_and_the_file_stays(kind: str, yard_on: Callable[..., Any]) -> None:
    yard = yard_on(kind)
    yard.append(b"x\n")
    yard.log.chmod(0o604)
    os.chown(yard.log, 1001, 1002)
    before = yard.log.stat()
    written = b"x\n" + yard.append(LINE * 3000 + b"half a li")
    made = yard.rotate()
    yard.append(b"ne\n")
    after = yard.log.stat()
    assert yard.archived() == written[: -len(b"half a li")]
    assert (after.st_ino, after.st_mode, after.st_uid, after.st_gid) == (
        before.st_ino,
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    if kind in COLLAPSING:
        assert after.st_size < 5000  # at most the last block and what is kept to know the file by
        assert not yard.journal.of(messages.LOSS_WINDOW)
    yard.rotate()
    assert yard.archived() == written + b"ne\n"
    assert made[0].metadata.details["lines"] == 3001


@pytest.mark.parametrize("kind", ["btrfs", "tmpfs"])
def test_where_nothing_can_collapse_the_window_of_loss_is_measured_and_said(
    kind: str, yard_on: Callable[..., Any]
) -> None:
    yard = yard_on(kind)
    yard.append(LINE * 3000)
    yard.rotate()
    [(text, fields)] = yard.journal.of(messages.LOSS_WINDOW)
    assert 0 < fields["window_ns"] < 50_000_000
    assert "would be lost" in text
    assert yard.log.stat().st_size == 0


def test_a_second_rotation_of_a_day_overwrites_nothing(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("ext4")
    for number in range(3):
        yard.append(LINE * (number + 1))
        yard.rotate()
    names = sorted(artifact.path.name for artifact in yard.archives())
    assert len(names) == 3
    assert names[0].startswith("backend-")
    assert yard.archived() == LINE * 6


def test_the_archive_opens_with_the_plain_program(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("xfs")
    yard.append(LINE * 500)
    [artifact] = yard.rotate()
    done = subprocess.run(["zstd", "-dc", str(artifact.path)], capture_output=True, check=True)
    assert done.stdout == LINE * 500


def test_a_missing_and_an_empty_log_are_no_failure(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("ext4")
    assert yard.rotate() == []
    yard.log.touch()
    assert yard.rotate() == []
    yard.append(b"no line yet")
    assert yard.rotate() == []
    assert len(yard.journal.of(messages.NOTHING_TO_ROTATE)) == 3
    assert yard.log.read_bytes() == b"no line yet"


@pytest.mark.parametrize(
    ("flags", "safe"),
    [(os.O_WRONLY, False), (os.O_RDWR, False), (os.O_WRONLY | os.O_APPEND, True), (os.O_RDONLY, True)],
)
def test_a_writer_without_append_is_refused_by_name(flags: int, safe: bool, yard_on: Callable[..., Any]) -> None:
    yard = yard_on("ext4")
    yard.append(LINE * 500)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(yard.log), str(flags)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        if safe:
            assert len(yard.rotate()) == 1
        else:
            with pytest.raises(RefusedError, match=f"without O_APPEND by process {holder.pid}") as caught:
                yard.rotate()
            assert ">>" in caught.value.suggestion
            assert yard.log.read_bytes() == LINE * 500
            assert yard.archives() == []
        holder.communicate()


def test_a_symlink_out_of_the_site_is_refused_and_one_inside_is_followed(
    yard_on: Callable[..., Any], tmp_path: Path
) -> None:
    yard = yard_on("ext4")
    outside = tmp_path / "shadow"
    outside.write_bytes(LINE * 500)
    yard.log.symlink_to(outside)
    with pytest.raises((RefusedError, PortfolioOpsError)):
        yard.rotate()
    assert outside.read_bytes() == LINE * 500
    yard.log.unlink()
    (yard.log.parent.parent / "elsewhere").symlink_to(tmp_path)
    yard.log.symlink_to(yard.log.parent.parent / "elsewhere/shadow")
    with pytest.raises((RefusedError, PortfolioOpsError)):
        yard.rotate()
    assert outside.read_bytes() == LINE * 500


def test_a_hard_link_a_pipe_and_a_folder_are_refused(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("ext4")
    yard.append(LINE * 500)
    os.link(yard.log, yard.log.with_name("other"))
    with pytest.raises(RefusedError, match="hard links"):
        yard.rotate()
    assert yard.log.read_bytes() == LINE * 500
    yard.log.unlink()
    os.mkfifo(yard.log)
    with pytest.raises(RefusedError):
        yard.rotate()
    yard.log.unlink()
    yard.log.mkdir()
    with pytest.raises(RefusedError):
        yard.rotate()


def test_a_log_that_others_truncate_or_replace_begins_anew(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("ext4")
    yard.append(LINE * 500)
    yard.rotate()
    os.truncate(yard.log, 0)
    yard.append(b"after\n" * 10)
    yard.rotate()
    yard.log.rename(yard.log.with_suffix(".old"))
    yard.append(b"new\n" * 10)
    yard.rotate()
    assert yard.archived() == LINE * 500 + b"after\n" * 10 + b"new\n" * 10
    assert len({artifact.metadata.details["stream"] for artifact in yard.archives()}) == 3


def test_a_full_disk_publishes_nothing_and_loses_nothing(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("small")
    written = yard.append(os.urandom(5 << 20).replace(b"\n", b" ") + b"\n")
    filler = yard.log.with_name("filler")
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64K"], stderr=subprocess.DEVNULL, check=False)
    with pytest.raises((PortfolioOpsError, OSError)):
        yard.rotate()
    assert yard.log.read_bytes() == written
    assert list(yard.folder.iterdir()) == []
    filler.unlink()
    yard.rotate()
    assert yard.archived() == written


def test_several_logs_of_one_name_do_not_meet(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("ext4", logs=("logs/backend.log", "old/backend.log", "logs/backend.txt"))
    for number, log in enumerate(yard.site.logs):
        log.parent.mkdir(exist_ok=True)
        yard.append(b"%d\n" % number * 2000, log)
        yard.rotate(log)
    stems = sorted(artifact.path.name.rsplit("-", 3)[0] for artifact in yard.archives())
    assert stems == ["logs-backend", "logs-backend.txt", "old-backend"]


def test_stems_are_safe_names() -> None:
    assert stem_of("logs/backend.log", ["logs/backend.log"]) == "backend"
    assert stem_of("logs/.tmp-x.log", []) == "tmp-x"
    assert stem_of("logs/…/☃.log", []) == "log"
    assert len(stem_of(f"{'a' * 250}.log", [])) <= 100


def test_the_job_rotates_the_others_when_one_is_refused_and_prunes_nothing(yard_on: Callable[..., Any]) -> None:
    from datetime import timedelta  # noqa: PLC0415

    yard = yard_on("ext4", logs=("logs/a.log", "logs/b.log"))
    for log in yard.site.logs:
        yard.append(LINE * 500, log)
    os.link(yard.site.logs[0], yard.site.root / "second-name")
    with pytest.raises(PortfolioOpsError, match="hard links"):
        rotate_logs(yard.site, wait=timedelta())
    [artifact] = yard.archives()
    assert artifact.path.name.startswith("b-")
    assert artifact.metadata.kind is Kind.LOGS


def test_without_permission_the_error_tells_whose_it_is(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("ext4")
    yard.append(LINE * 500)
    yard.log.chmod(0o400)
    os.chown(yard.log, 1001, 1001)
    child = os.fork()
    if child == 0:
        os.setresuid(1002, 1002, 1002)
        try:
            yard.rotate()
        except NotPermittedError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert yard.log.read_bytes() == LINE * 500
    assert threading.active_count() == 1
