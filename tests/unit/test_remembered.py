"""What is remembered in JSON, when it holds any other JSON: it is refused in words, or is no memory; never a crash.

A log's state lies in an attribute that whoever writes the log may write; the others lie where only jobs write.
"""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.logs import state as log_state
from portfolio_ops.restore import record
from portfolio_ops.store import runs, sightings, verified

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_RUN = {"state": "succeeded", "started": "2026-01-01T00:00:00+00:00", "ended": "", "pid": 1, "message": ""}
_BATCH = {"request": "", "name": "a", "first": 1, "last": 1, "names": [], "before": "", "more": False}


@dataclass(frozen=True)
class Memory:
    """One kind: what reads it, what stands in it, and how it may say that it is none."""

    read: Callable[[Path], object]
    file: str
    good: dict[str, Any]
    refusals: tuple[type[Exception], ...] = ()


MEMORIES = {
    "log": Memory(
        lambda folder: log_state.decode((folder / "attribute").read_bytes()),
        "attribute",
        json.loads(log_state.encode(log_state.fresh())),
        (PortfolioOpsError,),
    ),
    "runs": Memory(
        lambda folder: runs.read(folder, "daily"), "daily.json", {"latest": _RUN, "success": _RUN, "failure": None}
    ),
    "verified": Memory(verified.read, "verified.json", {"id": "2026-01-01T00:00:00+00:00"}),
    "sightings": Memory(
        sightings.read,
        "galleries.json",
        {"version": 1, "inode": 1, "table": "t", "column": "c", "marks": [[1, "a"]], "waiting": _BATCH, "begun": None},
        (PortfolioOpsError,),
    ),
    "restore": Memory(
        record.read,
        "restore.json",
        dict.fromkeys(("state", "started", "artifact", "database", "running", "new", "undo", "earlier"), ""),
        (ValueError,),
    ),
}


@pytest.mark.parametrize("name", MEMORIES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_is_understood_or_refused(name: str, data: st.DataObject, tmp_path: Path) -> None:
    memory = MEMORIES[name]
    (tmp_path / memory.file).write_text(json.dumps(memory.good))
    assert memory.read(tmp_path)
    changed = data.draw(st.dictionaries(st.sampled_from([*memory.good, "other"]), ANY, min_size=1, max_size=3))
    for document in (data.draw(ANY), {**memory.good, **changed}):
        (tmp_path / memory.file).write_text(json.dumps(document))
        with contextlib.suppress(*memory.refusals):
            memory.read(tmp_path)
