"""The nightly rotation: every log of the site, each on its own, losing no line."""

from datetime import timedelta

from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError, explained
from portfolio_ops.host import messages
from portfolio_ops.jobs.run import ROTATE, Outcome, Task, run_job
from portfolio_ops.logs.rotate import rotate_log
from portfolio_ops.store.artifact import Artifact


def rotate_logs(site: Site, *, wait: timedelta) -> Outcome:
    """Archive what is new in each log as `logs-archive/<log>-YYYY-MM-DD.log.zst`, then prune the archives.

    Raises:
        PortfolioOpsError: A log was not rotated; the others were. All failures are in the message. Nothing was pruned.
    """
    return run_job(site, ROTATE, _rotate_each, wait=wait)


def _rotate_each(task: Task) -> list[Artifact]:
    made: list[Artifact] = []
    failures: list[PortfolioOpsError] = []
    for path in task.site.logs:
        try:
            made += rotate_log(task.site, path, task.folder, task.log)
        except (PortfolioOpsError, OSError) as error:
            failure = error if isinstance(error, PortfolioOpsError) else explained(error)
            failures.append(failure)
            task.log.event(
                messages.LOG_REFUSED,
                f"{path} was not rotated: {failure.message}",
                log=str(path),
                error=failure.code,
                suggestion=failure.suggestion,
            )
    if failures:
        raise _together(failures, partly=bool(made))
    return made


def _together(failures: list[PortfolioOpsError], *, partly: bool) -> PortfolioOpsError:
    """One error for all: of their own class (and exit code) if that is one and nothing was done."""
    message = "; ".join(failure.message for failure in failures)
    suggestion = "; ".join(dict.fromkeys(failure.suggestion for failure in failures if failure.suggestion))
    classes = {type(failure) for failure in failures}
    if partly or len(classes) > 1:
        return PortfolioOpsError(message, suggestion=suggestion)
    return classes.pop()(message, suggestion=suggestion)
