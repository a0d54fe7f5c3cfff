"""A full disk, a failing one and SIGKILL cost nothing that was ever acknowledged."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import sleep

import pytest

from portfolio_ops.errors import VerificationError
from portfolio_ops.sqlite.cuts import Cut
from portfolio_ops.sqlite.increment import scan
from portfolio_ops.sqlite.increment_content import extract, verify
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from portfolio_ops.sqlite.snapshot import Position
from tests.integration.increment.live import ORIGIN, at, head, small, written
from tests.require import require_root


def failing(error: int, *, after: int, only: str) -> pytest.MonkeyPatch:
    """Let a system call fail; a write, once so many bytes went through."""
    patch, real = pytest.MonkeyPatch(), os.pwrite

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal after
        done = real(descriptor, data[:after], offset) if after else 0
        after -= done
        if not done:
            raise OSError(error, os.strerror(error))
        return done

    def fail(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    patch.setattr(os, only, pwrite if only == "pwrite" else fail)
    return patch


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, error: int) -> None:
    first, second, third = small(512, 3)
    with IncrementWriter.create(tmp_path / "a", head(512)) as writer:
        end = first.append_to(writer).end
        for after in (0, 1, 50, 136, 150):
            patch = failing(error, after=after, only="pwrite")
            with pytest.raises(OSError, match=os.strerror(error)):
                second.append_to(writer)
            patch.undo()
            assert (tmp_path / "a").stat().st_size == writer.end == end
            assert scan(tmp_path / "a").torn == 0
        second.append_to(writer)
        third.append_to(writer)
    whole = written(tmp_path / "b", head(512), [first, second, third])
    assert (tmp_path / "a").read_bytes() == whole.path.read_bytes()


@pytest.mark.parametrize("call", ["fdatasync", "ftruncate"])
def test_after_a_failure_that_leaves_doubt_the_writer_is_of_no_more_use(tmp_path: Path, call: str) -> None:
    first, second, third = small(512, 3)
    with IncrementWriter.create(tmp_path / "a", head(512)) as writer:
        end = first.append_to(writer).end
        patch = failing(errno.EIO, after=0, only=call)
        full = failing(errno.ENOSPC, after=40, only="pwrite") if call == "ftruncate" else None
        with pytest.raises(OSError, match="Input/output error"):
            second.append_to(writer)
        patch.undo()
        if full is not None:
            full.undo()
        assert writer.end == end
        for flush in (second, third):
            with pytest.raises(ValueError, match="has failed"):
                flush.append_to(writer)
    with IncrementWriter.resume(tmp_path / "a") as writer:
        flushes = [second, third] if call == "ftruncate" else [third]
        for flush in flushes:
            flush.append_to(writer)
    found = scan(tmp_path / "a")
    assert len(found.cuts) == 3
    assert verify(found) == found


def test_what_is_gone_on_with_is_durable_first(tmp_path: Path) -> None:
    """The process before may have died between its write and its fdatasync."""
    made = written(tmp_path / "a", head(512), small(512, 2))
    patch = failing(errno.EIO, after=0, only="fsync")
    with pytest.raises(OSError, match="Input/output error"):
        IncrementWriter.resume(made.path)
    patch.undo()
    IncrementWriter.resume(made.path).close()


def test_a_file_that_cannot_be_begun_leaves_nothing(tmp_path: Path) -> None:
    patch = failing(errno.ENOSPC, after=0, only="fsync")
    with pytest.raises(OSError, match="No space left"):
        IncrementWriter.create(tmp_path / "a", head(512))
    patch.undo()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="no WAL has pages of 500 bytes"):
        IncrementWriter.create(tmp_path / "a", head(500))
    assert list(tmp_path.iterdir()) == []


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    made = written(tmp_path / "a", head(512), small(512, 2))
    damaged = tmp_path / "b"
    damaged.write_bytes(made.path.read_bytes()[:-1] + b"\xff")
    before = sorted(Path("/proc/self/fd").iterdir())
    IncrementWriter.resume(made.path).close()
    with pytest.raises(VerificationError):
        IncrementWriter.resume(damaged)
    with pytest.raises(VerificationError):
        extract(scan(damaged), made.cuts[-1], tmp_path / "target")
    for name in ("fsync", "link"):
        patch = failing(errno.EIO, after=0, only=name)
        with pytest.raises(OSError, match="Input/output error"):
            IncrementWriter.create(tmp_path / "c", head(512))
        patch.undo()
    assert sorted(Path("/proc/self/fd").iterdir()) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 256 KiB."""
    require_root("a full disk, which is only acted out else")
    target = tmp_path / "disk"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(target)], check=True)
    yield target
    subprocess.run(["umount", str(target)], check=True)


def test_a_full_disk_costs_no_flush_that_was_acknowledged(small_disk: Path, tmp_path: Path) -> None:
    chooser, path, position, cuts = Random(1), small_disk / "a", ORIGIN, list[Cut]()
    with IncrementWriter.create(path, head(4096)) as writer:
        while True:
            pages = [(page, chooser.randbytes(4096)) for page in range(1, chooser.randint(2, 9))]
            to = Position("11" * 8, position.frame + 9)
            try:
                cuts.append(writer.append(pages, 9, position, to, at(len(cuts))))
            except OSError:
                break
            position = to
        assert scan(path).cuts == tuple(cuts)
        assert scan(path).torn == 0
        cuts.append(writer.append([(1, bytes(4096))], 9, position, to, at(len(cuts))))
    with pytest.raises(OSError, match="No space left"):
        extract(scan(path), cuts[-1], small_disk / "target")
    assert [entry.name for entry in small_disk.iterdir()] == ["a"]
    IncrementWriter.resume(path).close()
    extract(scan(path), cuts[-1], tmp_path / "target")
    assert verify(scan(path)).cuts == tuple(cuts)


_APPENDING = """
import sys
from pathlib import Path
from random import Random
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from portfolio_ops.sqlite.increment import scan
from portfolio_ops.sqlite.snapshot import Position
from tests.integration.increment.live import ORIGIN, at, head

path = Path(sys.argv[1])
if path.exists():
    writer, done = IncrementWriter.resume(path), len(scan(path).cuts)
else:
    writer, done = IncrementWriter.create(path, head(4096)), 0
print(done, flush=True)
while True:
    done += 1
    chooser = Random(done)
    pages = [(page, chooser.randbytes(4096)) for page in range(1, chooser.choice([2, 3, 9, 200]))]
    before, to = ORIGIN if done == 1 else Position("11" * 8, done - 1), Position("11" * 8, done)
    writer.append(pages, 200, before, to, at(done))
    print(done, flush=True)
"""


def test_killed_at_many_points_it_has_all_that_was_acknowledged(tmp_path: Path) -> None:
    chooser, path, acknowledged = Random(11), tmp_path / "a", 0
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", _APPENDING, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(chooser.randint(1, 8))]
        assert int(lines[0]) in {acknowledged, acknowledged + 1}
        sleep(chooser.random() * 0.02)
        process.kill()
        lines += process.communicate()[0].splitlines()
        acknowledged = int(lines[-1])
        found = scan(path)
        assert not found.damaged
        assert acknowledged <= len(found.cuts) <= acknowledged + 1
    assert verify(found) == found
    assert [cut.position.frame for cut in found.cuts] == list(range(1, len(found.cuts) + 1))
    assert acknowledged > 20
