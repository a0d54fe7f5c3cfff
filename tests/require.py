"""What a test cannot do without. Where it lacks, the test says so and is skipped; in CI it fails."""

import os

import pytest


def require(able: bool, otherwise: str) -> None:
    """Go on only if that can be tested here.

    Args:
        able: Whether it can.
        otherwise: What lacks, and what is therefore not tested.
    """
    if not able:
        if os.environ.get("CI"):
            pytest.fail(otherwise)
        pytest.skip(otherwise)


def require_root(for_what: str) -> None:
    """Go on only as root.

    Args:
        for_what: What takes root here, so what is not tested without.
    """
    require(os.geteuid() == 0, f"NOT TESTED, for it takes root: {for_what}")
