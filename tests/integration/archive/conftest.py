"""Restoring, as an operator does."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.cli import main
from portfolio_ops.config import Site
from tests.integration.archive.archiver import digest_of


class Operator:
    """Calls the tool; nothing may have the database pinned in this process meanwhile."""

    def __init__(self, site: Site, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.site, self.folder, self.capture = site, folder, capture
        self.numbers = itertools.count()

    def call(self, *words: str, code: int = 0) -> tuple[str, str]:
        """What it says on stdout and stderr."""
        self.capture.readouterr()
        status = main.run(["--config", str(self.site.file), *words])
        out, err = self.capture.readouterr()
        assert status == code, f"exit {status}: {out}{err}"
        return out, err

    def asked(self, *words: str, code: int = 0) -> Any:
        out, _ = self.call("--json", *words, code=code)
        answer = json.loads(out)
        assert bool(answer["errors"]) == (answer["status"] == "error")
        return answer["data"]

    def restored(self, *words: str) -> tuple[str, Any]:
        """The hash of a restored database, and the plan by which it was restored."""
        target = self.folder / f"copy-{next(self.numbers)}.sqlite"
        plan = self.asked("restore", "database", *words, "--to", str(target))["plan"]
        digest = digest_of(target)
        target.unlink()
        assert [path.name for path in self.folder.iterdir() if path.name.startswith(("copy-", ".tmp-"))] == []
        return digest, plan

    def refused(self, *words: str, code: int = 6) -> str:
        """What it says when it restores nothing."""
        target = self.folder / "refused.sqlite"
        out, err = self.call("restore", "database", *words, "--to", str(target), code=code)
        assert list(self.folder.glob("*refused*")) == []
        return out + err


@pytest.fixture
def operator(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(site, tmp_path, capsys)
