"""What is done for the site, and what must be true after it, whatever befell it.

After each command: every artifact that was there is there, byte for byte, or retention permits that it is gone; what is
new restores exactly to what the database held; the live database is as the site left it; and the log is whole.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import zstandard

from portfolio_ops.store.artifact import read_artifact
from tests.integration.model import writer
from tests.integration.model.place import SOCIAL, Place
from tests.integration.model.product import Fate, Full, Product, Result
from tests.integration.model.promise import LIMITS, WHOLE, Kept, Moment, Promise, digest_of, moment_of
from tests.integration.model.writer import State

_PAUSE = 0.02
_SAID = ("--force", "the model says so")
_UNKNOWN = "?"
_OF_TIME = (" h old, the limit", "is the clock right?")
"""What a drill may find at fault where time passed and nobody made a backup."""

_OF_NOBODY = ("start the archive: it begins a new timeline",)
"""What it may find besides where the WAL may have ended, and nobody archived since: a single pass holds nothing."""


class Judge:
    """One site with the promise that was made for it.

    Attributes:
        place: The site.
        promise: What must be there.
        product: What keeps it.
        may_have_ended: Whether the WAL that was there when the archive was last asked may be gone, or may go.
    """

    def __init__(self, folder: Path) -> None:
        self.place, self.promise = Place(folder), Promise()
        self.product = Product(self.place.site.file, folder)
        self.may_have_ended = False
        self._undo: str | None = None  # the artifact that `restore undo` returns to

    def now(self) -> datetime:
        """The present, as the product sees it."""
        return datetime.now(UTC) + timedelta(seconds=self.product.ahead)

    def go_on(self, span: timedelta) -> None:
        """Let time pass; or turn the clock back."""
        self.product.ahead += span.total_seconds()
        if span < timedelta():
            self.promise.turned_back(self.now())

    def moments(self) -> list[Moment]:
        """The moments that must come back now."""
        return self.promise.kept(self.now())

    def append(self, data: bytes) -> None:
        """Let the site write to its log."""
        self.place.append(data)
        self.promise.written += data

    def backup(self, folder: str, *words: str, fate: Fate = None, busy: int = 0) -> None:
        """One of the backups, beside a site that makes so many transactions meanwhile, if its program runs."""
        began = self.now()
        result, made = self._run(words, folder, fate=fate, busy=busy)
        if fate is None:
            assert (result.code, len(made)) == (0, 1), result
            self._require_pruned(folder, began)
            self._require_tidy(folder)

    def rotate(self, fate: Fate = None) -> None:
        """The rotation; all whole lines are archived then."""
        began = self.now()
        result, _ = self._run(["logs", "rotate"], "logs-archive", fate=fate)
        if fate is None:
            assert result.code == 0, result
            assert b"\n" not in self.promise.unarchived
            self._require_pruned("logs-archive", began)
            self._require_tidy("logs-archive")
        self._require_log(self.product.call("logs", "show"))

    def prune(self, fate: Fate = None) -> None:
        """Pruning by hand."""
        began = self.now()
        result, _ = self._run(["prune", "--yes"], fate=fate, prunes=tuple(LIMITS))
        if fate is None:
            assert result.code == 0, result
            for folder in LIMITS:
                self._require_pruned(folder, began, by_hand=True)

    def archive(self, fate: Fate = None, busy: int = 0) -> None:
        """One pass of the archive: what the database holds is its last moment."""
        known, before = None if fate is None else self._lasts(), self.place.live
        result, _ = self._run(["archive", "once"], "wal", fate=fate, busy=busy)
        assert fate is not None or result.code == 0, result
        self.may_have_ended = self.may_have_ended and fate is not None
        lasts = self._lasts()
        assert lasts or fate is not None, result
        if not lasts or lasts == known:  # it ended early
            return
        # Where the clock went back and nothing was committed since, the last moment is still to come.
        present = [each for each in lasts if moment_of(each) <= self.now()][-1:]
        ends = list(dict.fromkeys([*present, lasts[-1]]))
        states = self._restored([("--at", each) for each in ends])
        found = [each for each in zip(ends, states, strict=True) if self._was_seen(each[1], before, busy)]
        assert found, (result, ends)
        self.promise.remember(moment_of(found[0][0]), found[0][1])

    def _lasts(self) -> list[str]:
        """The last moment of each window, in the order of time."""
        points = self.product.call("--json", "list", "points")
        assert points.code == 0, points
        return sorted((window["last"] for window in points.data["windows"]), key=moment_of)

    def _was_seen(self, state: State, before: State, busy: int) -> bool:
        """Whether the database held that just now."""
        return state == self.place.live or (bool(busy) and (state == before or state in self._between))

    def restore_in_place(self, state: State, *words: str, fate: Fate = None) -> None:
        """Restore over the live database; with a killed or failed one, return to what was before."""
        command, former = ["restore", "database", *words, "--in-place", "--yes", *_SAID], self.place.live
        if self.place.is_open():
            result, _ = self._run(command)
            assert result.code == 4, result
            return
        result = self.product.call(*command, fate=fate)
        if fate is not None:
            self._taken_back(result, former, state)
            return
        assert result.code == 0, result
        self._restored_to(former, state, result)

    def undo(self) -> None:
        """Return to the state before the latest restore, where that is known and there."""
        if self._undo == _UNKNOWN or self.place.is_open():
            return
        former, result = self.place.live, self.product.call("restore", "undo", "--yes")
        kept = self.promise.artifacts.get(self._undo or "")
        if kept is None:
            assert result.code == 6, result
            return
        assert result.code == 0, result
        assert isinstance(kept.holds, dict)
        self._restored_to(former, kept.holds, result)

    def restore_social(self, chosen: Kept, fate: Fate = None) -> None:
        """Restore the social tables into the live database; all of it, or nothing."""
        assert isinstance(chosen.holds, dict)
        former, wanted = self.place.live, {**self.place.live, **chosen.holds}
        result = self.product.call("restore", "social", chosen.name, "--yes", *_SAID, fate=fate)
        self.place.live = self.place.look()
        assert self.place.live == wanted or (fate is not None and self.place.live == former), result
        made = self._settled([former], "social")
        assert fate is not None or (result.code, len(made)) == (0, 1), result

    def examine(self) -> None:
        """Whatever is promised is there, and the product says so too."""
        now, moments = self.now(), self.moments()
        whole = [each for each in self.promise.artifacts.values() if each.folder in WHOLE]
        questions = [
            ("--json", "list"), ("--json", "status"), ("--json", "verify", "--all"), ("--json", "archive", "verify"),
            ("--json", "drill"), ("logs", "show"),
        ]  # fmt: skip
        listed, status, verified, audited, drilled, shown = self.product.calls(questions)
        assert listed.code == 0, listed
        there = {Path(each["file"]).name: each for each in listed.data["artifacts"]}
        assert there.keys() == self.promise.artifacts.keys()
        for name, each in there.items():
            may_go = self.promise.may_go(self.promise.artifacts[name], now)
            assert each["keep"] != may_go or "archive" in each["reason"], (name, each)
        jobs = status.data["jobs"]
        assert status.data["problems"] == [], status
        assert jobs["backup-daily"]["count"] == len(self.promise.of("daily"))
        assert jobs["logs-rotate"]["count"] == len(self.promise.of("logs-archive"))
        assert audited.data["damaged"] == [], audited
        assert verified.code == 0, verified
        assert {each["found"] for each in verified.data["verdicts"]} <= {"sound"}
        assert len(verified.data["verdicts"]) == len(there)
        may_be = (*_OF_TIME, *_OF_NOBODY) if self.may_have_ended else _OF_TIME
        expected = [any(words in each for words in may_be) for each in drilled.data["reasons"]]
        assert not whole or drilled.code in {0, 10} or (drilled.code == 9 and all(expected)), drilled
        self._require_log(shown)
        for moment, state in zip(
            moments, self._restored([("--at", each.at.isoformat()) for each in moments]), strict=True
        ):
            assert state == moment.state, moment
        assert self.place.look() == self.place.live

    def come_to_rest(self) -> None:
        """Each job once more; what any of them left unfinished is gone then."""
        for folder, *words in (("daily", "daily"), ("event-triggered", "gallery", "last"), ("social", "social")):
            self.backup(folder, "backup", *words)
        self.rotate()
        self.archive()
        site = self.place.site
        left = [path for path in site.root.rglob(".*") if site.state not in path.parents and path != site.state]
        assert not left

    def _run(
        self, words: Sequence[str], *folders: str, fate: Fate = None, busy: int = 0, prunes: Sequence[str] = ()
    ) -> tuple[Result, list[Kept]]:
        """Run a command that leaves the live database alone; gives what is new in the folders that are its own."""
        busy = 0 if isinstance(fate, Full) or not self.place.is_open() else busy
        kept, states = self.place.kept(), [self.place.live]
        number = self.place.number()
        writes = [[f"INSERT INTO likes VALUES({number}, {n})"] for n in range(busy)]
        if writes:
            self.place.tell(*writes, pause=_PAUSE)
        result = self.product.call(*words, fate=fate)
        if writes:
            states += self.place.told(len(writes))
        self.place.live = states[-1]
        assert self.place.look() == self.place.live, result
        assert self.place.kept() == kept, result
        self._between = states
        return result, self._settled(states, *folders, prunes=prunes)

    def _settled(self, states: Sequence[State], *folders: str, prunes: Sequence[str] = ()) -> list[Kept]:
        """Hold all artifacts against the promise, and take on what is new; only these folders may have changed."""
        backups, now = self.place.site.backups, self.now()
        there = {
            path.name: path
            for folder in LIMITS
            for path in (backups / folder).glob("*")
            if path.is_file() and not path.name.startswith(".tmp-")
        }
        for name in there.keys() & self.promise.artifacts.keys():
            assert digest_of(there[name]) == self.promise.artifacts[name].digest, name
        new = [there[name] for name in there.keys() - self.promise.artifacts.keys()]
        assert {path.parent.name for path in new} <= {*folders}, new
        made = self._taken_on(new, states)
        for name in self.promise.artifacts.keys() - there.keys():
            gone = self.promise.artifacts[name]
            assert gone.folder in {*folders, *prunes}, gone
            assert self.promise.may_go(gone, now), gone
        for name in self.promise.artifacts.keys() - there.keys():
            del self.promise.artifacts[name]
        return made

    def _taken_on(self, paths: Sequence[Path], states: Sequence[State]) -> list[Kept]:
        """Take new artifacts on that hold one of some states, or the log's next lines."""
        stated = sorted((read_artifact(path) for path in paths), key=lambda each: each.metadata.details.get("from", 0))
        made = []
        whole = [each for each in stated if each.path.parent.name in WHOLE]
        databases = dict(zip([each.id for each in whole], self._restored([(each.id,) for each in whole]), strict=True))
        for each in stated:
            folder, holds = each.path.parent.name, databases.get(each.id)
            if folder == "logs-archive":
                holds_log = _decoded(each.path)
                assert holds_log.endswith(b"\n")
                assert self.promise.unarchived.startswith(holds_log), each
                self.promise.archived.append((each.path.name, holds_log))
                made.append(Kept(each.path.name, folder, each.taken, False, digest_of(each.path), holds_log))
                continue
            if folder == "social":
                [found] = self._restored([("social", each.id)])
                holds = {name: found[name] for name in SOCIAL}
                assert holds in [{name: state[name] for name in SOCIAL} for state in states], each
            else:
                assert holds in states, each
            assert holds is not None
            made.append(Kept(each.path.name, folder, each.taken, each.put_away, digest_of(each.path), holds))
        self.promise.artifacts.update({each.name: each for each in made})
        return made

    def _restored(self, references: Sequence[Sequence[str]]) -> list[State]:
        """What the product restores beside the live database."""
        copies = [self.place.copy() for _ in references]
        commands = [
            ["restore", "social", each[1], "--into", str(copy)]
            if each[0] == "social"
            else ["restore", "database", *each, "--to", str(copy)]
            for each, copy in zip(references, copies, strict=True)
        ]
        found = []
        for copy, result in zip(copies, self.product.calls(commands) if commands else [], strict=True):
            assert result.code == 0, result
            found.append(writer.read(copy))
            for path in copy.parent.glob(f"{copy.name}*"):
                path.unlink()
        return found

    def _restored_to(self, former: State, state: State, result: Result) -> None:
        """A restore in place went well."""
        self.place.live = self.place.look()
        assert self.place.live == state, result
        [made] = self._settled([former], "event-triggered")
        assert made.put_away
        self._undo = made.name
        assert self.place.beside() == []

    def _taken_back(self, result: Result, former: State, state: State) -> None:
        """A restore in place was killed, or had no room: one of both is there; and the former comes back."""
        asked = self.product.call("restore", "undo", "--dry-run")
        if "interrupted" in asked.err:
            assert asked.code == 4, asked
        found = self.place.look() if "interrupted" not in asked.err else state
        assert found in (former, state), result
        if found != former or "interrupted" in asked.err:
            undone = self.product.call("restore", "undo", "--yes")
            assert undone.code == 0, (result, undone)
        assert self.place.look() == former, (result, asked)
        self._settled([former, state], "event-triggered")
        self._undo = _UNKNOWN
        assert all(".before-restore-" in name for name in self.place.beside()), self.place.beside()

    def _require_pruned(self, folder: str, now: datetime, *, by_hand: bool = False) -> None:
        """What retention lets go is gone after a success, but for a whole backup of each timeline and week."""
        if folder == "wal" or (self.promise.is_leap(now) and not by_hand):
            return  # what stands in for a base may have gone in the same run
        left = [each for each in self.promise.of(folder) if self.promise.may_go(each, now)]
        timelines = [path for path in (self.place.site.backups / "wal").glob("*") if path.is_dir()]
        weeks = {each.taken.isocalendar()[:2] for each in left}
        assert len(left) <= (len(timelines) + len(weeks) if timelines and folder in WHOLE else 0), left

    def _require_tidy(self, folder: str) -> None:
        """Nothing unfinished lies about after a job's success."""
        assert not list((self.place.site.backups / folder).glob(".tmp-*"))

    def _require_log(self, shown: Result) -> None:
        assert shown.code == 0, shown
        assert shown.out == self.promise.shown()
        assert self.place.log.read_bytes().endswith(self.promise.unarchived)


def _decoded(path: Path) -> bytes:
    with path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file).read()
