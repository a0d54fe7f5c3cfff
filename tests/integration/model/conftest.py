"""The small disk on which the sites of the model live."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.model.machine import DISK


@pytest.fixture
def small_disk(filesystem: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A filesystem that is soon full."""
    place = filesystem("small")
    monkeypatch.setenv(DISK, str(place))
    yield place
    assert not list(place.glob("model-*"))
