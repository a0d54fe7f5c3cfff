"""What is remembered of increments saves reading them, and changes nothing of what is said."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from portfolio_ops.restore import audit, points
from portfolio_ops.sqlite.cuts import RECORD, Cuts
from portfolio_ops.sqlite.increment import scan
from portfolio_ops.store import records, timeline
from tests.integration.archive.archiver import archiving
from tests.integration.archive.test_moments import NOTE


@pytest.fixture
def files(site: Site) -> list[Path]:
    """Two files of three flushes each, at rest for an hour."""
    with archiving(site) as archive:
        archive.base()
        for _ in range(2):
            for _ in range(3):
                archive.change(NOTE)
            archive.next_file()
        made = archive.files()
    for path in made:
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    return made


def memory(site: Site) -> list[Path]:
    return sorted(path for path in (site.state / "records").rglob("*") if path.is_file())


def reads(site: Site, monkeypatch: pytest.MonkeyPatch) -> tuple[int, object]:
    """How many records are read from the files, and what is found."""
    pread, count = os.pread, 0

    def counted(descriptor: int, length: int, at: int) -> bytes:
        nonlocal count
        count += length == RECORD
        return pread(descriptor, length, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", counted)
        found = [history.timeline for history in points.read(site)]
    return count, found


def test_what_was_read_once_is_not_read_again(site: Site, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, found = reads(site, monkeypatch)
    assert first == 2 * (3 + 1)  # and where the next would be
    assert [path.name for path in memory(site)] == [path.name for path in files]
    assert reads(site, monkeypatch) == (2, found)


def test_a_file_that_has_changed_is_read(site: Site, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = reads(site, monkeypatch)
    os.utime(files[0])
    assert reads(site, monkeypatch) == (1 + 4, found)


@pytest.mark.parametrize("part", [0, 10, 40, 100, -1])
def test_a_memory_that_lies_is_not_believed(
    site: Site, files: list[Path], monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    _, found = reads(site, monkeypatch)
    for path in memory(site):
        data = bytearray(path.read_bytes())
        data[part] ^= 1
        path.write_bytes(data)
    count, again = reads(site, monkeypatch)
    assert again == found
    assert count > len(files)
    for path in memory(site):
        path.write_bytes(path.read_bytes()[:-20])
    assert reads(site, monkeypatch)[1] == found


@pytest.mark.usefixtures("files")
def test_the_memory_of_another_file_is_not_believed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = reads(site, monkeypatch)
    one, two = memory(site)
    key = records._KEY.size
    one.write_bytes(one.read_bytes()[:key] + two.read_bytes()[key:])
    assert reads(site, monkeypatch)[1] == found


def test_a_file_that_grows_or_is_damaged_is_not_remembered(site: Site, files: list[Path]) -> None:
    os.utime(files[0])
    data = bytearray(files[1].read_bytes())
    data[scan(files[1]).cuts[0].end + 20] ^= 1
    files[1].write_bytes(data)
    os.utime(files[1], (time.time() - 3600, time.time() - 3600))
    points.read(site)
    assert memory(site) == []


def test_what_is_gone_is_forgotten(site: Site, files: list[Path]) -> None:
    points.read(site)
    files[1].unlink()
    points.read(site)
    assert [path.name for path in memory(site)] == [files[0].name]
    files[0].unlink()
    files[0].parent.rmdir()
    points.read(site)
    assert memory(site) == []


def test_a_proof_reads_the_disk(site: Site, files: list[Path]) -> None:
    points.read(site)
    status = files[0].stat()
    data = bytearray(files[0].read_bytes())
    data[scan(files[0]).cuts[0].end + 20] ^= 1
    files[0].write_bytes(data)
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert points.damages(points.read(site)) == []
    assert [path for path, _ in audit.audit(site)[1]] == [files[0]]


def test_cuts_are_what_was_written(site: Site, files: list[Path]) -> None:
    [found] = [timeline.read(site.backups, name, site.name) for name in timeline.ids(site.backups)]
    for each in found.increments:
        cuts = tuple(each.cuts)
        assert Cuts.of(cuts) == each.cuts == cuts
        assert [each.cuts.index(cut) for cut in cuts] == [0, 1, 2]
        assert each.cuts[-2:] == cuts[1:]
        with pytest.raises(ValueError, match="of another file"):
            each.cuts.index(replace(cuts[0], pages=cuts[0].pages + 1))
    assert len(files) == 2
