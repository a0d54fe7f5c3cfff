"""A folder for what is restored only to be looked at."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from portfolio_ops.config import Site
from portfolio_ops.errors import NotFoundError


@contextlib.contextmanager
def scratch_folder(site: Site, name: str) -> Iterator[Path]:
    """An empty folder of our own while the block runs; one that a killed run left is removed first.

    Args:
        name: Of the job; the caller holds the lock of that name.

    Raises:
        NotFoundError: The place for it does not exist.
        OSError: It may not be written.
    """
    place = site.drill.scratch
    if place == site.state:
        place.mkdir(mode=0o750, exist_ok=True)
    if not place.is_dir():
        raise NotFoundError(f"there is no folder {place}", suggestion="make it, or correct [drill] scratch")
    folder = place / f".portfolio-ops-{site.name}-{name}"
    _remove(folder)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
