"""The daily backup: the whole database, verified, kept for `[retention] daily`."""

from datetime import timedelta

from portfolio_ops.config import Site
from portfolio_ops.jobs.database import back_up
from portfolio_ops.jobs.run import DAILY, Outcome, run_job


def backup_daily(site: Site, *, wait: timedelta) -> Outcome:
    """Make, verify and publish `daily/portfolio-YYYY-MM-DD.sqlite.zst`, then prune the dailies.

    Raises:
        PortfolioOpsError: Nothing was published, and nothing pruned.
    """
    return run_job(site, DAILY, lambda task: [back_up(task, "portfolio-%Y-%m-%d", {})], wait=wait)
