"""A writer without O_APPEND that a rotation cannot see: the hole that it leaves tells, and no line is harmed."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.config import Site
from portfolio_ops.errors import ExitCode, RefusedError
from portfolio_ops.host import messages
from portfolio_ops.logs import holes, writers
from portfolio_ops.logs.live import LiveLog
from portfolio_ops.logs.read import LogReader, Period
from portfolio_ops.logs.writers import Writers
from tests.integration.bomb import EVERY, in_child
from tests.integration.rotation.test_lost import told
from tests.integration.test_doctor import given_away
from tests.integration.test_jobs import asked, call
from tests.require import require_root

OWNER = 1001
LINE = b"a line of some length, so that blocks fill\n"
NULS = bytes(512)

_WRITER = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
for words in sys.stdin.buffer:
    os.write(log, bytes.fromhex(words.decode()))
    print(flush=True)
"""


class Elsewhere:
    """A process that writes a log at its own offset."""

    def __init__(self, log: Path) -> None:
        words = [sys.executable, "-c", _WRITER, str(log)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def write(self, data: bytes) -> bytes:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(data.hex().encode() + b"\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline()
        return data

    def end(self) -> None:
        self.process.communicate()


@contextmanager
def writing(log: Path) -> Iterator[Elsewhere]:
    writer = Elsewhere(log)
    try:
        yield writer
    finally:
        writer.end()


def given(yard: Any) -> None:
    """Give all of a yard to the owner of the site, as it is deployed."""
    (yard.site.root / "data").mkdir()
    subprocess.run(["chown", "-R", f"{OWNER}:{OWNER}", yard.site.root], check=True)
    yard.log.touch()
    os.chown(yard.log, OWNER, OWNER)
    for folder in yard.site.root.parents:  # who is not root must reach it
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(folder.stat().st_mode | 0o011)


def as_owner(yard: Any) -> None:
    """Rotate as the nightly unit does: in a process that is the owner's, and that sees none of root's."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(OWNER, OWNER, OWNER)
        os.setresuid(OWNER, OWNER, OWNER)
        try:
            yard.rotate()
        except RefusedError as error:
            os._exit(ExitCode.REFUSED if "has a hole of" in error.message else 1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise RefusedError(f"code {code}")


def read(yard: Any) -> bytes:
    """The log as one stream, with nothing to warn of."""
    warnings: list[str] = []
    stream = b"".join(LogReader(yard.site, "logs/backend.log", Period(), warnings.append).chunks())
    assert warnings == []
    return stream


def torn(yard: Any) -> bytes:
    """Leave a log with a hole, as an unseen writer without O_APPEND does; all that it wrote."""
    lines = LINE * 1000
    with yard.log.open("wb", buffering=0) as file:
        file.write(lines + b"half a ")
        assert yard.rotate()
        file.write(b"line\n" + lines)
    return lines + b"half a line\n" + lines


@pytest.fixture
def unseeing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets `look` answer as it does where others' processes are hidden, or where there is nobody but who appends."""

    def see(*, appends: bool = False, entitled: bool = False) -> None:
        monkeypatch.setattr(writers, "look", lambda _: Writers((), appends, 0, entitled))

    return see


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "bigalloc"])
def test_the_hole_is_told_refused_and_left_out(kind: str, yard_on: Callable[..., Any]) -> None:
    yard = yard_on(kind)
    given(yard)
    half = b"half a " if kind in {"ext4", "xfs"} else b""  # what is truncated waits for the line's end
    with writing(yard.log) as writer:
        written = writer.write(LINE * 4000 + half)
        as_owner(yard)
        assert holes.look(yard.site, yard.log) == []
        written += writer.write(b"line\n" + LINE) + writer.write(b"more\n")
        live = yard.log.read_bytes()
        assert NULS * 200 in live
        [(start, end)] = holes.look(yard.site, yard.log)
        assert not live[start:end].strip(b"\0")
        assert (0 not in live[:start], live[end:]) == (True, b"line\n" + LINE + b"more\n")
        with pytest.raises(RefusedError, match=f"code {int(ExitCode.REFUSED)}"):
            as_owner(yard)
        with pytest.raises(RefusedError, match="without O_APPEND by process"):
            yard.rotate()
        assert yard.log.read_bytes() == live
    yard.rotate()
    assert f"a hole of {end - start:,} NULs is left out" in yard.journal.of(messages.LOGS_ROTATED)[-1][0]
    assert yard.archived() == written
    assert holes.look(yard.site, yard.log) == []
    written += yard.append(LINE)
    as_owner(yard)
    assert (yard.archived(), read(yard)) == (written, written)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs"])
def test_holes_are_known_to_the_byte(kind: str, yard_on: Callable[..., Any]) -> None:
    yard = yard_on(kind)
    places = ((0, b"first\n"), (300_001, b"second\n"), (312_289, b"third\n"), (700_000, b"fourth\n"))
    with yard.log.open("wb") as file:
        for place, line in places:
            file.seek(place)
            file.write(line)
    with LiveLog(yard.log, yard.site.root) as live:
        found = holes.holes_in(live, 0, live.size)
        content = holes.around(0, live.size, found)
        assert b"".join(bytes(each) for low, high in content for each in live.read(low, high)) == (
            b"first\nsecond\nthird\nfourth\n"
        )
        assert found == [(6, 300_001), (300_008, 312_289), (312_295, 700_000)]
        assert holes.holes_in(live, 300_001, 300_008) == []


def test_nuls_that_were_written_are_the_sites(yard_on: Callable[..., Any], unseeing: Callable[..., None]) -> None:
    yard = yard_on("ext4")
    unseeing()
    written = yard.append(LINE + bytes(100_000) + b"\n" + LINE * 200)
    yard.rotate()
    assert yard.archived() == written


def test_what_rotation_itself_has_freed_is_no_hole(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("bigalloc")  # frees the head, cannot collapse, and waits for the line's end before it truncates
    written = yard.append(LINE * 4000 + b"half a ")
    yard.rotate()
    assert NULS in yard.log.read_bytes()
    assert holes.look(yard.site, yard.log) == []
    written += yard.append(b"line\n")
    yard.rotate()
    assert yard.archived() == written


def test_who_could_not_be_seen_is_told(yard_on: Callable[..., Any], unseeing: Callable[..., None]) -> None:
    yard = yard_on("ext4")
    for appends, entitled, times in ((True, False, 0), (False, True, 0), (False, False, 1)):
        unseeing(appends=appends, entitled=entitled)
        yard.append(LINE)
        yard.rotate()
        assert len(yard.journal.of(messages.WRITER_UNSEEN)) == times
    yard.rotate()  # nothing new
    assert len(yard.journal.of(messages.WRITER_UNSEEN)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xfs", "tmpfs"])
def test_killed_while_a_hole_is_left_out(kind: str, yard_on: Callable[..., Any], unseeing: Callable[..., None]) -> None:
    modules = ("logs/rotate.py", "logs/archive.py", "logs/holes.py", "logs/state.py", "store/publish.py")
    unseeing(entitled=True)
    fuse, events = 1 - EVERY, 0
    while not events:
        fuse += EVERY
        yard = yard_on(kind)
        written = torn(yard)
        events = in_child(yard.rotate, fuse, modules)
        written += yard.append(LINE)
        yard.rotate()
        assert yard.archived() == written, f"killed at event {fuse}"
        assert read(yard) == written, f"killed at event {fuse}"


def test_what_hides_others_is_not_taken_for_their_absence(yard_on: Callable[..., Any]) -> None:
    yard = yard_on("ext4")
    yard.append(LINE)
    given(yard)
    look = (
        "import os, sys; from portfolio_ops.logs import writers; os.setresgid(*[int(sys.argv[2])] * 3); "
        "os.setresuid(*[int(sys.argv[2])] * 3); print(writers.look(os.open(sys.argv[1], os.O_RDONLY)))"
    )
    hidden = 'mount -t proc -o hidepid=invisible proc /proc && exec "$@"'
    python = [sys.executable, "-c", look, str(yard.log)]
    said = {
        who: subprocess.run(words, capture_output=True, text=True, check=True).stdout
        for who, words in {
            "root": [*python, "0"],
            "owner": [*python, str(OWNER)],
            "unit": ["unshare", "--mount", "sh", "-c", hidden, "sh", *python, str(OWNER)],
        }.items()
    }
    assert "entitled=True" in said["root"]
    assert "entitled=False" in said["owner"]
    assert "unseen=0, entitled=False" in said["unit"]


def test_root_sees_a_writer_of_its_own_and_status_tells_a_hole(site: Site) -> None:
    require_root("processes of another user")
    log = site.logs[0]
    log.write_bytes(LINE * 1000)
    given_away(site)
    with writing(log) as writer:
        writer.write(LINE * 1000)
        refused = asked(site, "logs", "rotate", code=4)["errors"][0]
        assert f"{log} is written without O_APPEND by process {writer.process.pid} (" in refused["message"]
        assert log.read_bytes() == LINE * 1000
        said = call(site, "doctor", code=10).stdout
        assert f"(process {writer.process.pid}): a rotation that does not see it leaves a hole of NULs" in said
    call(site, "logs", "rotate")
    assert {path.stat().st_uid for path in [site.backups, *site.backups.rglob("*")]} == {4242}
    assert told(site) == []
    with log.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"behind\n")
    [found] = told(site)
    assert f"{log} has a hole of " in found
    assert "NULs, from its byte " in found
    call(site, "logs", "rotate")
    assert told(site) == []
    assert call(site, "logs", "show").stdout.endswith(LINE.decode() + "behind\n")
