"""Random sequences of operations against a simple model of what must be restorable.

MODEL_SEED and MODEL_EXAMPLES choose which and how many; a failure says how to see it again. `make soak` tries fresh
ones for as long as is wanted.
"""

import os
import random
import time

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.model.machine import Site

SEED = int(os.environ.get("MODEL_SEED", "6"))
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "24"))
STEPS = 20


def run(seed: int, examples: int) -> None:
    """Try so many sequences; the first that fails is made as short as can be."""
    again = (
        f"MODEL_SEED={seed} MODEL_EXAMPLES={examples} .venv/bin/python -m pytest -s tests/integration/model -k promised"
    )
    print(f"to see it again: {again}")
    limits = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        print_blob=False,
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    hypothesis.seed(seed)(Site)
    run_state_machine_as_test(Site, settings=limits)


@pytest.mark.slow
@pytest.mark.usefixtures("small_disk")
def test_whatever_befalls_a_site_what_was_promised_is_restorable() -> None:
    run(SEED, EXAMPLES)


@pytest.mark.soak
@pytest.mark.usefixtures("small_disk")
def test_for_as_long_as_is_wanted() -> None:
    ends = time.monotonic() + float(os.environ.get("ARCHIVE_SECONDS", "60"))
    while time.monotonic() < ends:
        run(random.randrange(1 << 32), 10)
