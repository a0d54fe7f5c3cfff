"""What a drill has found so far."""

from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError, explained
from portfolio_ops.host.journal import Log

PASSED, FAILED, INCONCLUSIVE = "passed", "failed", "inconclusive"


class Rehearsal:
    """A drill that goes on.

    Attributes:
        failures: Why a backup would not have brought the site back.
        doubts: What could not be found out.
        evidence: What was found, a line each.
        restored: File names of what was restored.
        recovery_seconds: From the newest backup to a checked database; None if it has not come to that.
    """

    def __init__(self, site: Site, log: Log) -> None:
        self.site, self.log = site, log
        self.failures: list[str] = []
        self.doubts: list[str] = []
        self.evidence: list[str] = []
        self.restored: list[str] = []
        self.recovery_seconds: float | None = None

    @property
    def verdict(self) -> str:
        """A failure outweighs a doubt."""
        if self.failures:
            return FAILED
        return INCONCLUSIVE if self.doubts else PASSED


def words(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, PortfolioOpsError):
        return error.message
    return explained(error).message if isinstance(error, OSError) else str(error)
