"""The disk is full, or becomes so while a command runs: passes at random over all commands, on a small real filesystem.

FULL_DISK_PASSES says how many (`make faults`: 200 on each filesystem), FULL_DISK_SEED repeats a run.
"""

import contextlib
import errno
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from portfolio_ops.errors import ExitCode, PortfolioOpsError
from portfolio_ops.jobs.archive import archive
from portfolio_ops.moment import exact
from portfolio_ops.restore import points
from portfolio_ops.sqlite.connection import reading
from tests.integration.faults.disk import Disk
from tests.integration.faults.harness import Yard, require_spoken, state_of
from tests.integration.faults.test_faults import CASES, asked_for, backed_up, require_held

PASSES = int(os.environ.get("FULL_DISK_PASSES", "3"))
SEED = int(os.environ.get("FULL_DISK_SEED", str(random.randrange(1 << 32))))
WAIT = timedelta(minutes=1)
_ANEW = 10  # passes after which the site is laid out afresh: by then its backups take much of the disk
_IMAGES = 1500  # of 900 bytes that do not compress
_ROOM = 24 << 20  # what no command here needs more than: with that free, the disk is not full
_STEP = 1 << 16
_INODES_MOST = 10_000


def _nothing(_: Yard) -> None:
    """Whatever lies there is what it runs on."""


def _at_a_moment(yard: Yard) -> None:
    """The last moment is the present state, so the database is the same after it is restored."""
    archive(yard.site, once=True, wait=WAIT)
    last = exact(points.windows(yard.site)[-1].last)
    yard.command = ["restore", "database", "--at", last, "--in-place", "--yes"]


COMMANDS: dict[str, tuple[list[str], Callable[[Yard], None]]] = {
    **{name: (command, _nothing) for name, (command, _) in CASES.items() if name != "first"},
    "requested": (CASES["requested"][0], asked_for),
    "restore": (CASES["restore"][0], backed_up),
    "moment": ([], _at_a_moment),
    "social restore": (["restore", "social", "--yes"], backed_up),
    "merge": (["restore", "social", "--merge", "--yes"], backed_up),
    "prune": (["prune", "--yes"], _nothing),
}
"""Each with what it needs, made while there is still room."""


class Filler:
    """Takes room away, and gives it back."""

    def __init__(self, place: Path, chooser: random.Random) -> None:
        self._folder, self._chooser = place / "ballast", chooser
        self._folder.mkdir(exist_ok=True)
        self._stop = threading.Event()

    def fill(self, free: int) -> None:
        """Leave so many bytes, as far as the filesystem counts so finely."""
        with (self._folder / "bytes").open("ab") as file:
            step = 1 << 24
            while step >= _STEP // 16:
                while self._free() - step >= free and self._grown(file.fileno(), step):
                    pass
                step //= 2

    def use_up_names(self, left: int) -> None:
        """Leave so many inodes."""
        for number in range(os.statvfs(self._folder).f_ffree - left):
            os.mknod(self._folder / f"name-{number}")

    def use_up_all_names(self) -> None:
        """Leave no room for one more file, whatever the filesystem counts."""
        for number in range(_INODES_MOST):
            try:
                os.mknod(self._folder / f"name-{number}")
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return
        raise AssertionError(f"{_INODES_MOST} files, and there is still room")

    @property
    def counts_names(self) -> bool:
        """Whether inodes are made with the filesystem (ext4), and not as they are needed (xfs)."""
        return os.statvfs(self._folder).f_files < _INODES_MOST

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Another program takes all that is left, from some moment of the command's on."""
        thread = threading.Thread(target=self._eat, args=(self._chooser.random(), self._chooser.randrange(1, 40)))
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            self._stop.clear()

    def _eat(self, delay: float, steps: int) -> None:
        self._stop.wait(delay)
        with (self._folder / "bytes").open("ab") as file:
            while not self._stop.is_set():
                if not self._grown(file.fileno(), steps * _STEP):
                    time.sleep(0.005)  # what the command gives back is taken too

    def _free(self) -> int:
        status = os.statvfs(self._folder)
        return status.f_bavail * status.f_frsize

    @staticmethod
    def _grown(descriptor: int, count: int) -> bool:
        try:
            os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, count)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return False
        return True

    def give_back(self) -> None:
        """All of it."""
        for path in self._folder.iterdir():
            path.unlink()


def _prepared(yard: Yard) -> None:
    connection = sqlite3.connect(yard.site.database)
    rows = [(os.urandom(900),) for _ in range(_IMAGES)]
    connection.executemany("INSERT INTO images(gallery, body) VALUES(1, ?)", rows)
    connection.commit()
    connection.close()
    backed_up(yard)
    archive(yard.site, once=True, wait=WAIT)


def _worked(yard: Yard, number: int) -> None:
    """The site did something since the last pass."""
    connection = sqlite3.connect(yard.site.database)
    connection.execute("INSERT INTO comments(image, body) VALUES(1, ?)", (f"pass {number}",))
    connection.execute("UPDATE images SET body = randomblob(900) WHERE id % 7 = ?", (number % 7,))
    connection.commit()
    connection.close()
    with yard.site.logs[0].open("ab") as log:
        log.write(b"".join(b"pass %d, line %d\n" % (number, line) for line in range(500)))


@contextlib.contextmanager
def _full(filler: Filler, chooser: random.Random) -> Iterator[str]:
    """No room, in one way or another."""
    way = chooser.choice(("before", "meanwhile", "meanwhile", *(["names"] if filler.counts_names else [])))
    if way == "names":
        filler.use_up_names(chooser.randrange(4))
    else:
        filler.fill(int(_ROOM * (chooser.random() if way == "meanwhile" else chooser.random() ** 3)))
    try:
        with filler.filling() if way == "meanwhile" else contextlib.nullcontext():
            yield way
    finally:
        filler.give_back()


@pytest.mark.slow
def test_full_disks_cost_nothing_that_was_there(disk: Disk, tmp_path: Path) -> None:
    chooser, ended = random.Random(SEED), Counter[str]()
    print(f"\nFULL_DISK_SEED={SEED}")
    yard = Yard(tmp_path, [], _prepared, disk.place)
    filler = Filler(disk.place, chooser)
    for number in range(PASSES):
        if number % _ANEW == 0:
            yard.lay_out()
        name = chooser.choice(list(COMMANDS))
        yard.command, prepare = COMMANDS[name]
        _worked(yard, number)
        prepare(yard)
        before = state_of(yard.site)
        with _full(filler, chooser) as way:
            result = yard.run(traced=False)
        case = f"seed {SEED}, pass {number}, {name}, full {way}: {result.err}"
        require_spoken(result, case)
        assert result.code != ExitCode.NOT_PERMITTED, case  # a unit would not try that again
        ended[f"{way}: {'done' if result.code == ExitCode.OK else f'failed with {result.code}'}"] += 1
        require_held(yard, name, before, case)
    print(f"{disk.place.name}: {PASSES} passes: {', '.join(f'{key} {count}' for key, count in sorted(ended.items()))}")


@pytest.mark.slow
def test_no_room_for_the_side_files_is_no_missing_right(disk: Disk, tmp_path: Path) -> None:
    """An xfs makes no new file while it still counts a few free blocks, ext4 none while it counts many."""
    yard = Yard(tmp_path, [], _prepared, disk.place)
    yard.lay_out()
    filler = Filler(disk.place, random.Random(SEED))
    if not filler.counts_names:
        filler.fill(0)
    filler.use_up_all_names()
    with pytest.raises(PortfolioOpsError, match="is there room") as raised, reading(yard.site.database):
        pass
    assert raised.value.exit_code == ExitCode.FAILED
    filler.give_back()
    with reading(yard.site.database) as connection:
        assert connection.pragma("quick_check") == "ok"
