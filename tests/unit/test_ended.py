"""What is noted of timelines that ended by another's doing."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from portfolio_ops.store.ended import Ended, accept, note, noted

NOW = datetime(2026, 3, 29, 0, 59, 59, 123456, tzinfo=UTC)


def test_what_comes_of_one_is_a_part_of_it_and_what_comes_later_is_not(tmp_path: Path) -> None:
    for seconds in (0, 2, 59, 61, 62, 3600):
        note(tmp_path, Ended(NOW + timedelta(seconds=seconds), f"after {seconds}"))
    assert [(each.at - NOW, each.why) for each in noted(tmp_path)] == [
        (timedelta(seconds=seconds), f"after {seconds}") for seconds in (0, 61, 3600)
    ]
    accept(tmp_path)
    assert noted(tmp_path) == []
    accept(tmp_path)


def test_no_more_than_a_person_can_look_at(tmp_path: Path) -> None:
    for hour in range(50):
        note(tmp_path, Ended(NOW + timedelta(hours=hour), "again"))
    found = noted(tmp_path)
    assert len(found) == 20
    assert found[0].at == NOW, "what was before the first is what is wanted"


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[", b"{}x", b"5", b"null", b'["x"]', b"[[1, 2]]", b'[["", "why"]]', b"\xff"),
        json.dumps([["9999-12-31T23:59:59-12:00", "why"]]).encode(),
        json.dumps([["0001-01-01T00:00:00+12:00", "why"]]).encode(),
    ],
)
def test_a_damaged_note_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "timelines-ended.json").write_bytes(content)
    assert noted(tmp_path) == []
    note(tmp_path, Ended(NOW, "why"))
    assert [each.why for each in noted(tmp_path)] == ["why"]
