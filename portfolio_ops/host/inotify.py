"""Being woken when something changes in a folder (inotify(7)), and never otherwise."""

import contextlib
import ctypes
import errno
import os
import select
import struct
from pathlib import Path
from types import TracebackType
from typing import Self

# <sys/inotify.h>
_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
_CHANGES = _MODIFY | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_OVERFLOW = 0x4000
_EVENT = struct.Struct("iIII")
_BUFFER = 1 << 16


class Watch:
    """Watches folders for changes of the files in them; a process sleeps in `wait` until one comes."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._called(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._wake_end, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, Path] = {}
        self._closing: dict[int, Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in (self._descriptor, self._wake_end, self._wake):
            os.close(descriptor)

    def add(self, folder: Path) -> None:
        """Watch a folder; one that is watched already may be named again.

        Raises:
            OSError: It does not exist, or may not be read; or the host allows no more watches.
        """
        self._folders[self._watched(folder, _CHANGES)] = folder

    def closing(self, file: Path | None) -> bool:
        """Watch one file for being closed by somebody who may write it, also in a `pause`; None: none any more.

        Returns:
            Whether it was not watched before, and may have been closed unseen.

        Raises:
            OSError: As `add`.
        """
        before = self._closing
        self._closing = {} if file is None else {self._watched(file, _CLOSE_WRITE): file}
        for number in before.keys() - self._closing.keys():
            self._libc.inotify_rm_watch(self._descriptor, number)
        return self._closing != before and file is not None

    def _watched(self, path: Path, mask: int) -> int:
        name, kinds = os.fsencode(path), ctypes.c_uint32(mask)
        return self._called(self._libc.inotify_add_watch(self._descriptor, name, kinds))

    def wait(self, seconds: float | None) -> set[Path]:
        """Sleep until something changes.

        Args:
            seconds: At most so long; None for as long as nothing happens.

        Returns:
            What changed; empty after `seconds`, after `interrupt`, or if so much happened that the kernel lost count.
        """
        ready, _, _ = select.select([self._descriptor, self._wake_end], [], [], seconds)
        if self._wake_end in ready:
            os.read(self._wake_end, _BUFFER)
        return self._changed() if self._descriptor in ready else set()

    def pause(self, seconds: float) -> set[Path]:
        """Sleep, whatever changes in the folders; only `interrupt` ends it early, and what `closing` watches.

        They are not watched while it lasts: the kernel notes each change of a watched file at the cost of who makes it,
        some 2 microseconds for each write(2). A folder that is gone at the end is not watched any more.

        Returns:
            The file that was closed; empty otherwise.
        """
        folders = list(self._folders.values())
        for number in self._folders:
            self._libc.inotify_rm_watch(self._descriptor, number)
        self._folders.clear()
        closed = self._changed()  # and what else is told of until now, which would end it
        if not closed:
            ready, _, _ = select.select([self._descriptor, self._wake_end], [], [], seconds)
            if self._wake_end in ready:
                os.read(self._wake_end, _BUFFER)
            closed = self._changed()
        for folder in folders:
            with contextlib.suppress(FileNotFoundError):
                self.add(folder)
        return closed

    def interrupt(self) -> None:
        """End a `wait`, or the next one; for signal handlers."""
        try:
            os.write(self._wake, b"x")
        except BlockingIOError:  # it is full of wake-ups already
            return

    def _changed(self) -> set[Path]:
        changed: set[Path] = set()
        while True:
            try:
                data = os.read(self._descriptor, _BUFFER)
            except BlockingIOError:
                return changed
            offset = 0
            while offset < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size
                name = data[offset : offset + length].rstrip(b"\0")
                offset += length
                place = self._folders.get(number) or self._closing.get(number)
                if not mask & _OVERFLOW and place is not None:
                    changed.add(place / os.fsdecode(name))

    @staticmethod
    def _called(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            cure = " (fs.inotify.max_user_watches)" if number == errno.ENOSPC else ""
            raise OSError(number, f"{os.strerror(number)}{cure}")
        return result
