"""A log as one stream of bytes: its archives in order, then what only the live file holds.

No lock is taken, so a pager left open never holds up a rotation. Positions in the stream make that possible: they stay
true while a rotation moves bytes from the file into an archive, and the file's memory is compared before and after
every read of it.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.errors import NotFoundError, UsageError
from portfolio_ops.host.files import name_below, require_dense
from portfolio_ops.logs.live import LiveLog
from portfolio_ops.logs.state import State, Step, memory_of, settle
from portfolio_ops.store import catalogue, lock
from portfolio_ops.store.artifact import Artifact, Kind, decode

_CHUNK = 1 << 20
_LINE_MOST = 16 << 20
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Period:
    """Which pieces are wanted: those that may hold lines written within it. None: no limit on that side."""

    since: datetime | None = None
    until: datetime | None = None

    def touches(self, began: datetime | None, ended: datetime | None) -> bool:
        """Whether a piece written between the two moments (None: unknown, or still going on) may hold wanted lines."""
        after = self.since is None or ended is None or ended >= self.since
        return after and (self.until is None or began is None or began <= self.until)


def choose(site: Site, name: str | None) -> str:
    """The log that is meant, as its path below the site's root.

    Args:
        name: That path, or the file's name with or without its ending; None where there is only one.

    Raises:
        UsageError: Several are meant.
        NotFoundError: None is.
    """
    names = [name_below(log, site.root) for log in site.logs]
    names += [str(artifact.metadata.details.get("log")) for artifact in _archives(site)]
    names = list(dict.fromkeys(names))
    found = [each for each in names if name is None or name in {each, Path(each).name, Path(each).stem}]
    if name in found:
        return str(name)
    if len(found) > 1:
        raise UsageError(f"several logs are meant: {', '.join(found)}", suggestion="say which: --log NAME")
    if not found:
        known = f"there are: {', '.join(names)}" if names else "[logs] files is empty"
        raise NotFoundError("there is no such log" if name else "the site has no log", suggestion=known)
    return found[0]


def _stream_of(artifact: Artifact) -> tuple[str, int]:
    """Which stream an archive is of, and where in it that begins."""
    return artifact.metadata.details["stream"], int(artifact.metadata.details["from"])


def _archives(site: Site) -> list[Artifact]:
    return list(catalogue.scan(site.backups, site.name, [Kind.LOGS]).artifacts)


class LogReader:
    """One reading of one log.

    Args:
        log: Its path below the site's root.
        warn: Told, in one line each, of what is missing.
    """

    def __init__(self, site: Site, log: str, period: Period, warn: Callable[[str], None]) -> None:
        self._site, self._log, self._period, self._warn = site, log, period, warn
        self._seen: set[str] = set()
        self._position: dict[str, int] = {}

    def pieces(self) -> list[Artifact]:
        """The archives of this log that the period touches, oldest first."""
        return [artifact for artifact in self._of_log() if self._wanted(artifact)]

    def chunks(self) -> Iterator[bytes]:
        """All bytes of the wanted pieces, in order and in constant memory.

        Raises:
            VerificationError: An archive is damaged.
            RefusedError: The log is no plain file of this site, or a terabyte of nothing.
        """
        for artifact in self._of_log():
            yield from self._archive_chunks(artifact)
        yield from self._live_chunks()

    def _of_log(self) -> list[Artifact]:
        """The archives of this log, as its bytes follow each other: within a stream by position, for clocks go back."""
        found = [each for each in _archives(self._site) if each.metadata.details.get("log") == self._log]
        streams = list(dict.fromkeys(each.metadata.details["stream"] for each in found))
        return sorted(found, key=lambda each: (streams.index(_stream_of(each)[0]), _stream_of(each)[1]))

    def _wanted(self, artifact: Artifact) -> bool:
        since = artifact.metadata.details.get("since")
        return self._period.touches(datetime.fromisoformat(since) if since else None, artifact.taken)

    def _archive_chunks(self, artifact: Artifact) -> Iterator[bytes]:
        """What an archive holds beyond what was shown already."""
        details = artifact.metadata.details
        (stream, start), end = _stream_of(artifact), int(details["to"])
        self._seen.add(artifact.id)
        position = self._position.get(stream, start)
        if start > position and self._period.touches(None, artifact.taken):
            self._warn(f"{start - position:,} bytes before {artifact.path.name} are in no archive any more")
        self._position[stream] = max(position, end)
        if not self._wanted(artifact):
            return
        skip = position - start
        with artifact.path.open("rb") as file:
            for chunk in decode(file, artifact.payload.bytes):
                if skip < len(chunk):
                    yield chunk[max(skip, 0) :]
                skip -= len(chunk)

    def _live_chunks(self) -> Iterator[bytes]:
        """What the live file holds beyond its archived head, up to its present end."""
        try:
            live = LiveLog(self._site.root / self._log, self._site.root, os.O_RDONLY)
        except NotFoundError:
            return
        with live:
            memory = memory_of(live.descriptor, self._site.state, self._log)
            found, state = self._steady(live, memory.load)
            if state.archived_to > self._position.get(state.stream, 0):
                yield from self._newly_archived()  # by a rotation since the archives were listed
            cut_at = datetime.fromisoformat(state.cut_at) if state.cut_at else None
            if not self._period.touches(cut_at, None):
                return
            end = state.base + live.size
            position = max(state.archived_to, self._position.get(state.stream, 0))
            require_dense(live.descriptor, live.path, start=position - state.base)
            while position < end:
                data = os.pread(live.descriptor, min(_CHUNK, end - position), position - state.base)
                if memory.load() == found:
                    if not data:
                        return
                    yield data
                    position += len(data)
                    continue
                # A rotation went on meanwhile: those bytes may have moved. Judge the file again, at the same position.
                stream = state.stream
                found, state = self._steady(live, memory.load)
                self._position[state.stream] = position
                if state.archived_to > position:
                    yield from self._newly_archived()
                    position = max(self._position[state.stream], state.archived_to)
                if found is not None and found.stream != stream:
                    end = state.base + live.size

    def _newly_archived(self) -> Iterator[bytes]:
        for artifact in self._of_log():
            if artifact.id not in self._seen:
                yield from self._archive_chunks(artifact)

    def _steady(self, live: LiveLog, load: Callable[[], State | None]) -> tuple[State | None, State]:
        """What is noted of the file, and what is true of it, at a moment when no rotation is removing its head."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            found = load()
            if found is None or found.step is not Step.REMOVING:
                break
            if not lock.is_held(self._site.state, Kind.LOGS.value) or time.monotonic() > deadline:
                self._warn(f"the last rotation was interrupted; run `{tool()} logs rotate` to finish it")
                break
            time.sleep(_POLL_SECONDS)
        # Publishing: what of it is published is among the archives, and known by its position.
        state = settle(found, live, published=False)
        return found, state


def matching_lines(chunks: Iterable[bytes], pattern: re.Pattern[bytes]) -> Iterator[bytes]:
    """The lines in which `pattern` is found, with their ends. A line beyond 16 MiB counts as several."""
    rest = b""
    for chunk in chunks:
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        yield from (line + b"\n" for line in lines if pattern.search(line))
        if len(rest) > _LINE_MOST:
            if pattern.search(rest):
                yield rest
            rest = b""
    if rest and pattern.search(rest):
        yield rest
