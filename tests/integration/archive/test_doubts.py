"""Where the archive cannot be sure of what passed, another timeline begins; where it can, no alarm is given."""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest

from portfolio_ops.config import Site
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host.inotify import Watch
from portfolio_ops.host.journal import Log
from portfolio_ops.jobs import pace
from portfolio_ops.jobs.follow import Follower
from portfolio_ops.jobs.following import Orders
from portfolio_ops.moment import exact
from portfolio_ops.restore.points import windows
from portfolio_ops.sqlite.pin import Pin, pinned
from portfolio_ops.sqlite.snapshot import Position
from portfolio_ops.sqlite.wal import FRAME_HEADER, HEADER
from portfolio_ops.sqlite.wal_index import WalIndex, read_wal_index
from portfolio_ops.store import timeline, witness
from tests.integration.archive.archiver import Writer
from tests.integration.archive.conftest import Operator
from tests.integration.archive.oracle import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path)
    yield made
    made.end()


CHANGE = "INSERT INTO comments(body) VALUES(hex(randomblob(3000)))"


@pytest.fixture
def writer(site: Site) -> Iterator[Writer]:
    made = Writer(site.database)
    yield made
    made.close()


@contextlib.contextmanager
def following(site: Site, ended: str = "") -> Iterator[Follower]:
    """What the daemon does with the database, without its loop."""
    site.state.mkdir(mode=0o750, parents=True, exist_ok=True)
    with pinned(site.database) as pin, Watch() as watch:
        yield Follower(site, pin, Log(site=site.name, job="archive"), watch, Orders(), ended=ended)


def archived(site: Site, writer: Writer) -> None:
    """A timeline with a base and a restore point, at the end of a WAL that goes on; nobody follows it any more."""
    for _ in range(2):  # the second time there is no base to wait for, and no rest in which the WAL is sealed
        with following(site) as follower:
            writer.run(CHANGE)
            follower.run(once=True)
    assert len(timeline.ids(site.backups)) == 1


def test_what_is_in_the_main_file_already_can_be_overwritten_before_it_is_read(
    site: Site, writer: Writer, operator: Operator
) -> None:
    """The last archived frame is still there, and what came since is about to go."""
    archived(site, writer)
    writer.run(CHANGE, "PRAGMA wal_checkpoint(PASSIVE)")
    with following(site) as follower:
        writer.run(CHANGE)
        follower.run(once=True)
        digest = writer.digest()
    assert len(timeline.ids(site.backups)) == 2
    assert operator.restored("--at", exact(windows(site)[-1].last))[0] == digest


def test_all_of_it_archived_and_in_the_main_file_it_goes_on(site: Site, writer: Writer, operator: Operator) -> None:
    archived(site, writer)
    writer.run("PRAGMA wal_checkpoint(PASSIVE)")
    with following(site) as follower:
        writer.run(CHANGE)
        follower.run(once=True)
        digest = writer.digest()
    assert len(timeline.ids(site.backups)) == 1
    assert operator.restored("--at", exact(windows(site)[-1].last))[0] == digest


def test_a_base_of_the_same_second_is_none_of_the_next_timeline(site: Site, writer: Writer) -> None:
    """The archive was killed as soon as its base was there, and began again."""
    while datetime.now(UTC).microsecond > 100_000:
        time.sleep(0.01)
    with following(site) as follower:
        follower.run(once=True)
    (site.state / "archive-position").unlink()  # who is killed has proved nothing
    writer.run(CHANGE)
    with following(site) as follower:
        writer.run(CHANGE)
        follower.run(once=True)
    first, second = timeline.ids(site.backups)
    assert len(list((site.backups / "wal").glob("base-*"))) == 2
    assert [window.timeline for window in windows(site)] == [first, second]


def test_archiving_once_fails_where_no_base_can_be_made(site: Site) -> None:
    site.file.write_text(site.file.read_text() + f'backups = "{site.root / "other"}"\n')  # of the other process only
    (site.root / "other").write_text("no folder")
    with following(site) as follower, pytest.raises(PortfolioOpsError, match="could not be made"):
        follower.run(once=True)


def test_a_timeline_in_doubt_is_not_gone_on_with(site: Site, writer: Writer) -> None:
    archived(site, writer)
    [doubtful] = timeline.ids(site.backups)
    with following(site, ended=doubtful) as follower:
        assert follower.timeline != doubtful


def test_the_wal_begun_anew_while_a_timeline_begins_is_no_damage(
    site: Site, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.run(CHANGE, "PRAGMA wal_checkpoint(PASSIVE)")
    look, looks = Pin.look, itertools.count()

    def looked(pin: Pin) -> WalIndex:
        index = look(pin)
        if next(looks) == 1:  # the follower's first
            assert pin.may_end
            writer.run(CHANGE)
        return index

    monkeypatch.setattr(Pin, "look", looked)
    with following(site) as follower:
        monkeypatch.undo()
        writer.run(CHANGE)
        follower.run(once=True)
    assert len(windows(site)) == 1


def test_a_commit_that_no_event_tells_of_is_seen(site: Site, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With synchronous=FULL the frames are written, and seen, long before the index says that they are committed."""
    archived(site, writer)
    with following(site) as follower:
        monkeypatch.setattr(Watch, "wait", lambda *_: set())

        def is_woken() -> bool:
            return follower._rest.take(0.0, "", dirty=False) or follower._is_behind()

        assert not is_woken()
        writer.run(CHANGE)
        assert is_woken()


def test_writers_are_not_held_while_the_disk_is_waited_for(
    site: Site, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived(site, writer)
    with pinned(site.database) as pin, Watch() as watch:
        follower = Follower(site, pin, Log(site=site.name, job="archive"), watch, Orders())
        synced: list[int] = []
        monkeypatch.setattr(os, "fdatasync", synced.append)
        for held in (False, True):
            pin.holds_writers = held
            writer.run(CHANGE)
            follower._flush_all(copies=True)
        assert len(synced) == 1
        pin.holds_writers = False
        assert follower._seal()
        assert len(synced) >= 2


def test_what_cannot_be_archived_is_left_in_the_wal(
    site: Site, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied into the main file, it would go with the site's next commit, once a full disk lets the site go."""
    archived(site, writer)
    with following(site) as follower:
        writer.run("PRAGMA wal_autocheckpoint=0", *[CHANGE] * 600)
        assert follower._pin.look().frames > pace._FULL
        with monkeypatch.context() as full:
            full.setattr(follower._chapter, "append", Mock(side_effect=OSError("the disk is full")))
            with pytest.raises(OSError, match="full"):
                follower._flush_all(copies=True)
        assert follower._pin.look().backfilled == 0
        follower._flush_all(copies=True)
        now = follower._pin.look()
        assert now.backfilled == now.frames


def test_a_restore_point_stands_where_one_is_asked_for_if_a_commit_ends_there(site: Site, writer: Writer) -> None:
    archived(site, writer)
    with following(site) as follower:
        before = follower._tail.position
        writer.run(CHANGE, CHANGE)
        index = follower._pin.look()
        places = [Position(before.salts, number) for number in range(index.frames + 1)]
        first, last = [each for each in places if follower._tail.may_stop_at(each)]
        assert before.frame < first.frame < last.frame == index.frames
        now = follower._pin.looked
        in_vain = [(Position(before.salts, number), now) for number in range(index.frames + 1) if number != first.frame]
        in_vain += [(first, now + timedelta(seconds=1)), (first, now - timedelta(days=1)), (Position("00" * 8, 1), now)]
        for place, seen in in_vain:
            witness.ask(site.state, place, seen)
            assert list(follower._witnessed(index)) == []
            assert witness.asked(site.state) is None
        ahead = Position(before.salts, index.frames + 1)
        witness.ask(site.state, ahead, now)
        assert list(follower._witnessed(index)) == []
        assert witness.asked(site.state) == witness.Asked(ahead, now)  # the next flush may come to it
        witness.ask(site.state, first, now)
        follower._flush_all(copies=True)
    newest = timeline.newest(site.backups, follower.timeline, site.name)
    assert newest is not None
    assert [cut.position for cut in newest.cuts[-2:]] == [first, last]
    assert newest.cuts[-2].seen == now < newest.cuts[-1].seen


def damage_newest_frame(yard: Yard) -> None:
    """Change the checksum of a frame that is committed, and that the archive has not read."""
    assert yard.archive is not None
    yard.archive.send_signal(signal.SIGSTOP)
    before = len(yard.writers[0].told)
    yard.until(lambda: len(yard.writers[0].told) > before + 3, "the site goes on")
    shm, wal = (yard.database.with_name(f"{yard.database.name}{ending}") for ending in ("-shm", "-wal"))
    descriptors = os.open(shm, os.O_RDONLY), os.open(wal, os.O_RDWR)
    index = read_wal_index(descriptors[0])
    checksum_at = HEADER + (index.frames - 1) * (FRAME_HEADER + index.page_size) + 16
    os.pwrite(descriptors[1], bytes(each ^ 1 for each in os.pread(descriptors[1], 8, checksum_at)), checksum_at)
    for descriptor in descriptors:
        os.close(descriptor)
    yard.archive.send_signal(signal.SIGCONT)


def test_a_committed_frame_that_is_damaged_is_told_and_a_new_timeline_begins(yard: Yard) -> None:
    yard.start_archive()
    yard.wait_for_base()
    yard.write(0, pause=0.05)
    yard.until(lambda: next(yard.points(), None) is not None, "something is archived")
    damage_newest_frame(yard)
    yard.until(lambda: "does not have its checksum" in yard.said(), "it tells of the damage")
    yard.until(lambda: len(timeline.ids(yard.site.backups)) == 2, "another timeline begins")
    yard.wait_for_base(2)
    before = len(yard.writers[0].told)
    yard.until(lambda: len(yard.writers[0].told) > before + 20, "the site goes on")
    yard.stop_writing(0)
    time.sleep(1.5)
    yard.end_archive()
    assert yard.said().count("does not have its checksum") == 1
