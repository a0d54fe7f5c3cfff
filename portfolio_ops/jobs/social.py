"""The weekly social export: some tables as SQL that the plain `sqlite3` program runs."""

import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, cast

import apsw

from portfolio_ops.config import Site
from portfolio_ops.errors import NotFoundError
from portfolio_ops.host import messages
from portfolio_ops.host.files import TEMPORARY_PREFIX, require_space
from portfolio_ops.jobs.run import SOCIAL, Outcome, Task, run_job
from portfolio_ops.sqlite.check import count_rows
from portfolio_ops.sqlite.dump import check_export
from portfolio_ops.sqlite.export import export_tables, missing_tables
from portfolio_ops.sqlite.snapshot import reading_one_moment
from portfolio_ops.store import catalogue
from portfolio_ops.store.artifact import Artifact, Kind, Metadata
from portfolio_ops.store.publish import Draft

_ROOM = 4
"""The SQL text, the database that checks it, the artifact, and growth since: so many times the last export's text."""


def backup_social(site: Site, *, wait: timedelta) -> Outcome:
    """Make, verify and publish `social/social-tables-YYYY-MM-DD.sql.zst`, then prune the exports.

    Raises:
        NotFoundError: A table that is not declared optional does not exist.
        PortfolioOpsError: Nothing was published, and nothing pruned.
    """

    def work(task: Task) -> list[Artifact]:
        require_space(task.folder, _needed(site))
        return [export(task, reading_one_moment(site.database, task.folder), {})]

    return run_job(site, SOCIAL, work, wait=wait)


def export(task: Task, moment: AbstractContextManager[apsw.Connection], details: dict[str, Any]) -> Artifact:
    """Make, verify and publish an export of the site's tables; the caller holds the lock of its kind.

    Args:
        task: The run that it is part of.
        moment: A connection to the database as it is at one moment; left before the export is verified.
        details: Goes into the metadata, beside the numbers of rows.

    Raises:
        PortfolioOpsError: Nothing was published.
    """
    site, began = task.site, time.monotonic()
    with Draft(task.folder) as draft:
        with moment as connection:
            tables = _present_tables(site, missing_tables(connection, [table.name for table in site.social_tables]))
            taken = datetime.now(UTC)
            draft.write(export_tables(connection, tables))
            rows = count_rows(connection, tables)  # now: what is no table, but a view without end, was refused
        task.log.progress("Verifying the export")
        with NamedTemporaryFile(prefix=TEMPORARY_PREFIX, dir=task.folder) as scratch:
            content = draft.read_back(cast("BinaryIO", scratch.file))
            scratch.flush()
            check_export(Path(scratch.name), tables)
        details = {
            **details,
            "rows": rows,
            "verified": {"at": datetime.now(UTC).isoformat(timespec="seconds"), "checks": ["sha256", "restored"]},
        }
        stem = taken.astimezone().strftime("social-tables-%Y-%m-%d")
        artifact = draft.publish(stem, ".sql.zst", Metadata(Kind.SOCIAL, site.name, taken, content, details))
    seconds = time.monotonic() - began
    task.log.event(
        messages.BACKUP_PUBLISHED,
        f"Published {artifact.path.name}: {sum(rows.values()):,} rows of {len(rows)} tables, in {seconds:.1f} s",
        artifact=artifact.path.name,
        artifact_id=artifact.id,
        bytes=artifact.bytes,
        content_bytes=content.bytes,
        duration=round(seconds, 3),
    )
    return artifact


def _needed(site: Site) -> int:
    """Bytes needed for a while. The first export knows of nothing but the whole database."""
    found = catalogue.scan(site.backups, site.name, [Kind.SOCIAL]).artifacts
    earlier = [artifact for artifact in found if not artifact.put_away]
    if earlier:
        return _ROOM * earlier[-1].metadata.content.bytes
    return site.database.stat().st_size if site.database.is_file() else 0


def _present_tables(site: Site, missing: list[str]) -> list[str]:
    """The configured tables that exist.

    Raises:
        NotFoundError: One that must exist does not.
    """
    required = [table.name for table in site.social_tables if table.name in missing and not table.optional]
    if required:
        raise NotFoundError(
            f"{site.database} has no table {', '.join(required)}",
            suggestion=f'correct [social] tables in {site.file}, or declare it optional: "{required[0]}?"',
        )
    return [table.name for table in site.social_tables if table.name not in missing]
