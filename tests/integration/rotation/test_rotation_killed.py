"""A rotation killed anywhere: whatever had been done, the next run loses nothing and doubles nothing.

The places are not listed by hand. A child process counts what it does within the modules that write (`bomb.py`), and
kills itself where it was told. ext4 and xfs collapse, btrfs and tmpfs truncate, bigalloc tries the one and does the
other.
"""

from collections.abc import Callable
from typing import Any

import pytest

from portfolio_ops.host import messages
from portfolio_ops.logs import live as live_module
from portfolio_ops.logs import truncate
from tests.integration.bomb import EVERY, in_child

_WRITING = (
    "logs/rotate.py",
    "logs/archive.py",
    "logs/collapse.py",
    "logs/truncate.py",
    "logs/state.py",
    "logs/live.py",
    "store/publish.py",
    "host/files.py",
)
_ALIKE = b"GET / 200\n"


def _numbered(count: int) -> bytes:
    return b"".join(b"%d a line of some length, so that blocks fill\n" % number for number in range(count))


def _alike(count: int) -> bytes:
    return _ALIKE * (4 * count)


@pytest.mark.slow
@pytest.mark.parametrize("lines", [_numbered, _alike])
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "bigalloc"])
def test_killed_at_any_event_nothing_is_lost_or_doubled(
    kind: str,
    lines: Callable[[int], bytes],
    yard_on: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Freeing in steps of one block: as many kinds of half-freed heads as a large log has.
    monkeypatch.setattr(live_module, "_PUNCH_BYTES", 4096)
    # A half-written line is waited for; here it never comes to an end while we wait.
    monkeypatch.setattr(truncate, "_PAUSE_SECONDS", 0)
    fuse, events, steps = 1 - EVERY, 0, set()
    while not events:
        fuse += EVERY
        ends_mid_line = fuse // EVERY % 2
        # Each time anew, so that the same events come in the same order, and each of them is met.
        yard = yard_on(kind)
        written = yard.append(lines(300))
        yard.rotate()
        written += yard.append(lines(300))
        events = in_child(yard.rotate, fuse, _WRITING)
        # The site goes on writing before anything is repaired, now and then mid-line.
        written += yard.append(lines(100)[:-1])
        yard.journal.events.clear()
        if not ends_mid_line:
            written += yard.append(b"\n")
        yard.rotate()
        if ends_mid_line:
            written += yard.append(b"\n")
        steps |= {fields["step"] for _, fields in yard.journal.of(messages.ROTATION_RECOVERED)}
        yard.rotate()
        assert yard.archived() == written, f"killed at event {fuse}"
    assert steps >= {"publishing", "marking", "removing"}
    assert fuse > 90
