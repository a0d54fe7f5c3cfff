"""What a job does to the site's folders, tried: this runs inside a unit's sandbox."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from portfolio_ops.config import Site
from portfolio_ops.doctor.data import touched_by_opening
from portfolio_ops.doctor.finding import Finding, fault, ok
from portfolio_ops.errors import PortfolioOpsError, RefusedError
from portfolio_ops.host.files import TEMPORARY_PREFIX, real_inside
from portfolio_ops.mount import read_only
from portfolio_ops.sqlite.connection import reading
from portfolio_ops.sqlite.place import located

_CURE = "the drop-in of the unit must open this folder: ReadWritePaths=; deploy again"


def look(site: Site) -> Iterator[Finding]:
    """Write where jobs write, and read what they read."""
    for folder in (site.backups, *dict.fromkeys(log.parent for log in site.logs if log.parent.is_dir())):
        yield _writable(site, folder)
    yield from _readable(site)


def _readable(site: Site) -> Sequence[Finding]:
    try:
        if touched := touched_by_opening(located(site.database)):
            return touched
        with reading(site.database):
            pass
    except PortfolioOpsError as error:
        return [fault("sandbox", error.message, error.suggestion)]
    return [ok("sandbox", f"{site.database} can be read")]


def _writable(site: Site, folder: Path) -> Finding:
    try:
        if folder != site.backups:
            real_inside(folder, site.root)
        with tempfile.TemporaryFile(prefix=TEMPORARY_PREFIX, dir=folder) as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    except RefusedError as error:
        return fault("sandbox", error.message, error.suggestion)
    except OSError as error:
        mount = read_only(folder)
        return fault("sandbox", f"{folder} cannot be written: {error.strerror}", mount.cure if mount else _CURE)
    return ok("sandbox", f"{folder} can be written")
