"""When a follower archives, seals, settles and copies: decided here from what it saw, done in `follow`."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from portfolio_ops.jobs.following import EVERY

_AT_REST = 1.0
_FULL = 1000
"""Frames of a WAL from which on SQLite lets each commit of the site try a checkpoint (`wal_autocheckpoint`)."""

_BUSY = 200
"""Frames between two flushes from which on the site may leave no gap in which a WAL can be sealed."""

_LARGE = 32 << 20
"""Bytes of a WAL that is sealed though the site may have to be held for it. Each such seal stores hot pages anew."""

_SEAL_AGAIN = 5.0
_COPY_ON = 0.05
"""Seconds from the first write into a new WAL until what is in it is copied: before it has come to `_FULL`, mostly."""

_NEXT_CLOSE = 0.05
"""Seconds after a close of the database in which no other is listened for: there may be thousands a second."""


@dataclass(frozen=True)
class Load:
    """A WAL that was archived just now.

    Attributes:
        frames: In it.
        grown: Those of them that came since the flush before.
        page_size: In bytes.
    """

    frames: int
    grown: int
    page_size: int

    @property
    def size(self) -> int:
        """Bytes of all its frames' pages."""
        return self.frames * self.page_size

    @property
    def is_busy(self) -> bool:
        """Whether the site may leave no gap in which the WAL can be sealed."""
        return self.grown >= _BUSY

    @property
    def is_large(self) -> bool:
        """Whether it is to be sealed, though the site may have to be held for it."""
        return self.size >= _LARGE

    @property
    def nears_checkpoints(self) -> bool:
        """Whether the site may come to try checkpoints before the next flush, if nothing is done."""
        return self.frames + 2 * self.grown >= _FULL or self.is_large

    @property
    def is_to_be_sealed(self) -> bool:
        """Whether its generation is to be ended now: before the site checkpoints, where it leaves gaps for that."""
        return self.is_large or (self.nears_checkpoints and not self.is_busy)


@dataclass
class Pace:
    """How far it is with what was committed last; times are of time.monotonic(3).

    Attributes:
        flushed: When it last archived.
        seal_at: When the WAL is to be sealed at the latest.
        left: When it last archived at once because the site had left the database.
        deaf_until: When it is of interest again that somebody leaves it.
        busy: Whether the site wrote so much before the last flush that it may leave no gap.
        copy_at: When to copy what is in a new WAL, if it is not archived by then; None where that does not matter.
        dirty: Whether something may not be archived.
        sealed, settled: Whether the WAL is (`Pin.seal`, `Pin.settle`).
    """

    flushed: float
    seal_at: float = 0.0
    left: float = 0.0
    deaf_until: float = 0.0
    busy: bool = False
    copy_at: float | None = None
    dirty: bool = True
    sealed: bool = True
    settled: bool = True

    def may_be_left(self, now: float) -> bool:
        """Whether to look if the site has left the database: where it is dirty or not sealed, and not at each close.

        Its own last close would have copied all into the main file, which whoever stops it may replace at once.
        """
        return self._is_open and now >= self.deaf_until

    @property
    def _is_open(self) -> bool:
        return self.dirty or not self.sealed

    def is_flush_due(self, now: float, *, is_left: bool, at_once: bool) -> bool:
        """Whether to archive now.

        Args:
            is_left: The site has left the database.
            at_once: Whatever is not archived is due.
        """
        hurries = is_left and self._hurries(now)
        return self.dirty and (now - self.flushed >= EVERY or hurries or at_once)

    def _hurries(self, now: float) -> bool:
        """Whether to archive at once because the site has left: not each time, where it leaves after each commit."""
        if now - self.left < EVERY:
            return False
        self.left = now
        return True

    def is_seal_due(self, now: float, *, is_left: bool) -> bool:
        """Whether to end the WAL's generation now: at once, where nobody else has it open."""
        return not self.sealed and (now >= self.seal_at or (is_left and not self.dirty))

    def is_settling_due(self, now: float) -> bool:
        """Whether the site rests, and that has not been noted."""
        return self.sealed and not self.settled and now >= self.flushed + _AT_REST

    def is_copy_due(self, now: float) -> bool:
        """Whether to copy now what is in a new WAL."""
        return self.dirty and self.copy_at is not None and now >= self.copy_at

    def note_change(self, *, dirty: bool, begins: bool) -> None:
        """Note whether something may not be archived, and whether a busy site may have begun a WAL anew with it."""
        if dirty and not self.dirty:
            self.copy_at = time.monotonic() + _COPY_ON if begins else None
        self.dirty = dirty

    def note_flush(self, now: float, load: Load, *, once: bool) -> None:
        """Note that all is archived which was there. A single pass leaves the WAL as it is."""
        self.flushed, self.dirty, self.busy, self.sealed, self.settled = now, False, load.is_busy, once, once
        self.seal_at = now if load.is_to_be_sealed else now + _AT_REST

    def note_seal(self, now: float, *, done: bool) -> None:
        """Note an attempt to seal."""
        self.sealed, self.seal_at = done, now + _SEAL_AGAIN

    def note_copy(self, now: float, *, done: bool) -> None:
        """Note an attempt to copy: of a long transaction there is nothing yet."""
        self.copy_at = None if done else now + _COPY_ON

    def note_close(self, now: float) -> None:
        """Note that somebody closed the database."""
        self.deaf_until = now + _NEXT_CLOSE

    def moments(self, now: float, *, empty: bool) -> Iterator[float]:
        """When there is something to do if nothing happens.

        Args:
            empty: Whether the WAL has no frame.
        """
        if self._is_open and now < self.deaf_until:
            yield self.deaf_until
        if self.dirty and self.copy_at is not None:
            yield self.copy_at
        if self.dirty:
            yield self.flushed + EVERY
        if not empty and not self.sealed:
            yield self.seal_at
        elif not empty and not self.settled:
            yield self.flushed + _AT_REST
