"""`portfolio-ops status`: how every job is doing."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from portfolio_ops.calling import tool
from portfolio_ops.cli import present
from portfolio_ops.cli.context import Context
from portfolio_ops.config import Site
from portfolio_ops.errors import ExitCode, PortfolioOpsError, UsageError
from portfolio_ops.jobs import health
from portfolio_ops.jobs.archive_health import ArchiveHealth
from portfolio_ops.jobs.health import Health, JobHealth
from portfolio_ops.moment import local, utc
from portfolio_ops.store.others import told

if TYPE_CHECKING:
    from collections.abc import Sequence

    from portfolio_ops.restore.points import Window

JOB_HEADER = ("JOB", "STATE", "LAST SUCCESS", "LIMIT", "NEXT RUN", "KEPT", "SIZE", "RETENTION")

_NAGIOS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


@click.command("status")
@click.option("--nagios", is_flag=True, help="One line and exit code 0, 1, 2 or 3, as monitoring plugins do.")
@click.option("--check", is_flag=True, help="Record the verdict in the journal too, as the hourly unit does.")
@click.pass_obj
def command(context: Context, nagios: bool, check: bool) -> int:
    """Show how every job is doing: last success against its limit, next run, what is kept, room on the disk.

    Exit code 10 if anything is late, failed, or lies among the artifacts and is none.
    """
    if nagios:
        if context.json:
            raise UsageError("--nagios has a form of its own", suggestion="leave out --json, or --nagios")
        return _nagios(context)
    site, now = context.site(), datetime.now(UTC)
    found = health.assess(site, now)
    if check:
        health.check(site, found)
    window = _reach(site) if found.archive is not None else None
    data = {**_data(site.name, found, now), "recovery_window": None if window is None else window.data()}
    code = ExitCode.FINDINGS if found.findings else ExitCode.OK
    return context.finish("status", data, lambda: _human(site.name, found, window, now), code)


class Reach(NamedTuple):
    """From when to when moments can be restored, and how many holes there are between."""

    first: datetime
    last: datetime
    holes: int

    def data(self) -> dict[str, Any]:
        """It for programs."""
        return {"first": utc(self.first), "last": utc(self.last), "holes": self.holes}


def reach_of(found: "Sequence[Window]") -> Reach | None:
    """Of what the archive holds; None where no moment can be restored."""
    from portfolio_ops.restore.points import holes  # noqa: PLC0415  (only where there is an archive)

    if not found:
        return None
    return Reach(found[0].first, max(window.last for window in found), len(holes(found)))


def _reach(site: Site) -> Reach | None:
    from portfolio_ops.restore.points import windows  # noqa: PLC0415  (only where there is an archive)

    return reach_of(windows(site))


def _nagios(context: Context) -> int:
    try:
        site, now = context.site(), datetime.now(UTC)
        found = health.assess(site, now)
    except (PortfolioOpsError, OSError) as error:
        print(f"PORTFOLIO-OPS UNKNOWN - {error}")
        return 3
    # What lies among the artifacts and is none is a warning; whatever else needs a person is critical.
    level = 0 if not found.findings else 1 if len(found.findings) == len(told(found.backups, found.problems)) else 2
    summary = "; ".join(found.findings) or f"{len(found.jobs)} jobs in order"
    performance = " ".join(
        f"'{each.job.name}'={int((now - each.success).total_seconds())}s" for each in found.jobs if each.success
    )
    print(
        f"PORTFOLIO-OPS {_NAGIOS[level]} - {site.name}: {present.printable(summary)}|{performance} free={found.free}B"
    )
    return level


def _data(site: str, found: Health, now: datetime) -> dict[str, Any]:
    return {
        "site": site,
        "jobs": {each.job.name: _job_data(each, now) for each in found.jobs},
        "problems": [{"file": str(problem.path), "reason": problem.reason} for problem in found.problems],
        "archive": None if found.archive is None else _archive_data(found.archive),
        "drill": None if found.drill is None else asdict(found.drill),
        "disk": {"free_bytes": found.free, "reserve_bytes": found.reserve},
        "findings": found.findings,
    }


def _archive_data(archive: ArchiveHealth) -> dict[str, Any]:
    return {
        "timeline": archive.timeline,
        "running": archive.running,
        "off": archive.off,
        "last_point": None if archive.last is None else utc(archive.last),
        "lag_seconds": round(archive.lag_seconds, 3),
        "lag_bytes": archive.lag_bytes,
        "why": archive.why,
    }


def _archived(archive: ArchiveHealth, now: datetime) -> str:
    last = "no restore point yet" if archive.last is None else f"last restore point {present.ago(archive.last, now)}"
    behind = "" if archive.last is None else ", nothing behind"
    if archive.lag_bytes:
        behind = f", {archive.lag_bytes:,} bytes behind"
    elif archive.lag_seconds:
        behind = f", {present.span(timedelta(seconds=archive.lag_seconds))} behind"
    if archive.baseless is not None:
        behind += f"; nothing since {local(archive.baseless)} can be restored before there is a base"
    if archive.off:
        return f"turned off, {last}"
    return f"{'running' if archive.running else 'not running'}, {last}{behind}"


def _job_data(each: JobHealth, now: datetime) -> dict[str, Any]:
    timer, overdue = each.timer, each.job.overdue_after
    return {
        "state": each.state,
        "why": each.why,
        "last_success": None if each.success is None else utc(each.success),
        "age_seconds": None if each.success is None else int((now - each.success).total_seconds()),
        "limit_seconds": None if overdue is None else int(overdue.total_seconds()),
        "next_run": None if timer is None or timer.next is None else utc(timer.next),
        "count": each.count,
        "bytes": each.bytes,
        "retention": each.retention,
    }


def _drilled(found: Health, now: datetime) -> str:
    report = found.drill
    if report is None:
        return f"never; rehearse a restore with: {tool()} drill"
    seconds = report.recovery_seconds
    took = "" if seconds is None else f", the newest backup was back within {seconds:.1f} s"
    return f"{report.verdict}, {present.ago(datetime.fromisoformat(report.at), now)}{took}"


def _described(window: Reach | None) -> str:
    if window is None:
        return "no moment can be restored yet, but for whole backups"
    holes = "1 hole" if window.holes == 1 else f"{window.holes} holes"
    gaps = f", but for {holes}: {tool()} list points" if window.holes else ""
    return f"any moment from {local(window.first)} to {local(window.last)}{gaps}"


def job_rows(found: Health, now: datetime) -> list[list[str]]:
    """How each job is doing, below `JOB_HEADER`."""
    rows = []
    for each in found.jobs:
        overdue = each.job.overdue_after
        next_run = each.timer.next if each.timer is not None else None
        rows.append(
            [
                each.job.name,
                each.state,
                "never" if each.success is None else present.ago(each.success, now),
                "" if overdue is None else present.span(overdue),
                "on event" if overdue is None else "no timer" if next_run is None else local(next_run),
                str(each.count) if each.retention else "",
                present.size(each.bytes) if each.retention else "",
                each.retention,
            ]
        )
    return rows


def facts(found: Health, window: Reach | None, now: datetime) -> list[tuple[str, str]]:
    """What else there is to say, each under its name."""
    archive = [("archive", _archived(found.archive, now))] if found.archive is not None else []
    return [
        *archive,
        *([("recovery window", _described(window))] if archive else []),
        ("last drill", _drilled(found, now)),
        ("disk", f"{present.size(found.free)} free, {present.size(found.reserve)} of it left to the site"),
    ]


def _human(site: str, found: Health, window: Reach | None, now: datetime) -> None:
    print(f"site {site}")
    print(present.table(JOB_HEADER, job_rows(found, now)))
    for name, text in facts(found, window, now):
        print(f"{name}: {text}")
    for finding in found.findings:
        print(f"finding: {present.printable(finding)}")
