"""Write `docs/benchmarks.md` and its plots from `benchmarks/results.json`, without measuring anything.

python -m benchmarks.page           write them
python -m benchmarks.page --check   fail if one is out of date
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.bench import ROOT
from benchmarks.report import spread
from benchmarks.results import Results, Run, load
from benchmarks.rows import MET, MISSED, Curve, Figure, Row, number
from benchmarks.svg import plot
from benchmarks.works import PROMISED

DOCS = ROOT / "docs"
PLOTS = "benchmarks"

_HEAD = """<!-- Written by benchmarks/page.py from benchmarks/results.json; a test holds it against both. -->
# Benchmarks

The product and the usual tools, side by side on one machine: they take turns (A B A B), each as a whole process, and
what is shown are medians of all rounds, with the least and the most. Of every figure less is better, and *ratio* is
ours divided by theirs. `make bench` installs the peers, repeats all of it, and writes this page.
"""
_QUICK = """
**These figures are of a quick run (`make bench QUICK=1`): small sizes, one round. They show that all works, and are no
result.**
"""
_PEERS = """
The database has a portfolio's tables: comments of words, which compress as text does, images with random digests and
thumbnails, which do not, likes and sessions. The peers run as their documentation advises:

- `sqlite3 .backup` and then `gzip`, at its default level; `zstd -3 -T0`, with all cores, of a file at rest.
- Litestream with its defaults (it looks and syncs each second), to a folder on the same disk.
- restic with a repository of its present format and its default compression, without a cache, of a file at rest.
- logrotate with `copytruncate` and `compress`: the backend does not reopen its log.
- `git status` in a repository with as many files as there are artifacts.
"""
_ROW_HEADS = ("", "measured", "ours", "against", "theirs", "ratio", "aim", "verdict")


def files(results: Results) -> dict[str, str]:
    """Each file by its path below `docs/`."""
    curves = [curve for run in results.values() for curve in run.measured.curves]
    return {"benchmarks.md": page(results)} | {f"{PLOTS}/{curve.name}.svg": plot(curve) for curve in curves}


def page(results: Results) -> str:
    """The whole page."""
    if not results:
        return f"{_HEAD}\nNothing has been measured yet.\n"
    rows = [row for run in results.values() for row in run.measured.rows]
    promised = [row for work in PROMISED for row in rows if row.work == work]
    beside = [row for row in rows if row.work not in PROMISED]
    missing = [work for work in PROMISED if not any(row.work == work for row in rows)]
    notes = _Notes()
    parts = [
        _HEAD + (_QUICK if any(run.quick for run in results.values()) else "") + _PEERS,
        _machines(results),
        "## What was aimed at\n",
        _summary(rows, missing),
        _rows(promised, notes),
        "## Where a peer is better\n",
        _better(rows),
        "## Also measured\n",
        _rows(beside, notes),
        notes.text(),
        "## How cost grows\n",
        *(_curve(curve) for run in results.values() for curve in run.measured.curves),
        "## How to repeat it\n",
        _commands(results),
    ]
    return "\n".join(part for part in parts if part)


class _Notes:
    """Remarks below the tables, each once."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def mark(self, note: str) -> str:
        """What stands in the table for it."""
        if not note:
            return ""
        if note not in self._found:
            self._found.append(note)
        return f" <sup>{self._found.index(note) + 1}</sup>"

    def text(self) -> str:
        """All of them."""
        return "".join(f"{number}. {note}\n" for number, note in enumerate(self._found, 1))


def _machines(results: Results) -> str:
    machines = {tuple(run.machine.items()): None for run in results.values()}
    words = ["; ".join(f"{name} {value}" for name, value in machine) for machine in machines]
    versions = sorted({f"{name} {version}" for run in results.values() for name, version in run.peers.items()})
    return f"Measured on: {' / '.join(words)}. Peers: {', '.join(versions)}.\n"


def _summary(rows: Sequence[Row], missing: Sequence[str]) -> str:
    verdicts = [row.verdict for row in rows]
    missed = [row for row in rows if row.verdict == MISSED]
    text = f"Of {verdicts.count(MET) + len(missed)} aims {verdicts.count(MET)} are met and {len(missed)} missed.\n"
    if missed:
        text += "\nMissed:\n\n" + "".join(f"- {_sentence(row)} Aim: {row.aim.words}.\n" for row in missed if row.aim)
    return text + "".join(f"\nNot measured: {work}.\n" for work in missing)


def _sentence(row: Row) -> str:
    ours = f"{row.work}, {row.measured}: ours {number(row.ours.median)} {row.unit}"
    if row.peer is None:
        return f"{ours}."
    ratio = "" if row.ratio is None else f" ({number(row.ratio)})"
    return f"{ours}, {row.peer.who} {number(row.peer.median)} {row.unit}{ratio}."


def _rows(rows: Sequence[Row], notes: _Notes) -> str:
    cells, before = [], ""
    for row in rows:
        cells.append(
            (
                "" if row.work == before else row.work,
                row.measured + notes.mark(row.note),
                _figure(row.ours, row.unit),
                row.peer.who if row.peer else "",
                _figure(row.peer, row.unit) if row.peer else "",
                number(row.ratio) if row.ratio is not None else "",
                row.aim.words if row.aim else "",
                _verdict(row),
            )
        )
        before = row.work
    return _table(_ROW_HEADS, cells)


def _verdict(row: Row) -> str:
    return {MET: MET, MISSED: f"**{MISSED}**"}.get(row.verdict, "")


def _figure(figure: Figure, unit: str) -> str:
    around = spread(figure)
    return f"{number(figure.median)} {unit}" + (f" ({around})" if around else "")


def _better(rows: Sequence[Row]) -> str:
    found = [row for row in rows if row.peer_is_better]
    return "".join(f"- {_sentence(row)}\n" for row in found) or "In nothing that was measured here.\n"


def _curve(curve: Curve) -> str:
    places = sorted({point.x for line in curve.lines for point in line.points})
    rows = []
    for line in curve.lines:
        at = {point.x: point for point in line.points}
        rows.append((line.who, *(number(at[place].median) if place in at else "" for place in places)))
    note = f"\n{curve.note}\n" if curve.note else ""
    picture = f"![{curve.title}]({PLOTS}/{curve.name}.svg)"
    return f"### {curve.title}\n\n{picture}\n{note}\n{_table((f'{curve.y}, by {curve.x}', *map(number, places)), rows)}"


def _commands(results: Results) -> str:
    heads = ("", "command", "measured on", "rounds", "took")
    return _table(heads, [(name, *_command(run)) for name, run in results.items()])


def _command(run: Run) -> Iterable[str]:
    quick = ", quick" if run.quick else ""
    return f"`{run.command}`", f"{run.date}{quick}", str(run.rounds), f"{number(run.seconds)} s"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def outdated(results: Results, folder: Path) -> dict[str, str | None]:
    """What must be written below a folder, or go (None), so that it shows these results."""
    wanted: dict[str, str | None] = dict(files(results))
    stale = {f"{PLOTS}/{path.name}": None for path in (folder / PLOTS).glob("*.svg")}
    changed = {name: text for name, text in wanted.items() if text != _text(folder / name)}
    return changed | {name: None for name in stale if name not in wanted}


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def main() -> None:
    """Write page and plots, or say which are out of date."""
    changes = outdated(load(), DOCS)
    if changes and "--check" in sys.argv:
        sys.exit(f"out of date, run `python -m benchmarks.page`: {', '.join(changes)}")
    for name, text in changes.items():
        path = DOCS / name
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


if __name__ == "__main__":
    main()
