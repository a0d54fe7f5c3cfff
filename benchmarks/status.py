"""What is there, and is all well: `list` and `status` as artifacts become more, the hourly check as sites become more.

All warm: whole processes whose files are in the page cache. `git status` has a repository with as many files.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.bench import TOOL, Bench, Command, Timing, configured, database_of, run, seconds, timed
from benchmarks.machine import program
from benchmarks.rows import Aim, Curve, Figure, Line, Measured, Row
from benchmarks.works import STATUS
from portfolio_ops.store.artifact import Content, Kind, Metadata, encode_trailer

PEERS = ("git",)

_APART = timedelta(minutes=7)  # 10,000 of them fit into the 90 days for which event backups are kept
_FINDINGS = 10  # no job has run here
_SITE_SIZE = 1  # MB
_MOST = 0.25  # s
_JUDGED = 1000  # artifacts


def fill(backups: Path, site: str, count: int) -> None:
    """So many backups on an event, each whole in all but its content: that is a hundred bytes, and is not read."""
    folder = backups / Kind.EVENT.folder
    folder.mkdir(parents=True, exist_ok=True)
    now, payload = datetime.now(UTC), b"x" * 100
    for number in range(count):
        taken = now - number * _APART
        content = Content(f"{number:064x}", 1 << 20)
        metadata = Metadata(Kind.EVENT, site, taken, content, {"event": "gallery-added", "gallery": f"g{number}"})
        name = f"gallery-added-g{number}-{taken:%Y-%m-%d-%H%M%S}.sqlite.zst"
        (folder / name).write_bytes(payload + encode_trailer(metadata, Content("0" * 64, len(payload))))


def _repository(folder: Path, count: int) -> Path:
    """A git repository with so many files, all committed."""
    for number in range(count):
        path = folder / f"{number // 100}/{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * 20)
    git = [program("git"), "-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    run([*git, "init", "--quiet"], folder=folder)
    run([*git, "add", "."], folder=folder)
    run([*git, "commit", "--quiet", "--message", "all"], folder=folder)
    return folder


def _site(bench: Bench, folder: Path) -> Path:
    """A small site's configuration."""
    bench.copy(_SITE_SIZE, database_of(folder))
    return configured(folder)


def measure(bench: Bench) -> Measured:
    """Both curves, and the figure for a thousand artifacts."""
    found = {count: _among(bench, count) for count in bench.scale.artifacts}
    git = Figure.of("git status", found[_JUDGED]["git status"])
    of = f"{_JUDGED:,} artifacts"
    rows = [
        Row(
            STATUS,
            f"time, {of}",
            "s",
            Figure.of("ours", found[_JUDGED]["status"]),
            git,
            Aim("< 0.25 s", _MOST, ratio=False, below=True),
            f"git: {_JUDGED:,} files.",
        ),
        Row("`portfolio-ops list` warm", f"time, {of}", "s", Figure.of("ours", found[_JUDGED]["list"]), git),
    ]
    lines = tuple(
        Line.of(who, {count: by[who] for count, by in found.items()}) for who in ("status", "list", "git status")
    )
    artifacts = Curve(
        "status-artifacts",
        "status and list, as artifacts become more",
        "artifacts (git: files)",
        "seconds",
        lines,
    )
    return Measured(tuple(rows), (artifacts, _sites(bench)))


def _among(bench: Bench, count: int) -> dict[str, list[float]]:
    """Seconds of each command among so many artifacts."""
    folder = bench.folder / f"status-{count}"
    config = _site(bench, folder)
    fill(folder / "site/backups", config.stem, count)
    repository = _repository(folder / "repository", count)
    tool: Command = [TOOL, "--config", config]
    contenders: dict[str, Callable[[], Timing]] = {
        "status": lambda: timed([*tool, "status"], (0, _FINDINGS)),
        "list": lambda: timed([*tool, "list"]),
        "git status": lambda: timed([program("git"), "status"], folder=repository),
    }
    for warm_up in contenders.values():
        warm_up()
    return {who: seconds(timings) for who, timings in bench.rounds(contenders).items()}


def _sites(bench: Bench) -> Curve:
    """Seconds until all sites of a host were checked, one after the other, as on a host with one core to spare."""
    configs = [_site(bench, bench.folder / f"sites/{number}") for number in range(max(bench.scale.sites))]
    for config in configs:
        fill(config.with_name("site") / "backups", config.stem, 100)

    def checked(count: int) -> float:
        timings = [timed([TOOL, "--config", each, "status", "--check"], (0, _FINDINGS)) for each in configs[:count]]
        return sum(seconds(timings))

    checked(len(configs))
    found = bench.rounds({str(count): _with(checked, count) for count in bench.scale.sites})
    line = Line.of("ours", {int(count): values for count, values in found.items()})
    return Curve(
        "check-sites",
        "The hourly check of all sites of a host",
        "sites, each with 100 artifacts",
        "seconds, one after the other",
        (line,),
    )


def _with(checked: Callable[[int], float], count: int) -> Callable[[], float]:
    return lambda: checked(count)
