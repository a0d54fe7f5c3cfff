"""Pages that differ, as increments: SQLite brings a base to each state that was looked at, byte for byte."""

import os
import struct
from array import array
from collections.abc import Iterable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from portfolio_ops.errors import RefusedError
from portfolio_ops.sqlite import look as looks
from portfolio_ops.sqlite.difference import DIGEST, Fingerprint, PageHashes, named
from portfolio_ops.sqlite.increment_writer import IncrementWriter
from portfolio_ops.sqlite.lineage import TimelineEndedError
from portfolio_ops.sqlite.look import RestlessError, change_counter_of, has_wal, opened
from portfolio_ops.sqlite.merge import merge, prove_equal
from portfolio_ops.sqlite.snapshot import Position, snapshot
from tests.integration.increment.live import head, restored
from tests.integration.increment.rollback import Archived, Rollback, archiving, made
from tests.integration.wal.files import PAGE_SIZES

searching = settings(
    max_examples=25,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
HISTORIES = given(page_size=st.sampled_from(PAGE_SIZES), seed=st.integers(0, 2**32))


def some_files(archived: Archived) -> None:
    """One to three files, of up to six looks each; between two looks, up to four changes."""
    chooser, live = archived.live.chooser, archived.live
    for _ in range(chooser.randint(1, 3)):
        with archived.file() as writer:
            for _ in range(chooser.randint(1, 6)):
                for _ in range(chooser.randint(0, 4)):
                    event(live.change())
                if chooser.random() < 0.7:
                    live.age()
                archived.flush(writer, chooser.choice([0.5, 20, 90]))


def check_every_state(archived: Archived, scratch: Path) -> None:
    """From each state on, all that come after it are reached: each might have been a base."""
    cuts = [(number, cut) for number, file in enumerate(archived.files) for cut in file.cuts]
    states = [(0, archived.base), *((number, cut.position) for number, cut in cuts)]
    for begin, (first, position) in enumerate(states):
        for number, cut in cuts[begin:]:
            found = restored(archived.images[position], archived.files[first : number + 1], cut, scratch)
            assert found == archived.images[cut.position]


def check_merged(archived: Archived, scratch: Path) -> None:
    """Merged to minutes, the states that stay are as they were."""
    files = archived.files
    path = scratch / "merged.wal.zst"
    path.unlink(missing_ok=True)
    with IncrementWriter.create(path, head(archived.live.page_size, 60)) as writer:
        minutes = merge(files, writer, scratch)
    prove_equal(files, minutes)
    for cut in minutes.cuts:
        found = restored(archived.images[archived.base], [minutes], cut, scratch)
        assert found == archived.images[cut.position]


@searching
@HISTORIES
def test_every_state_that_was_looked_at(tmp_path: Path, page_size: int, seed: int) -> None:
    with made(tmp_path, page_size, seed) as live:
        for _ in range(live.chooser.randint(0, 5)):
            live.change()
        with archiving(live, tmp_path) as archived:
            some_files(archived)
            check_every_state(archived, tmp_path)
            if archived.files:
                check_merged(archived, tmp_path)


@pytest.mark.soak
@settings(searching, max_examples=int(os.environ.get("PAGES_EXAMPLES", "1500")))
@HISTORIES
def test_every_state_that_was_looked_at_for_long(tmp_path: Path, page_size: int, seed: int) -> None:
    with made(tmp_path, page_size, seed) as live, archiving(live, tmp_path) as archived:
        some_files(archived)
        check_every_state(archived, tmp_path)
        if archived.files:
            check_merged(archived, tmp_path)


@pytest.fixture
def live(tmp_path: Path) -> Any:
    with made(tmp_path, 1024, 7) as site:
        site.connection.execute("PRAGMA journal_mode=delete").fetchall()
        for _ in range(40):
            site.connection.execute("INSERT INTO rows(body) VALUES(noise(2000))")
        yield site


def test_a_backup_names_its_state_as_the_archive_does(live: Rollback, tmp_path: Path) -> None:
    with archiving(live, tmp_path) as archived, snapshot(live.database, tmp_path) as image:
        fingerprint = Fingerprint(image.page_size)
        for chunk in image.chunks():
            fingerprint.add(chunk)
        assert fingerprint.position == archived.base
        assert archived.base.frame == change_counter_of(live.database)
        assert archived.base.salts == named(bytes(archived.hashes.digests))


def test_what_was_changed_and_changed_back_is_in_no_difference(live: Rollback, tmp_path: Path) -> None:
    """Why a base must stand at a restore point: one from the middle would keep what was there for a moment."""
    live.connection.execute("DROP INDEX by_body")
    with archiving(live, tmp_path) as archived:
        [(body,)] = live.connection.execute("SELECT body FROM rows WHERE id = 30").fetchall()
        live.connection.execute("UPDATE rows SET body = zeroblob(2000) WHERE id = 30")
        middle = live.image()
        hashes = PageHashes.of(live.page_size, [memoryview(middle)])
        live.connection.execute("UPDATE rows SET body = ? WHERE id = 30", (body,))
        with archived.file() as writer:
            cut = archived.flush(writer, 1)
        assert cut is not None
        assert cut.frames == 1  # the counter of changes, nothing else
        assert restored(archived.images[archived.base], archived.files, cut, tmp_path) == live.image()
        assert restored(middle, archived.files, cut, tmp_path) != live.image()
        assert hashes.position not in archived.images


def committed(chunks: Iterable[memoryview], meanwhile: Any) -> bytes:
    """All of an image, with something done as its first part passes by."""
    content = b""
    for number, chunk in enumerate(chunks):
        content += chunk
        if number == 0:
            meanwhile()
    return content


def test_what_a_transaction_wrote_and_took_back_is_not_taken_for_committed(
    live: Rollback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the counter of changes nor the content tells afterwards."""
    monkeypatch.setattr(looks, "_TICK", 0.0)
    monkeypatch.setattr("portfolio_ops.sqlite.snapshot._CHUNK", 4096)
    before, tries = live.image(), []

    def spill() -> None:
        tries.append("spilt")
        if len(tries) > 1:
            return
        live.connection.execute("BEGIN")
        live.connection.execute("UPDATE rows SET body = zeroblob(2000)")
        assert live.image() != before

    def read(chunks: Iterable[memoryview]) -> bytes:
        try:
            return committed(chunks, spill)
        finally:
            if live.connection.in_transaction:
                live.connection.execute("ROLLBACK")

    with opened(live.database, tmp_path) as looker:
        live.age()
        assert looker.look(read, lambda: None) == before
        assert len(tries) == 2
        assert looker.held > 0
        assert change_counter_of(live.database) == looker.counter
        assert live.image() == before


def test_a_file_that_finds_no_rest_is_not_held_for_long(
    live: Rollback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "_HOLD_MOST", 0.0)
    monkeypatch.setattr(looks, "clone", lambda *_: False)
    live.connection.execute("UPDATE rows SET body = noise(2000)")
    with opened(live.database, tmp_path) as looker:
        with pytest.raises(RestlessError, match="written all the time"):
            looker.look(lambda chunks: committed(chunks, lambda: None), lambda: None)
        live.connection.execute("UPDATE rows SET body = noise(2000)")  # nothing is held any more
        live.age()
        assert looker.look(lambda chunks: committed(chunks, lambda: None), lambda: None) == live.image()


@pytest.mark.parametrize("rests", [True, False])
def test_what_was_committed_before_a_look_is_in_it(live: Rollback, tmp_path: Path, *, rests: bool) -> None:
    """So its moment is not later than its beginning."""
    with opened(live.database, tmp_path) as looker:
        for _ in range(2):
            live.connection.execute("UPDATE rows SET body = noise(2000)")
            if rests:
                live.age()
            moments: list[datetime] = []
            looker.look(lambda chunks: committed(chunks, lambda: moments.append(datetime.now(UTC))), lambda: None)  # noqa: B023
            assert (looker.held > 0) is not rests
            assert looker.looked < moments[0]


def test_a_commit_while_it_is_read(live: Rollback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portfolio_ops.sqlite.snapshot._CHUNK", 4096)
    done: list[str] = []

    def commit() -> None:
        if not done:
            live.connection.execute("UPDATE rows SET body = noise(2000)")
        done.append("read")

    with opened(live.database, tmp_path) as looker:
        live.age()
        assert looker.look(lambda chunks: committed(chunks, commit), lambda: None) == live.image()
        assert len(done) == 2
        assert not looker.is_behind()
        assert looker.look(lambda _: pytest.fail("it is read again"), lambda: None) is None


def test_at_rest_it_is_read_without_a_lock(live: Rollback, tmp_path: Path) -> None:
    with opened(live.database, tmp_path) as looker:
        live.age()

        def write() -> None:
            connection = apsw.Connection(str(live.database))
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("ROLLBACK")
            connection.close()

        assert looker.look(lambda chunks: committed(chunks, write), lambda: None) == live.image()
        assert looker.held == 0


def test_what_it_cannot_go_on_with(live: Rollback, tmp_path: Path) -> None:
    def looked(statement: str) -> None:
        with opened(live.database, tmp_path) as looker:
            for words in statement.split(";"):
                live.connection.execute(words).fetchall()
            looker.look(lambda chunks: committed(chunks, lambda: None), lambda: None)

    with pytest.raises(TimelineEndedError, match="page size changed from 1024 to 4096"):
        looked("PRAGMA page_size=4096;VACUUM")
    assert has_wal(live.database) is False
    with pytest.raises(TimelineEndedError, match="given the database a WAL"):
        looked("PRAGMA journal_mode=wal")
    assert has_wal(live.database) is True
    assert change_counter_of(live.database) is None
    with pytest.raises(RefusedError, match="has a WAL"):
        looked("SELECT 1")
    live.connection.execute("PRAGMA journal_mode=delete").fetchall()
    with opened(live.database, tmp_path) as looker:
        copy = live.database.with_name("copy")
        copy.write_bytes(live.image())
        copy.replace(live.database)
        with pytest.raises(TimelineEndedError, match="was replaced"):
            looker.look(lambda chunks: committed(chunks, lambda: None), lambda: None)


def test_an_empty_database_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert has_wal(tmp_path / "empty") is None
    assert has_wal(tmp_path / "missing") is None
    with opened(tmp_path / "empty", tmp_path) as looker, pytest.raises(RefusedError, match="is empty"):
        looker.look(lambda _: 1, lambda: None)


class Sparse:
    """An image of zeros but for some pages, as large as is wanted, never in memory."""

    def __init__(self, page_size: int, pages: int, content: dict[int, bytes]) -> None:
        self.page_size, self.pages, self.content = page_size, pages, content

    def __iter__(self) -> Any:
        step = (1 << 20) // self.page_size
        for first in range(1, self.pages + 1, step):
            chunk = bytearray(min(step, self.pages - first + 1) * self.page_size)
            for number, page in self.content.items():
                if first <= number < first + step:
                    at = (number - first) * self.page_size
                    chunk[at : at + self.page_size] = page
            yield memoryview(chunk)


def test_the_page_of_the_locks_is_none() -> None:
    locked = (1 << 30) // 65536 + 1
    before = PageHashes.of(65536, Sparse(65536, locked + 1, {}))
    content = dict.fromkeys((locked - 1, locked, locked + 1, locked + 2), b"x" * 65536)
    found = before.compared(Sparse(65536, locked + 2, content), BytesIO())
    assert found.numbers == array("I", [locked - 1, locked + 1, locked + 2])
    assert [page[:1] for _, page in found.pages()] == [b"x"] * 3
    del content[locked]
    assert before.compared(Sparse(65536, locked + 2, content), BytesIO()).position == found.position
    shorter = PageHashes.of(65536, Sparse(65536, locked - 1, {}))
    assert shorter.compared(Sparse(65536, locked, {}), BytesIO()).numbers == array("I", [1])


def test_a_file_that_was_cut_off_by_force() -> None:
    """By no means of SQLite's: then no page differs, and the state does."""
    chooser = Random(3)
    pages = [chooser.randbytes(512) for _ in range(5)]
    hashes = PageHashes.of(512, [memoryview(b"".join(pages))])
    assert hashes.position.frame == struct.unpack_from(">I", pages[0], 24)[0]
    found = hashes.compared([memoryview(b"".join(pages[:3]))], BytesIO())
    assert (list(found.pages()), found.database_pages) == ([(1, pages[0])], 3)
    hashes.take(found)
    assert hashes.position == found.position == PageHashes.of(512, [memoryview(b"".join(pages[:3]))]).position
    assert len(hashes.digests) == 3 * DIGEST
    assert isinstance(hashes.position, Position)


@pytest.mark.parametrize("filesystem", ["knows files without a name", "knows none"])
def test_a_copy_gets_a_name(live: Rollback, tmp_path: Path, filesystem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if filesystem == "knows none":
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # refused, as by a kernel that does not know it: EISDIR
    with snapshot(live.database, tmp_path) as image:
        live.connection.execute("DELETE FROM rows WHERE id > 30")
        content = b"".join(bytes(chunk) for chunk in image.chunks())
        image.name_copy(tmp_path / "named")
        with pytest.raises(FileExistsError):
            image.name_copy(tmp_path / "named")
    assert (tmp_path / "named").read_bytes() == content != live.image()
    moment = datetime.fromtimestamp((tmp_path / "named").stat().st_mtime, UTC)
    assert abs((moment - image.looked).total_seconds()) < 1e-5
    live.connection.execute("PRAGMA journal_mode=wal").fetchall()
    with snapshot(live.database, tmp_path) as image, pytest.raises(ValueError, match="is not copied"):
        image.name_copy(tmp_path / "other")
