"""What a job does to the site's folders, tried: this runs inside a unit's sandbox."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from portfolio_ops.config import Site
from portfolio_ops.doctor.data import touched_by_opening
from portfolio_ops.doctor.finding import Finding, fault, ok
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.files import TEMPORARY_PREFIX
from portfolio_ops.sqlite.connection import reading

_CURE = "the drop-in of the unit must open this folder: ReadWritePaths=; deploy again"


def look(site: Site) -> Iterator[Finding]:
    """Write where jobs write, and read what they read."""
    for folder in (site.backups, *dict.fromkeys(log.parent for log in site.logs if log.parent.is_dir())):
        yield _writable(folder)
    touched = touched_by_opening(Path(os.path.realpath(site.database)))
    yield from touched
    if not touched:
        yield _readable(site)


def _readable(site: Site) -> Finding:
    try:
        with reading(site.database):
            pass
    except PortfolioOpsError as error:
        return fault("sandbox", error.message, error.suggestion)
    return ok("sandbox", f"{site.database} can be read")


def _writable(folder: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(prefix=TEMPORARY_PREFIX, dir=folder) as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return fault("sandbox", f"{folder} cannot be written: {error.strerror}", _CURE)
    return ok("sandbox", f"{folder} can be written")
