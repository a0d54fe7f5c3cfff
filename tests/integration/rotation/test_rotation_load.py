"""Rotation under load: not a line lost, doubled, torn or out of order."""

from collections.abc import Callable
from typing import Any

import pytest

ROTATIONS = 1_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_thousand_rotations_under_two_writers(
    kind: str,
    yard_on: Callable[..., Any],
    writers: Callable[..., Any],
    numbered_lines: Callable[[bytes], dict[str, list[int]]],
) -> None:
    yard = yard_on(kind)
    before = writers(yard.log, "ab")
    inode = yard.log.stat().st_ino
    made, removals, size = 0, 0, 0
    while made < ROTATIONS:
        made += len(yard.rotate())
        now = yard.log.stat().st_size
        removals += now < size
        size = now
    written = before.stop()
    live_peak = yard.log.stat().st_size
    yard.rotate()
    found = numbered_lines(yard.archived())
    assert found == {name: list(range(count)) for name, count in written.items()}
    assert set(written) == {"a", "b"}
    assert min(written.values()) > ROTATIONS, "the writers were too slow for this to be a test"
    assert removals > ROTATIONS // 20, "the file hardly ever shrank"
    assert yard.log.stat().st_ino == inode
    assert live_peak < 4 << 20
    assert len({artifact.metadata.details["stream"] for artifact in yard.archives()}) == 1
