"""Another time for one process: what the product takes for the present is shifted, and this machine's clock is left."""

import importlib
import pkgutil
import sys
from datetime import datetime, timedelta
from typing import Any

import portfolio_ops

_OTHERS = "portfolio_ops.api"
"""Needs the clock for a server that no model calls, and takes long to load."""


def load() -> None:
    """Import all of the product, so that forked processes need not do it each, and `shift` reaches it."""
    for module in pkgutil.walk_packages(portfolio_ops.__path__, "portfolio_ops."):
        if not module.name.startswith(_OTHERS):
            importlib.import_module(module.name)


def shift(seconds: float) -> None:
    """Let the product's clock go ahead by so many seconds, or be behind, in this process and for good.

    It reaches what is imported by now.
    """
    delta = timedelta(seconds=seconds)

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + delta

    for name, module in list(sys.modules.items()):
        if name.startswith("portfolio_ops.") and getattr(module, "datetime", None) is datetime:
            setattr(module, "datetime", Shifted)  # noqa: B010  (mypy knows it as a type)
