"""`benchmarks/results.json`: what each benchmark found last, on which machine, and how to repeat it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.rows import Curve, Measured, Row

PATH = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Run:
    """One benchmark's last run.

    Attributes:
        date: The day on which it ran.
        command: What repeats it.
        quick: Whether it was small and short, only to see that all works.
        seconds: How long it took.
        machine: What it ran on, as `benchmarks.machine` describes it.
        peers: Name and version of each program that it was held against.
    """

    date: str
    command: str
    quick: bool
    rounds: int
    seconds: float
    machine: dict[str, str]
    peers: dict[str, str]
    measured: Measured

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Self:
        """From what `dataclasses.asdict` and JSON made of it."""
        measured = Measured(
            tuple(map(Row.read, found["measured"]["rows"])), tuple(map(Curve.read, found["measured"]["curves"]))
        )
        return cls(**{**found, "measured": measured})


Results = dict[str, Run]
"""By the benchmark's name."""


def load(path: Path = PATH) -> Results:
    """What was found; empty where there is no file yet."""
    if not path.exists():
        return {}
    return {name: Run.read(found) for name, found in json.loads(path.read_text()).items()}


def save(results: Results, order: Sequence[str], path: Path = PATH) -> None:
    """Write it, benchmarks in a given order, so that a run of one changes its part of the file only."""
    document = {name: asdict(results[name]) for name in order if name in results}
    for run in document.values():
        run["seconds"] = round(run["seconds"], 1)
    path.write_text(json.dumps(document, indent=1) + "\n")
