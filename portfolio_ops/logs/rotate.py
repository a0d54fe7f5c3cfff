"""Rotating one log: judge what the last run left, archive what is new, remove what is archived."""

import dataclasses
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import NotFoundError, RefusedError
from portfolio_ops.host import messages
from portfolio_ops.host.files import fsync_directory, require_dense
from portfolio_ops.host.journal import Log
from portfolio_ops.logs import truncate, writers
from portfolio_ops.logs.archive import Archive, Piece
from portfolio_ops.logs.collapse import collapse_head, finish_collapse
from portfolio_ops.logs.holes import around, holes_in, told
from portfolio_ops.logs.live import LiveLog
from portfolio_ops.logs.state import Memory, State, Step, memory_of, settle
from portfolio_ops.logs.writers import Writers
from portfolio_ops.store.artifact import Artifact


def rotate_log(site: Site, path: Path, folder: Path, journal: Log) -> list[Artifact]:
    """Archive the whole lines of a log that are not archived yet, and take them out of the file.

    The caller holds the lock of the site's log rotation.

    Args:
        path: One of `site.logs`.
        folder: Where archives go.

    Returns:
        What was published; empty if there is nothing new, which is no failure.

    Raises:
        RefusedError: The log is not a plain file of this site, or someone writes it without O_APPEND, or did.
        PortfolioOpsError: Another program interferes, or an archive cannot be verified.
        OSError: The disk is full or fails. The log is as it was, or the next run finishes the work.
    """
    try:
        live = LiveLog(path, site.root)
    except NotFoundError:
        journal.event(messages.NOTHING_TO_ROTATE, f"{path} does not exist; nothing to rotate", log=str(path))
        return []
    with live:
        found = _refuse_unsafe_writers(live)
        return _Rotation(site, live, Archive(site, folder), journal, found).run()


def _refuse_unsafe_writers(live: LiveLog) -> Writers:
    """Refuse if a writer is seen that would leave a hole; return what could be seen.

    Raises:
        RefusedError: Names the processes.
    """
    found = writers.look(live.descriptor)
    if found.unsafe:
        names = ", ".join(f"{writer.pid} ({writer.command})" for writer in found.unsafe)
        raise RefusedError(
            f"{live.path} is written without O_APPEND by process {names}: after a rotation it would leave a hole",
            suggestion='make it append: `>>` instead of `>`, flags "a" instead of "w", then restart it',
        )
    return found


class _Rotation:
    """One run on one open log."""

    def __init__(self, site: Site, live: LiveLog, archive: Archive, journal: Log, found: Writers) -> None:
        self._site, self._live, self._archive, self._journal, self._writers = site, live, archive, journal, found
        self._memory: Memory = memory_of(live.descriptor, site.state, live.name)
        self._carry = truncate.carry_path(site.state, live)
        self._inode = os.fstat(live.descriptor).st_ino
        self._left_out = 0

    def run(self) -> list[Artifact]:
        began = time.monotonic()
        made: list[Artifact] = []
        state = self._recovered(made)
        state = self._archived(state, made)
        before = self._live.size
        self._removed(state, made)
        if not made:
            why = f"is empty, or holds no whole line that is new ({self._live.size:,} bytes)"
            self._journal.event(messages.NOTHING_TO_ROTATE, f"{self._live.path} {why}", log=self._live.name)
            return made
        if not self._writers.entitled and not self._writers.appends:
            self._journal.event(
                messages.WRITER_UNSEEN,
                f"{self._live.name} has new lines, and this run sees nobody who has it open: if that is a process of "
                "another user, and without O_APPEND, it leaves a hole of NULs next",
                log=self._live.name,
                suggestion=f"{tool()} doctor, as root, looks at the processes of all users",
            )
        unseen = self._writers.unseen
        total = sum(artifact.metadata.content.bytes for artifact in made)
        seconds = time.monotonic() - began
        self._journal.event(
            messages.LOGS_ROTATED,
            f"Rotated {self._live.name}: {total:,} bytes into {', '.join(each.path.name for each in made)}, "
            f"{max(0, before - self._live.size):,} bytes removed, in {seconds:.1f} s"
            + (f"; a hole of {self._left_out:,} NULs is left out" if self._left_out else "")
            + (f" ({unseen} processes could not be checked for O_APPEND)" if unseen else ""),
            log=self._live.name,
            artifact=made[0].path.name,
            bytes=sum(artifact.bytes for artifact in made),
            content_bytes=total,
            unseen=unseen,
            duration=round(seconds, 3),
        )
        return made

    def _recovered(self, made: list[Artifact]) -> State:
        """The true state, at rest; what a run that died left undone is done."""
        found = self._memory.load()
        if found is not None and found.step is Step.REMOVING and found.token:
            state = self._truncation_recovered(found, made)
        else:
            if found is not None:
                finish_collapse(self._live, found)
            published = found is not None and bool(found.token) and self._archive.find(found.token) is not None
            state = settle(found, self._live, published=published)
        if found is not None and found != state:
            same = "" if found.stream == state.stream else "; another program truncated or replaced it since"
            self._journal.event(
                messages.ROTATION_RECOVERED,
                f"{self._live.name}: the last run left it {found.step.value}; {state.head.length:,} of its bytes are "
                f"archived{same}",
                log=self._live.name,
                step=found.step.value,
            )
        return state

    def _archived(self, state: State, made: list[Artifact]) -> State:
        """Publish the whole lines behind the archived head, if there are any."""
        live = self._live
        require_dense(live.descriptor, live.path, start=state.head.length)
        taken = datetime.now(UTC)  # before the size is looked at: what lies behind the cut was written later
        cut = live.last_line_end(state.head.length, live.size)
        if cut == state.head.length:
            return state
        head = live.head(cut)
        holes = self._holes(state.head.length, cut)
        content = around(state.head.length, cut, holes)
        piece = self._piece(state, sum(high - low for low, high in content), taken, uuid4().hex)
        if holes:
            # A position in a stream is one in the file too, and that goes wrong behind what was left out.
            state = dataclasses.replace(state, stream=uuid4().hex)

        def before_publishing() -> None:
            if not live.holds(head):
                raise live.interfered()
            self._memory.save(dataclasses.replace(state, step=Step.PUBLISHING, token=piece.token, next=head))

        self._journal.progress(f"Archiving {live.name}, {cut - state.head.length:,} bytes")
        chunks = (chunk for low, high in content for chunk in live.read(low, high))
        made.append(self._archive.publish(piece, chunks, before_publishing))
        state = dataclasses.replace(state, cut_at=taken.isoformat()).at_rest(head)
        self._memory.save(state)
        return state

    def _holes(self, low: int, high: int) -> list[tuple[int, int]]:
        """The holes in what is new. No byte of a line is in them.

        Raises:
            RefusedError: There is one, and who left it may still write: after this rotation it would leave another.
        """
        found = holes_in(self._live, low, high)
        if found and not self._writers.entitled:
            message, cure = told(self._live.path, found)
            raise RefusedError(message, suggestion=cure)
        self._left_out = sum(end - start for start, end in found)
        return found

    def _removed(self, state: State, made: list[Artifact]) -> None:
        """Take the archived head out of the file, in the best way that the filesystem knows."""
        if self._live.can_collapse():
            collapsed = collapse_head(self._live, self._memory, state)
            if collapsed.able:
                return
            state = collapsed.state
        done = truncate.truncate_head(self._live, self._memory, state, self._carry)
        if done is None:
            self._carry.unlink(missing_ok=True)
            return
        self._journal.event(
            messages.LOSS_WINDOW,
            f"{self._live.name} was truncated: its filesystem cannot remove a range. A line written within "
            f"{done.window / 1000:.0f} microseconds would be lost",
            log=self._live.name,
            window_ns=done.window,
        )
        self._tail_archived(done.state, made, loss_window_ns=done.window)

    def _truncation_recovered(self, found: State, made: list[Artifact]) -> State:
        """As `settle`, for a run that died while truncating."""
        if self._live.begins_with(found.marker):
            self._carry.unlink(missing_ok=True)
            return settle(dataclasses.replace(found, step=Step.MARKING), self._live, published=False)
        return self._tail_archived(found, made)

    def _tail_archived(self, state: State, made: list[Artifact], **details: object) -> State:
        """Archive the carried tail of a log that is truncated by now, unless a run that died has done so."""
        length = self._carry.stat().st_size if self._carry.exists() else 0
        if length and self._archive.find(state.token) is None:
            taken = datetime.now(UTC)
            piece = self._piece(state, length, taken, state.token)
            with self._carry.open("rb") as file:
                tail = (memoryview(chunk) for chunk in iter(lambda: file.read(1 << 20), b""))
                made.append(self._archive.publish(piece, tail, lambda: None, **details))
            state = dataclasses.replace(state, cut_at=taken.isoformat())
        state = dataclasses.replace(state, base=state.archived_to + length).at_rest(type(state.head)())
        self._memory.save(state)
        self._carry.unlink(missing_ok=True)
        fsync_directory(self._site.state)
        return state

    def _piece(self, state: State, length: int, taken: datetime, token: str) -> Piece:
        start = state.archived_to
        return Piece(self._live.name, state.stream, start, start + length, state.cut_at, taken, self._inode, token)
