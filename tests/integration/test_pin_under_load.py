"""A pin on databases that real processes write at full speed: an archive that misses nothing, to the byte."""

import time
from pathlib import Path

import pytest

from portfolio_ops.sqlite.pin import Outcome, Seal, pinned
from tests.integration.busy_site import Busy
from tests.integration.wal_reference import Reference

BUDGET = 0.2
LARGE = 1000
PATIENCE = 60


def followed(reference: Reference, seconds: float, generations: int = 0) -> list[Seal]:
    """What an archiver does: read often, seal when the WAL is large; for some seconds, and until so many are new."""
    seals: list[Seal] = []
    end, wanted = time.monotonic() + seconds, len(reference.generations) + generations
    while time.monotonic() < end or len(reference.generations) < wanted:
        assert time.monotonic() < end + PATIENCE, f"only {len(seals)} seals"
        if reference.follow().frames >= LARGE:
            seals.append(reference.pin.seal(reference.archive, BUDGET))
        time.sleep(0.002)
    return seals


def sealed_at_last(reference: Reference) -> None:
    """With all writers gone one more seal is certain."""
    assert reference.pin.seal(reference.archive, BUDGET).outcome is Outcome.SEALED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("autocheckpoint", "pause", "timeout"),
    [
        pytest.param(1000, "0", 30, id="saturating"),
        pytest.param(10, "0", 30, id="saturating-and-checkpointing-always"),
        pytest.param(1000, "0.0003", 1, id="waiting-a-second-at-most"),
    ],
)
def test_nothing_passes_unseen(tmp_path: Path, autocheckpoint: int, pause: str, timeout: int) -> None:
    with Busy(tmp_path, autocheckpoint, pause, timeout) as site, pinned(site.database) as pin:
        reference = Reference(pin)
        site.start()
        seals = followed(reference, 0.5, 10)
        site.stop()  # the site's last close: the WAL must outlive it
        assert set(reference.salt_steps()) == {1}
        seals += followed(reference, 0.1)
        site.start_checkpoints()
        site.start()
        seals += followed(reference, 0.3, 5)
        site.kill()
        site.start(1)
        site.start_vacuum()
        seals += followed(reference, 0.7, 5)
        site.stop()
        sealed_at_last(reference)
    assert max(seal.stall for seal in seals) < 1
    site.require_restored(reference)
