"""Random sequences of what befalls a site and what is done to it, each step held against the promise.

Hypothesis chooses the steps, and finds the shortest sequence that still fails. What a step checks is in `judge.py`.
"""

import os
import tempfile
from datetime import timedelta
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.integration.model.judge import Judge
from tests.integration.model.product import Fate, Full, Killed

DISK = "MODEL_DISK"
"""The environment variable that names the folder of a small filesystem."""


def _fates(events: int) -> st.SearchStrategy[Fate]:
    """Nothing mostly; or a death at one of so many events; or a disk that is full, or has come to its reserve."""
    nothing = [st.just(None) for _ in range(3)]
    killed = st.builds(Killed, st.integers(1, events))
    return st.one_of(*nothing, killed, st.builds(Full, st.sampled_from([0, 40, 160, 640, 1300, 1600])))


_of_jobs, _of_restores = _fates(850), _fates(4300)  # as counted; a kill that comes too late is none
_spans = st.sampled_from([timedelta(minutes=20), timedelta(hours=7), timedelta(days=1), timedelta(days=4)])
_busy = st.sampled_from([0, 0, 3])
_names = st.sampled_from(["winter", "Été / 2025", "winter"])
_modes = st.sampled_from(["wal", "delete"])
_sizes = st.sampled_from([4096, 1024])
_picks = st.integers(0, 7)


class Site(RuleBasedStateMachine):
    """One site, from its first day on."""

    def __init__(self) -> None:
        super().__init__()
        folder = Path(tempfile.mkdtemp(prefix="model-", dir=os.environ[DISK]))
        self.judge = Judge(folder)
        self.place, self.promise = self.judge.place, self.judge.promise

    @initialize(opened=st.booleans(), mode=_modes)
    def begins(self, opened: bool, mode: str) -> None:
        if mode != "wal":
            self.place.change(f"PRAGMA journal_mode={mode}")
        if opened:
            self.place.open()

    # What the site does.

    @rule(rows=st.integers(1, 40), size=st.sampled_from([10, 900, 5000]))
    def adds(self, rows: int, size: int) -> None:
        number = self.place.number()
        self.place.change(
            "BEGIN IMMEDIATE",
            f"WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})"
            f" INSERT INTO comments(image, body) SELECT {number}, printf('%.*c', {size}, 'x') || n FROM n",
            f"INSERT INTO likes VALUES({number}, 'visitor')",
            "COMMIT",
        )

    @rule(part=st.integers(2, 5))
    def changes(self, part: int) -> None:
        number = self.place.number()
        self.place.change(
            f"UPDATE comments SET body = 'changed {number}' WHERE id % {part} = 1",
            f"UPDATE images SET body = randomblob(300) WHERE id % {part} = 0",
        )

    @rule(statement=st.sampled_from(["DELETE FROM comments WHERE id % 2", "DELETE FROM likes", "VACUUM"]))
    def shrinks(self, statement: str) -> None:
        self.place.change(statement)

    @rule(kind=st.sampled_from(["PASSIVE", "TRUNCATE"]))
    def checkpoints(self, kind: str) -> None:
        self.place.change(f"PRAGMA wal_checkpoint({kind})")
        self.judge.may_have_ended = True

    @rule()
    def starts(self) -> None:
        self.place.open()

    @rule(crash=st.booleans())
    def stops(self, crash: bool) -> None:
        self.place.close(crash=crash)
        self.judge.may_have_ended = True

    @rule(mode=_modes)
    def changes_its_journal_mode(self, mode: str) -> None:
        self.place.change(f"PRAGMA journal_mode={mode}")
        self.judge.may_have_ended = True

    @rule(mode=_modes, size=_sizes, over=st.booleans())
    def is_replaced(self, mode: str, size: int, over: bool) -> None:
        self.place.replace(mode, size, over=over)

    @rule(lines=st.integers(1, 300), ends=st.booleans())
    def logs(self, lines: int, ends: bool) -> None:
        number = self.place.number()
        data = b"".join(b"%d line %d of the log, of some length\n" % (number, line) for line in range(lines))
        self.judge.append(data if ends else data[:-5])

    # What time does.

    @rule(span=_spans)
    def waits(self, span: timedelta) -> None:
        self.judge.go_on(span)

    @rule(minutes=st.sampled_from([3, 90]))
    def clock_goes_back(self, minutes: int) -> None:
        self.judge.go_on(-timedelta(minutes=minutes))

    # What is done for the site.

    @rule(fate=_of_jobs, busy=_busy)
    def daily(self, fate: Fate, busy: int) -> None:
        self.judge.backup("daily", "backup", "daily", fate=fate, busy=busy)

    @rule(name=_names, fate=_of_jobs, busy=_busy)
    def gallery(self, name: str, fate: Fate, busy: int) -> None:
        self.judge.backup("event-triggered", "backup", "gallery", name, fate=fate, busy=busy)

    @rule(fate=_of_jobs, busy=_busy)
    def social(self, fate: Fate, busy: int) -> None:
        self.judge.backup("social", "backup", "social", fate=fate, busy=busy)

    @rule(fate=_of_jobs)
    def rotates(self, fate: Fate) -> None:
        self.judge.rotate(fate)

    @rule(fate=_of_jobs, busy=_busy)
    def archives(self, fate: Fate, busy: int) -> None:
        self.judge.archive(fate, busy)

    @rule(fate=_of_jobs)
    def prunes(self, fate: Fate) -> None:
        self.judge.prune(fate)

    @precondition(lambda self: self.promise.of("daily", "event-triggered", "wal"))
    @rule(pick=_picks, fate=_of_restores)
    def restores_a_backup(self, pick: int, fate: Fate) -> None:
        there = self.promise.of("daily", "event-triggered", "wal")
        chosen = there[pick % len(there)]
        assert isinstance(chosen.holds, dict)
        self.judge.restore_in_place(chosen.holds, chosen.name, fate=fate)

    @precondition(lambda self: self.judge.moments())
    @rule(pick=_picks, fate=_of_restores)
    def restores_a_moment(self, pick: int, fate: Fate) -> None:
        there = self.judge.moments()
        chosen = there[pick % len(there)]
        self.judge.restore_in_place(chosen.state, "--at", chosen.at.isoformat(), fate=fate)

    @rule()
    def undoes(self) -> None:
        self.judge.undo()

    @precondition(lambda self: self.promise.of("social"))
    @rule(pick=_picks, fate=_of_jobs)
    def restores_social_tables(self, pick: int, fate: Fate) -> None:
        there = self.promise.of("social")
        self.judge.restore_social(there[pick % len(there)], fate)

    def teardown(self) -> None:
        try:
            self.judge.examine()
            self.judge.come_to_rest()
        finally:
            self.place.remove()
