"""Other sites of the host: what two of them have in common, each would take for its own."""

import os
from collections.abc import Iterator
from pathlib import Path

from portfolio_ops.config import Site, load
from portfolio_ops.doctor.finding import Finding, fault, ok
from portfolio_ops.errors import PortfolioOpsError


def look(site: Site) -> Iterator[Finding]:
    """Compare the site with those whose files lie beside its own. One that cannot be read is not looked at."""
    shared = [fault("neighbours", text, cure) for text, cure in _shared(site)]
    yield from shared or [ok("neighbours", "no other site has its database, its logs or its backups")]


def _shared(site: Site) -> Iterator[tuple[str, str]]:
    own = _places(site)
    for file in sorted(site.file.parent.glob("*.toml")):
        if file == site.file:
            continue
        try:
            other = load(file)
        except (PortfolioOpsError, OSError):
            continue
        for path, what in _places(other).items():
            if path in own:
                cure = f"give each its own in {file} and {site.file}; or stop {other.name}, if it is no more"
                yield f"site {other.name} has {path}, too ({what})", cure


def _places(site: Site) -> dict[Path, str]:
    """What only one site may have, by where it really is."""
    places = {site.backups: "backups", site.database: "database"} | dict.fromkeys(site.logs, "a log")
    return {Path(os.path.realpath(path)): what for path, what in places.items()}
