"""The rehearsal: restore as an operator would, to a scratch place, and prove that what came back is the site."""

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import apsw

from portfolio_ops.config import Site
from portfolio_ops.errors import NO_ROOM, PortfolioOpsError, VerificationError
from portfolio_ops.host import messages
from portfolio_ops.host.interrupted import interrupted_by
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs.drill_archive import rehearse_archive
from portfolio_ops.jobs.drill_report import Report, write
from portfolio_ops.jobs.rehearsal import FAILED, PASSED, Rehearsal, words
from portfolio_ops.jobs.run import DAILY, DRILL, waiting
from portfolio_ops.jobs.scratch import scratch_folder
from portfolio_ops.jobs.verify import condemn
from portfolio_ops.restore.compare import compare
from portfolio_ops.restore.stage import Staged, decode_to, stage_database
from portfolio_ops.sqlite.assertions import failed_assertions
from portfolio_ops.sqlite.dump import restored_rows
from portfolio_ops.sqlite.snapshot import reading_one_moment
from portfolio_ops.store import catalogue, runs
from portfolio_ops.store.artifact import CLOCK_SLACK, Artifact, Kind
from portfolio_ops.store.lock import held

_Result = TypeVar("_Result")


def drill(site: Site, *, wait: timedelta) -> Report:
    """Rehearse a restore of the newest backup, of an older one and a moment chosen at random, and of the newest export.

    Nothing is written to a live path. What is found is recorded, and in the journal.

    Raises:
        BusyError: Another drill runs for longer than `wait`.
        OSError: The record cannot be written.
    """
    log, began = Log(site=site.name, job=DRILL.name), time.monotonic()
    with held(site.state, DRILL.name, wait=wait, on_wait=waiting(log, DRILL.name)):
        found = Rehearsal(site, log)
        try:
            runs.begin(site.state, DRILL.name)
            with scratch_folder(site, DRILL.name) as folder:
                _rehearse(found, folder)
        except (PortfolioOpsError, OSError, apsw.Error) as error:
            found.doubts.append(words(error))
        except BaseException as error:
            with contextlib.suppress(OSError):  # else it is found to have ended without a word
                why = interrupted_by(error) or type(error).__name__
                runs.finish(site.state, DRILL.name, succeeded=False, message=why)
            raise
        report = Report(
            found.verdict,
            datetime.now(UTC).isoformat(timespec="seconds"),
            round(time.monotonic() - began, 3),
            found.recovery_seconds,
            tuple(found.restored),
            tuple(found.failures + found.doubts),
            tuple(found.evidence),
        )
        _remember(site, report)
    _tell(report, log)
    return report


def _remember(site: Site, report: Report) -> None:
    """Record a drill. On a full disk it cannot be: that it was inconclusive is told all the same."""
    reasons = "; ".join(report.reasons)
    message = f"{report.verdict}: {reasons}" if reasons else report.verdict
    try:
        write(site, report)
        runs.finish(site.state, DRILL.name, succeeded=report.verdict == PASSED, message=message)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise


def _rehearse(found: Rehearsal, folder: Path) -> None:
    backups = catalogue.scan(found.site.backups, found.site.name)
    newest = catalogue.newest_database(backups)
    if newest is None:
        found.failures.append("there is no database backup")
        return
    _require_fresh(found, newest)
    staged = _restore(found, newest, folder / "newest")
    if staged is not None:
        found.recovery_seconds = round(staged.decode_seconds + staged.check_seconds, 3)
        found.evidence.append(f"restored and checked within {found.recovery_seconds} s")
        found.failures += [
            f"the site's check failed: {why}" for why in failed_assertions(staged.path, found.site.drill.checks)
        ]
        count = len(found.site.drill.checks)
        found.evidence.append(f"{count} {'check' if count == 1 else 'checks'} of the site's own asked")
        _compare(found, staged, folder)
        staged.path.unlink()
    older = [artifact for artifact in backups.artifacts if artifact.metadata.kind.holds_database and artifact != newest]
    if older:
        again = _restore(found, random.SystemRandom().choice(older), folder / "older")
        if again is not None:
            again.path.unlink()
    else:
        found.evidence.append("there is no older backup yet")
    exports = [artifact for artifact in backups.of(Kind.SOCIAL) if not artifact.put_away]
    _restore_social(found, exports, folder / "social")
    record = runs.read(found.site.state, DRILL.name)
    passed = None if record is None or record.success is None else datetime.fromisoformat(record.success.ended)
    rehearse_archive(found, folder, passed or datetime.min.replace(tzinfo=UTC))


def _require_fresh(found: Rehearsal, newest: Artifact) -> None:
    age, limit = datetime.now(UTC) - newest.taken, DAILY.overdue_after
    hours = int(age.total_seconds() // 3600)
    if limit is not None and age > limit:
        found.failures.append(
            f"the newest backup is {hours} h old, the limit is {int(limit.total_seconds() // 3600)} h"
        )
    if age < -CLOCK_SLACK:
        found.failures.append(
            f"the newest backup, {newest.path.name}, is dated in the future, and there is no other: is the clock right?"
        )
    found.evidence.append(f"the newest backup is {newest.path.name}, {hours} h old")


def _restore(found: Rehearsal, artifact: Artifact, path: Path) -> Staged | None:
    """Restore one; a bad one is a failure, and goes into quarantine."""
    found.log.progress(f"Restoring {artifact.path.name}")
    staged = _twice(found, artifact, lambda: stage_database(artifact, path, found.log))
    if staged is not None:
        found.restored.append(artifact.path.name)
        found.evidence.append(
            f"{artifact.path.name}: sound, {sum(staged.facts.rows.values()):,} rows, as its metadata says"
        )
    return staged


def _twice(found: Rehearsal, artifact: Artifact, work: Callable[[], _Result]) -> _Result | None:
    """Do something with an artifact; if that finds it bad, again. Bad twice, it is put into quarantine.

    Returns:
        What came of it; None if it is bad, or if that could not be found out. Which, was noted.
    """
    try:
        try:
            return work()
        except VerificationError as first:
            result = work()
            found.doubts.append(f"{artifact.path.name} was bad when it was read first, and sound then: {first.message}")
            return result
    except VerificationError as error:
        found.failures.append(error.message)
        condemn(found.site, artifact, error.message, found.log)
    except (PortfolioOpsError, OSError) as error:
        found.doubts.append(f"{artifact.path.name} could not be restored: {words(error)}")
    return None


def _compare(found: Rehearsal, staged: Staged, folder: Path) -> None:
    """Hold the restored copy against the live database; where that cannot be read, the drill is inconclusive."""
    found.log.progress("Comparing with the live database")
    try:
        with reading_one_moment(found.site.database, folder) as live:
            result = compare(staged.path, live)
    except (PortfolioOpsError, OSError, apsw.Error) as error:
        found.doubts.append(f"the live database could not be compared: {words(error)}")
        return
    # A table may have been made since the backup, and rowids may be chosen at random: doubts, not proofs.
    found.doubts += [f"the live table {name} is not in the newest backup" for name in result.missing]
    found.doubts += [f"the newest backup lacks, of {words}" for words in result.fewer]
    found.evidence += [f"{name}: {then:,} rows restored, {now:,} live" for name, (then, now) in result.rows.items()]


def _restore_social(found: Rehearsal, exports: Sequence[Artifact], path: Path) -> None:
    if not exports:
        found.evidence.append("there is no social export yet")
        return
    newest = exports[-1]

    def restored() -> dict[str, int]:
        path.unlink(missing_ok=True)
        decode_to(newest, path, found.log)
        return restored_rows(path, list(newest.metadata.details.get("rows", {})))

    rows = _twice(found, newest, restored)
    if rows is None:
        return
    found.restored.append(newest.path.name)
    found.evidence.append(f"{newest.path.name}: restores to {sum(rows.values()):,} rows of {len(rows)} tables")


def _tell(report: Report, log: Log) -> None:
    reasons = "; ".join(report.reasons)
    if report.verdict == PASSED:
        log.event(
            messages.DRILL_PASSED,
            f"The drill passed: {', '.join(report.restored)}; a restore takes {report.recovery_seconds} s",
            recovery=report.recovery_seconds or 0.0,
            duration=report.seconds,
        )
    elif report.verdict == FAILED:
        log.event(messages.DRILL_FAILED, f"The drill failed: {reasons}", duration=report.seconds)
    else:
        log.event(messages.DRILL_INCONCLUSIVE, f"The drill was inconclusive: {reasons}", duration=report.seconds)
