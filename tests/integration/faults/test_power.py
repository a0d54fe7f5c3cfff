"""The power is cut, at each system call of a job that changes something, and under a site that writes.

A filesystem on a loop device is shut down without flushing its log: what was not synced is lost, as it is when the
power goes; then it is mounted again. (The disk's own cache is not lost, and no sector is torn.)
"""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.jobs.archive import archive
from portfolio_ops.jobs.rotate import rotate_logs
from portfolio_ops.moment import exact
from portfolio_ops.restore import points
from portfolio_ops.restore.audit import State as Found
from portfolio_ops.restore.audit import audit
from tests.integration.faults.disk import Disk
from tests.integration.faults.harness import CHANGES, Yard
from tests.integration.faults.test_faults import CASES, EVERY, chosen, require_held

WAIT = timedelta(minutes=1)

_WRITER = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA synchronous=" + sys.argv[2])
connection.execute("CREATE TABLE IF NOT EXISTS acked(n INTEGER PRIMARY KEY)")
number = connection.execute("SELECT ifnull(max(n), 0) FROM acked").fetchone()[0]
while True:
    number += 1
    connection.execute("INSERT INTO acked VALUES(?)", (number,))
    os.write(1, b"%d\\n" % number)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_cut_at_whatever_a_job_changes_nothing_is_lost(name: str, disk: Disk, tmp_path: Path) -> None:
    yard = Yard(tmp_path, *CASES[name], disk.place)
    cuts, before = 0, yard.before()
    for step in chosen([step for step in yard.steps() if step.call in CHANGES]):
        case = f"{name}: cut at {step}"
        yard.lay_out()
        disk.sync()
        cuts += _cut_at(yard, disk, f"{step.call}:signal=SIGSTOP:when={step.number}")
        require_held(yard, name, before, case)
    assert cuts


def _cut_at(yard: Yard, disk: Disk, inject: str) -> bool:
    """Stop the job at a call, cut the power, and come back; gives whether it was stopped there."""
    with yard.begun(inject) as process:
        deadline = time.monotonic() + 60
        while not (stopped := "stopped by SIGSTOP" in yard.trace()) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        disk.cut()
        # All that strace followed, and first: what is stopped would keep the pipes open.
        for pid in {line.split()[0] for line in yard.trace().splitlines() if line}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        process.kill()
        process.communicate()
    disk.exchange()
    return stopped


def test_what_somebody_has_open_on_a_disk_that_died_is_no_log(disk: Disk, site: Site) -> None:
    with (disk.place / "open").open("w") as file, subprocess.Popen(["sleep", "60"], stdout=file) as holder:
        try:
            disk.cut()
            [made] = rotate_logs(site, wait=WAIT).made
        finally:
            holder.kill()
    assert made.metadata.details["lines"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_cut_under_load_the_archive_goes_on_or_says_that_it_begins_anew(
    disk: Disk, tmp_path: Path, synchronous: str
) -> None:
    seed = random.randrange(1 << 32)
    chooser = random.Random(seed)
    yard = Yard(tmp_path, ["archive", "run"], lambda yard: archive(yard.site, once=True, wait=WAIT), disk.place)
    yard.lay_out()
    disk.sync()
    most = 0
    for cut in range(max(2, 40 // EVERY)):
        case = f"seed {seed}, cut {cut}"
        with _writing(yard.site.database, synchronous) as writer, yard.begun(traced=False) as archiver:
            time.sleep(0.5 + 2.5 * chooser.random())
            acked = _said(writer)  # a commit that is under way at the cut may be told as good, and is not
            most = max(most, acked)
            disk.cut()
            _killed(writer)
            _killed(archiver)
        disk.exchange()
        connection = sqlite3.connect(yard.site.database)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], case
        found = connection.execute("SELECT ifnull(max(n), 0) FROM acked").fetchone()[0]
        connection.close()
        assert found >= acked or synchronous == "NORMAL", case
        archive(yard.site, once=True, wait=WAIT)
        pieces, damaged = audit(yard.site)
        assert not damaged, (case, damaged)
        assert all(piece.state is not Found.LOST for piece in pieces), (case, pieces)
        target = tmp_path / "restored"
        target.unlink(missing_ok=True)
        last = exact(points.windows(yard.site)[-1].last)
        restored = subprocess.run(
            [*_OURS, "--config", str(yard.file), "restore", "database", "--at", last, "--to", str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert restored.returncode == 0, (case, restored.stderr)
        connection = sqlite3.connect(target)
        assert connection.execute("SELECT count(*), ifnull(max(n), 0) FROM acked").fetchone() == (found, found), case
        connection.close()
    assert most > 0


_OURS = [sys.executable, "-c", "from portfolio_ops.cli.main import main; main()"]


@contextlib.contextmanager
def _writing(database: Path, synchronous: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", _WRITER, str(database), synchronous]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        yield process


def _said(process: "subprocess.Popen[str]") -> int:
    """The last number that it has printed by now as a whole."""
    assert process.stdout is not None
    descriptor, out = process.stdout.fileno(), b""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(descriptor, 1 << 16):
            out += chunk
    whole = out[: out.rfind(b"\n")].split() if out else []
    return int(whole[-1]) if whole else 0


def _killed(process: "subprocess.Popen[str]") -> None:
    """End a process as a power cut does."""
    process.kill()
    process.wait()
