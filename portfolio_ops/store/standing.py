"""Where the archive of a database with a WAL stands, for its next start: it may be lost, and then proves nothing.

What is remembered of a flush is not synced. It outlives a killed daemon; where a power cut takes it, the database may
have lost commits that are archived, and a new timeline is right.
"""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.files import open_regular, overwrite
from portfolio_ops.sqlite.place import located
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.wal_header import Checksum

_NAME = "archive-position"
_MOST = 256  # bytes
_FORM = re.compile(r"([0-9a-f]{64}) ([0-9a-f]{8}) ([0-9a-f]{8}) ([0-9a-f]{16}) (\d{10}) (\d{20}) (\d{10})\n")
_SAME_BOOT = 60
"""Seconds by which the moment of a boot may seem to change: clocks are put right."""


@dataclass(frozen=True)
class Standing:
    """Where a flush ended.

    Attributes:
        chain: The hash of the flush, or what stands for the beginning of a timeline.
        checksum: The WAL's running checksum there.
        position: In the WAL.
        changed: The main file's ctime in nanoseconds, once all of this was in it, and nothing else; 0 if not yet. As
            long as it stays, all that came since is in the WAL of now (`Pin.settle`).
        booted: When the host had booted, in seconds of Unix time.
    """

    chain: bytes
    checksum: Checksum
    position: Position
    changed: int = 0
    booted: int = 0

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the host has run since. A power cut may leave what was written behind, and the ctime from before."""
        return abs(self.booted - _booted()) <= _SAME_BOOT


def _booted() -> int:
    """When the host booted. Its boot ID would say it exactly, but is not there in a unit that sees only processes."""
    return int(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))


def remember(state: Path, standing: Standing) -> None:
    """Note it in a site's state folder, by one small write that nobody waits for.

    Raises:
        OSError: The disk is full or fails.
    """
    (s0, s1), position = standing.checksum, standing.position
    words = (
        f"{standing.chain.hex()} {s0:08x} {s1:08x} {position.salts} {position.frame:010}"
        f" {standing.changed:020} {_booted():010}\n"
    )
    overwrite(state / _NAME, words.encode())


def remembered(state: Path) -> Standing | None:
    """What was noted last; None where that is lost, or cannot be understood."""
    try:
        descriptor = open_regular(state / _NAME)
    except (OSError, PortfolioOpsError):
        return None
    try:
        found = _FORM.fullmatch(os.read(descriptor, _MOST).decode("ascii", "replace"))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if found is None:
        return None
    chain, s0, s1, salts, frame, changed, booted = found.groups()
    checksum, position = (int(s0, 16), int(s1, 16)), Position(salts, int(frame))
    return Standing(bytes.fromhex(chain), checksum, position, int(changed), int(booted))


def is_untouched(state: Path, database: Path) -> bool:
    """Whether a database's main file is as the archive left it, with all that it had archived in there."""
    standing = remembered(state)
    try:
        return standing is not None and standing.changed == located(database).stat().st_ctime_ns
    except (OSError, PortfolioOpsError):
        return False
