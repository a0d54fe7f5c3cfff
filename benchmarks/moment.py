"""A restore to a second of yesterday: a backup, and the increments behind it, of ours and of Litestream.

The day has a commit a second, unless `--quick` gives it fewer. Ours is made with a clock that is moved on
(`benchmarks.day`): a flush for each commit, a file for each hour. Litestream has no such clock. It gets the same
commits at a thousand a second, flushes once a second, and so has far fewer increments to read than after a real day.
The moments are a quarter, a half, three quarters and the whole of the day behind the backup.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.archive import contents
from benchmarks.archivers import Litestream, Restored, staged
from benchmarks.bench import Bench, configured, database_of, run, size_words
from benchmarks.followed import Running, Writer
from benchmarks.restore import decompressed, fresh
from benchmarks.rows import Aim, Curve, Figure, Line, Measured, Row
from benchmarks.works import MOMENT

PEERS = ("litestream", "zstd")

_QUARTERS = (0.25, 0.5, 0.75, 1.0)
_MIDDLE = 0.5
_RATE = 1000.0
_SETTLE = 3.0

Restore = Callable[[Path], Restored]


def _our_day(bench: Bench, folder: Path) -> dict[float, Restore]:
    """For each share of a day, what restores it from our archive."""
    config = configured(folder)
    bench.copy(bench.scale.size, database_of(folder))
    said = run([sys.executable, "-m", "benchmarks.day", config, str(bench.scale.commits)])
    first, last = map(datetime.fromisoformat, json.loads(said))

    def restore(share: float) -> Restore:
        return lambda target: staged(config, target, first + share * (last - first))

    return {share: restore(share) for share in _QUARTERS}


def _their_day(bench: Bench, folder: Path) -> dict[float, Restore]:
    """For each share of the commits, what restores it from Litestream's replica."""
    database = bench.copy(bench.scale.size, database_of(folder))
    litestream = Litestream(folder)
    seconds = bench.scale.commits / _RATE
    with Writer(database, _RATE, seconds) as writer, Running(litestream, folder) as running:
        running.wait_for(litestream.has_begun)
        time.sleep(_SETTLE)
        began = datetime.now(UTC)
        writer.load()
        ended = datetime.now(UTC)
        time.sleep(_SETTLE)
        running.end()

    def restore(share: float) -> Restore:
        when = None if share == 1 else began + share * (ended - began) + timedelta(seconds=1)
        return lambda target: litestream.restore(target, when)

    return {share: restore(share) for share in _QUARTERS}


def _require_whole(restore: Restore, folder: Path) -> None:
    """The last moment must be what the live database holds, in all tables."""
    target = folder / "whole"
    restore(target)
    if contents(target) != contents(database_of(folder)):
        raise SystemExit("what was restored is not what the live database holds")
    target.unlink()
    database_of(folder).unlink()


def measure(bench: Bench) -> Measured:
    """How long it takes, and how it grows with what lies between the backup and the moment."""
    folder = bench.folder / "moment"
    days = {"ours": _our_day(bench, folder / "ours"), "Litestream": _their_day(bench, folder / "theirs")}
    _require_whole(days["ours"][1.0], folder / "ours")
    _require_whole(days["Litestream"][1.0], folder / "theirs")
    [base] = (folder / "ours/site/backups/wal").glob("base-*.zst")
    target = folder / "restored"
    contenders: dict[tuple[str, float], Restore] = {
        (who, share): restore for who, shares in days.items() for share, restore in shares.items()
    }
    contenders["zstd -d", 0.0] = lambda path: decompressed(base, path)
    names = {f"{who} {share}": (who, share) for who, share in contenders}
    rounds = bench.rounds({name: _with(contenders[key], target) for name, key in names.items()})
    found = {names[name]: restored for name, restored in rounds.items()}
    shutil.rmtree(folder)
    return Measured(_rows(bench, found), (_curve(bench, found),))


def _with(restore: Restore, target: Path) -> Callable[[], Restored]:
    return lambda: fresh(restore, target)


def _rows(bench: Bench, found: dict[tuple[str, float], list[Restored]]) -> tuple[Row, ...]:
    def figure(who: str, share: float, *, checked: bool = False) -> Figure:
        rounds = found[who, share]
        return Figure.of(who, [each.seconds + checked * each.checks for each in rounds])

    of, commits = f"time of {size_words(bench.scale.size)}", f"{bench.scale.commits:,} commits"
    ours, litestream = figure("ours", _MIDDLE), figure("Litestream", _MIDDLE)
    note = (
        f"A day of {commits}, of which half lie behind the backup. Ours: made with a clock that is moved on, a flush a "
        "commit. Litestream: the same commits at 1,000 a second, so it has fewer increments to read than after a day."
    )
    limit = figure("zstd -d", 0.0)
    return (
        Row(MOMENT, f"{of}, before checks", "s", ours, litestream, Aim("≤ 0.5 of its time", 0.5), note),
        Row(
            MOMENT,
            f"{of}, before checks",
            "s",
            ours,
            limit,
            Aim("≤ 2 times its time", 2.0),
            f"`zstd -d` of the backup alone, with none of the {commits}.",
        ),
        Row(MOMENT, f"{of}, with all checks of the database", "s", figure("ours", _MIDDLE, checked=True), litestream),
    )


def _curve(bench: Bench, found: dict[tuple[str, float], list[Restored]]) -> Curve:
    def line(who: str) -> Line:
        return Line.of(
            who,
            {
                share * bench.scale.commits: [each.seconds for each in rounds]
                for (name, share), rounds in found.items()
                if name == who
            },
        )

    return Curve(
        "restore-moment",
        f"Restore of {size_words(bench.scale.size)} to a second, before checks",
        "commits behind the backup",
        "seconds",
        (line("ours"), line("Litestream")),
        log_y=False,
        note="Made as the rows say. Where a backup is made daily, a day behind it is the most that there is.",
    )
