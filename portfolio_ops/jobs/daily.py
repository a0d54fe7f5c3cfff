"""The daily backup: the whole database, verified, kept for `[retention] daily`."""

import contextlib
from datetime import UTC, datetime, timedelta

from portfolio_ops.config import Site
from portfolio_ops.errors import BusyError
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import pruning
from portfolio_ops.jobs.age import age_increments
from portfolio_ops.jobs.database import back_up
from portfolio_ops.jobs.expire import ARCHIVE, prune_increments
from portfolio_ops.jobs.run import DAILY, Outcome, run_job


def backup_daily(site: Site, *, wait: timedelta) -> Outcome:
    """Make, verify and publish `daily/portfolio-YYYY-MM-DD.sqlite.zst`, then prune the dailies and the archive.

    What of the archive has come of age is merged then. Where any of that fails, the backup is none the worse for it: it
    is told, and the next one tries again.

    Raises:
        PortfolioOpsError: Nothing was published, and nothing pruned.
    """
    outcome = run_job(site, DAILY, lambda task: [back_up(task, "portfolio-%Y-%m-%d", {})], wait=wait)
    if outcome.put_off:
        return outcome
    log = Log(site=site.name, job=DAILY.name)
    # Where a restore reads them, it is for tomorrow.
    with pruning.forgiven(site, ARCHIVE, log), contextlib.suppress(BusyError):
        prune_increments(site, wait=timedelta())
    with contextlib.suppress(BusyError):
        age_increments(site, datetime.now(UTC), wait=timedelta())
    return outcome
