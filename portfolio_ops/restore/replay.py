"""A moment as a database file: a base on which SQLite itself replays increments, checked before it is relied on."""

import contextlib
import os
import time
from pathlib import Path

import apsw

from portfolio_ops.calling import tool
from portfolio_ops.errors import VerificationError
from portfolio_ops.host.files import require_space
from portfolio_ops.host.journal import Log
from portfolio_ops.moment import exact
from portfolio_ops.restore.points import MomentPlan
from portfolio_ops.restore.stage import Staged, decode_to, stage_database
from portfolio_ops.sqlite.check import check_database
from portfolio_ops.sqlite.connection import explained
from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.increment import Increment
from portfolio_ops.sqlite.increment_content import extract, verify
from portfolio_ops.sqlite.place import SIDES, side
from portfolio_ops.sqlite.wal import FRAME_HEADER
from portfolio_ops.store.artifact import Artifact


def stage(artifact: Artifact, moment: MomentPlan | None, path: Path, log: Log) -> Staged:
    """Make a checked database at `path`: an artifact as it is, or the moment of which it is the base.

    Raises:
        PortfolioOpsError: As `stage_database` and `stage_moment`.
        OSError: The disk is full or fails.
    """
    return stage_database(artifact, path, log) if moment is None else stage_moment(moment, path, log)


def bytes_needed(plan: MomentPlan) -> int:
    """Bytes that staging takes at most: the database, and one increment decompressed."""
    sizes = [plan.base.metadata.content.bytes]
    wals = [0]
    for increment, cut in plan.pieces:
        page_size = increment.head.page_size
        sizes.append(cut.pages * page_size)
        wals.append(_frames(increment, cut) * (FRAME_HEADER + page_size))
    return max(sizes) + max(wals)


def stage_moment(plan: MomentPlan, path: Path, log: Log) -> Staged:
    """Bring a base to a moment, at `path`, and check it: hashes, structure, indices.

    Args:
        plan: From `plan_moment`.
        path: A new file; on failure it is removed.
        log: Hears how far it is.

    Raises:
        VerificationError: The base or an increment is not what it should be.
        RefusedError: It does not fit.
        OSError: The disk is full or fails.
    """
    if not plan.pieces:
        return stage_database(plan.base, path, log)
    began = time.monotonic()
    require_space(path.parent, bytes_needed(plan))
    decode_to(plan.base, path, log, durable=False)  # `_sync` waits for all, and the disk need not be waited for twice
    try:
        for number, (increment, cut) in enumerate(plan.pieces):
            log.progress(f"Replaying {increment.path.name}, {number + 1} of {len(plan.pieces)}")
            _extract(plan, number, side(path, "-wal"))
            _replay(increment, cut, path)
        _sync(path)
        replayed = time.monotonic()
        log.progress("Checking the database")
        try:
            facts = check_database(path)
        except VerificationError as error:
            raise VerificationError(
                f"the database of {exact(plan.found)}: {error.message}", suggestion=_others()
            ) from error
    except BaseException:
        for ending in ("", *SIDES):
            side(path, ending).unlink(missing_ok=True)
        raise
    return Staged(path, facts, replayed - began, time.monotonic() - replayed)


def _extract(plan: MomentPlan, number: int, wal: Path) -> None:
    """Write one of the pieces as a WAL.

    Raises:
        VerificationError: It is damaged; the error tells the last moment before the damage.
    """
    increment, cut = plan.pieces[number]
    try:
        extract(increment, cut, wal)
    except VerificationError as error:
        good = [*verify(increment).cuts[-1:]] or [*(plan.pieces[number - 1][1:] if number else ())]
        suggestion = f"the last moment before that: --at {exact(good[-1].seen)}; {_others()}" if good else _others()
        raise VerificationError(error.message, suggestion=suggestion) from error


def _replay(increment: Increment, cut: Cut, database: Path) -> None:
    """Let SQLite bring the WAL that lies beside a database into it.

    Raises:
        VerificationError: It took less of it than there is, or the database has another size than it had.
    """
    expected = _frames(increment, cut)
    try:
        with contextlib.closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            connection.pragma("synchronous", "off")
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # opens the WAL
            done = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise VerificationError(f"{increment.path} cannot be replayed: {error}", suggestion=_others()) from error
    except apsw.Error as error:
        raise explained(error, database) from error
    for ending in SIDES:
        side(database, ending).unlink(missing_ok=True)
    pages, rest = divmod(database.stat().st_size, increment.head.page_size)
    if done != (expected, expected) or (pages, rest) != (cut.pages, 0):
        raise VerificationError(
            f"{increment.path} was not replayed in full: {done[1]} of {expected} frames, {pages} of {cut.pages} pages",
            suggestion=_others(),
        )


def _frames(increment: Increment, cut: Cut) -> int:
    """How many frames a WAL has that is cut there."""
    return increment.cuts[: increment.cuts.index(cut) + 1].frames()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _others() -> str:
    """Which other moments there are."""
    return f"other moments: {tool()} list points; `{tool()} verify --all` finds the sound bases"
