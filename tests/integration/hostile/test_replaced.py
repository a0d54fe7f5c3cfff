"""Every file and folder of the site that is the backend's, replaced by each other kind of file, under each command."""

import pytest

from tests.integration.hostile.attacks import COMMANDS, DATABASE, JOURNAL, cases, replace
from tests.integration.hostile.harness import Ground, require_untouched, sampled


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_stands_in_a_files_place_nothing_outside_is_touched(ground: Ground, name: str) -> None:
    tried = 0
    for number, (command, target, kind) in enumerate(sampled(cases())):
        if command != name:
            continue
        for mode in ("wal", "delete") if target in {DATABASE, JOURNAL} else ("wal",):
            ground.lay_out(mode)
            replace(ground, target, kind)
            before = ground.before()
            result = ground.run(COMMANDS[name], as_root=name == "restore" or number % 2 == 0)
            require_untouched(ground, before, result, f"{name}: {kind} for {target} ({mode})")
            tried += 1
    print(f"{name}: {tried} cases")
