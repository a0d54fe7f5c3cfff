"""The records of increments as they were read last, so that a month of them need not be found one by one.

They stand far apart in files of hundreds of megabytes; here, those of one file lie together. It is only memory, and is
not believed: each record must chain to the head of the file as it is now, what it describes has its hash in it, and a
file that has another length, time or inode is read as if there were no memory. Proofs (`archive verify`, drills) do
without it. Deleting it costs the time to read them again.
"""

import contextlib
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.files import require_space
from portfolio_ops.sqlite.increment import Increment, scan

_FOLDER = "records"
_KEY = struct.Struct("<8sQQQ")  # signature, length, time of the last change, inode
_SIGNATURE = b"pf-rec\x00\x01"
_AT_REST = 60.0
"""Seconds without a change after which a file is remembered: one that grows would be another with each look."""


class Records:
    """The memory of a timeline.

    Args:
        state: The site's state folder.
        timeline: Its name.
    """

    def __init__(self, state: Path, timeline: str) -> None:
        self._folder = state / _FOLDER / timeline

    def scan(self, path: Path) -> Increment:
        """What a file holds, as `increment.scan`.

        Raises:
            PortfolioOpsError: As there.
            OSError: It cannot be read.
        """
        status = path.lstat()
        key = _KEY.pack(_SIGNATURE, status.st_size, status.st_mtime_ns, status.st_ino)
        remembered = self._read(path.name, key)
        increment = scan(path, remembered)
        if increment.cuts.records != remembered and not increment.damaged and time.time() - status.st_mtime > _AT_REST:
            self._write(path.name, key + increment.cuts.records)
        return increment

    def keep_only(self, names: Collection[str]) -> None:
        """Forget the files that are gone."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.name not in names:
                    path.unlink()

    def _read(self, name: str, key: bytes) -> bytes:
        try:
            data = (self._folder / name).read_bytes()
        except OSError:
            return b""
        return data[len(key) :] if data.startswith(key) else b""

    def _write(self, name: str, data: bytes) -> None:
        """Remember, if there is room and this user may; it need not outlive a power cut, and half a file is no harm."""
        with contextlib.suppress(OSError, PortfolioOpsError):
            self._folder.mkdir(parents=True, exist_ok=True)
            require_space(self._folder, len(data))
            descriptor, temporary = tempfile.mkstemp(dir=self._folder)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                Path(temporary).replace(self._folder / name)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise


def forget_all_but(state: Path, timelines: Collection[str]) -> None:
    """Forget the timelines that are gone."""
    with contextlib.suppress(OSError):
        for path in (state / _FOLDER).iterdir():
            if path.name not in timelines:
                shutil.rmtree(path, ignore_errors=True)
