"""What the tests of faults share."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.faults.disk import MKFS, Disk


@pytest.fixture(params=MKFS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path, request.param)
    yield made
    with contextlib.suppress(AssertionError):
        made.unmount()
