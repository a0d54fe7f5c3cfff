"""A restore to a second of yesterday: a backup, and the increments behind it, of ours and of Litestream.

The day has a commit a second, unless `--quick` gives it fewer. It is lived through twice, in less time than a day:

- with a clock that is moved on (`benchmarks.day`): a flush for each commit, a file for each hour. That is what our
  archive has after such a day. Litestream has no such clock.
- as fast as goes: the same commits at a thousand a second, followed by both as they run, with a flush a second. Both
  have far fewer increments to read then than after a real day.

The moments lie a quarter, a half and the whole of the day behind the backup.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.archive import contents
from benchmarks.archivers import Archiver, Litestream, Ours, Restored, staged
from benchmarks.bench import Bench, configured, database_of, run, size_words
from benchmarks.followed import Running, Writer
from benchmarks.restore import decompressed, fresh
from benchmarks.rows import Aim, Curve, Figure, Line, Measured, Row
from benchmarks.works import MOMENT

PEERS = ("litestream", "zstd")

_SHARES = (0.25, 0.5, 1.0)
_MIDDLE = 0.5
_OURS, _FAST, _LITESTREAM = "ours", "ours, a flush a second", "Litestream, a flush a second"
_LIMIT = "zstd -d"
_RATE = 1000.0
_SETTLE = 3.0

Restore = Callable[[Path], Restored]
Found = dict[tuple[str, float], list[Restored]]


def _whole_day(bench: Bench, folder: Path) -> dict[float, Restore]:
    """For each share of a day with a flush a commit, what restores it."""
    config = configured(folder)
    bench.copy(bench.scale.size, database_of(folder))
    said = run([sys.executable, "-m", "benchmarks.day", config, str(bench.scale.commits)])
    first, last = map(datetime.fromisoformat, json.loads(said))

    def restore(share: float) -> Restore:
        return lambda target: staged(config, target, first + share * (last - first))

    return {share: restore(share) for share in _SHARES}


def _fast_day(bench: Bench, folder: Path, make: Callable[[Path], Archiver]) -> dict[float, Restore]:
    """For each share of the commits, what restores it from what an archiver made of them as they came."""
    database = bench.copy(bench.scale.size, database_of(folder))
    archiver = make(folder)
    with Writer(database, _RATE, bench.scale.commits / _RATE) as writer, Running(archiver, folder) as running:
        running.wait_for(archiver.has_begun)
        time.sleep(_SETTLE)
        began = datetime.now(UTC)
        writer.load()
        ended = datetime.now(UTC)
        time.sleep(_SETTLE)
        running.end()

    def restore(share: float) -> Restore:
        when = None if share == 1 else began + share * (ended - began)
        return lambda target: archiver.restore(target, when)

    return {share: restore(share) for share in _SHARES}


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
    days = {
        _OURS: _whole_day(bench, folder / "whole"),
        _FAST: _fast_day(bench, folder / "fast", Ours),
        _LITESTREAM: _fast_day(bench, folder / "litestream", Litestream),
    }
    for shares, name in zip(days.values(), ("whole", "fast", "litestream"), strict=True):
        _require_whole(shares[1.0], folder / name)
    [base] = (folder / "whole/site/backups/wal").glob("base-*.zst")
    target = folder / "restored"
    contenders = {(who, share): restore for who, shares in days.items() for share, restore in shares.items()}
    contenders[_LIMIT, 0.0] = lambda path: decompressed(base, path)
    found = bench.rounds({key: _with(restore, target) for key, restore in contenders.items()})
    return Measured(_rows(bench, found), (_curve(bench, found),))


def _with(restore: Restore, target: Path) -> Callable[[], Restored]:
    return lambda: fresh(restore, target)


def _rows(bench: Bench, found: Found) -> tuple[Row, ...]:
    def figure(who: str, share: float = _MIDDLE, *, checked: bool = False) -> Figure:
        return Figure.of(who, [each.seconds + checked * each.checks for each in found[who, share]])

    commits, of = f"{bench.scale.commits // 2:,} commits", f"time of {size_words(bench.scale.size)}"
    whole, fast, litestream = (figure(who) for who in (_OURS, _FAST, _LITESTREAM))
    unlike = (
        "Half a day behind the backup, with a flush a commit; made with a clock that is moved on. Litestream had the "
        "same commits at 1,000 a second, so it has less to read than after a day. Of yesterday it keeps no single "
        "seconds."
    )
    alike = "The same commits for both, at 1,000 a second, followed as they came: a flush a second."
    half = Aim("≤ 0.5 of its time", 0.5)
    return (
        Row(MOMENT, f"{of} and {commits}, before checks", "s", whole, litestream, half, unlike),
        Row(MOMENT, f"{of} and {commits} in increments alike, before checks", "s", fast, litestream, half, alike),
        Row(
            MOMENT,
            f"{of} and {commits}, before checks",
            "s",
            whole,
            figure(_LIMIT, 0.0),
            Aim("≤ 2 times its time", 2.0),
            "`zstd -d` of the backup alone, with no commit behind it.",
        ),
        Row(MOMENT, f"{of} and {commits}, with all checks", "s", figure(_OURS, checked=True), litestream, note=unlike),
    )


def _curve(bench: Bench, found: Found) -> Curve:
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
        (line(_OURS), line(_FAST), line(_LITESTREAM)),
        log_y=False,
        note="Made as the rows say. Where a backup is made daily, a day behind it is the most that there is.",
    )
