"""Artifacts of every released format come back byte for byte, with today's code and with the plain tools."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from portfolio_ops.store.artifact import Kind
from portfolio_ops.store.whose import SUFFIX
from tests.integration.model import writer
from tests.integration.model.product import Product

GOLDEN = Path(__file__).parents[1] / "golden"
VERSIONS = sorted(path.parent.name for path in GOLDEN.glob("*/expected.json"))


class Released:
    """What a version has made, in a site of its own."""

    def __init__(self, version: str, folder: Path) -> None:
        self.expected: dict[str, Any] = json.loads((GOLDEN / version / "expected.json").read_text())
        self.backups, self.copy = folder / "site/backups", folder / "copy.sqlite"
        shutil.copytree(GOLDEN / version / "backups", self.backups)
        file = folder / "shop.toml"
        file.write_text(f'[site]\nroot = "{folder}/site"\n')
        self.product = Product(file, folder)

    def restored(self, *words: str) -> str:
        """The hash of the file that the product restores."""
        self.copy.unlink(missing_ok=True)
        done = self.product.call("restore", *words, str(self.copy))
        assert done.code == 0, done
        return digest_of(self.copy.read_bytes())

    def of(self, kind: Kind) -> dict[str, Any]:
        """The artifacts of a kind, and what each must give back."""
        found = self.expected["files"].items()
        return {name: each for name, each in found if Path(name).parent.name == kind.folder}


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(params=VERSIONS)
def released(request: pytest.FixtureRequest, tmp_path: Path) -> Released:
    return Released(request.param, tmp_path)


def test_there_are_some_of_each_kind() -> None:
    assert VERSIONS
    for version in VERSIONS:
        names = json.loads((GOLDEN / version / "expected.json").read_text())["files"]
        assert {Path(name).parts[0] for name in names} == {kind.folder for kind in Kind}
        for ending in ("Z", ".minutes", ".hours"):
            assert any(name.endswith(f"{ending}{SUFFIX}") for name in names), ending


def test_none_was_lost_or_made_anew(released: Released) -> None:
    files = {str(path.relative_to(released.backups)): path for path in released.backups.rglob("*") if path.is_file()}
    assert files.keys() == released.expected["files"].keys()
    for name, path in files.items():
        assert digest_of(path.read_bytes()) == released.expected["files"][name]["file_sha256"], name
        assert path.stat().st_size < 50_000


def test_the_plain_tool_gives_each_back(released: Released) -> None:
    for name, each in released.expected["files"].items():
        content = subprocess.run(["zstd", "-q", "-d", "-c", released.backups / name], check=True, capture_output=True)
        assert (digest_of(content.stdout), len(content.stdout)) == (each["content_sha256"], each["content_bytes"]), name


def test_every_database_is_restored(released: Released) -> None:
    for kind in Kind:
        for name, each in released.of(kind).items() if kind.holds_database else ():
            assert released.restored("database", Path(name).name, "--to") == each["content_sha256"], name


def test_every_moment_is_restored(released: Released) -> None:
    assert len({each["found"] for each in released.expected["moments"]}) > 3
    for each in released.expected["moments"]:
        assert released.restored("database", "--at", each["at"], "--to") == each["file_sha256"], each["at"]
        assert writer.read(released.copy) == each["state"]


def test_the_social_export_is_restored(released: Released) -> None:
    for name, each in released.of(Kind.SOCIAL).items():
        released.restored("social", Path(name).name, "--into")
        by_hand = released.copy.with_name("by-hand.sqlite")
        subprocess.run(
            [
                "bash",
                "-euo",
                "pipefail",
                "-c",
                'zstd -q -d -c "$1" | sqlite3 "$2"',
                "-",
                released.backups / name,
                by_hand,
            ],
            check=True,
        )
        ours, plain = writer.read(released.copy), writer.read(by_hand)
        for table in ("comments", "likes"):
            assert ours[table] == plain[table] == each["state"][table]


def test_the_log_is_read_back(released: Released) -> None:
    shown = released.product.call("logs", "show")
    assert (shown.code, digest_of(shown.out)) == (0, released.expected["log"])


def test_all_of_it_is_sound_to_the_product(released: Released) -> None:
    for words in (("verify", "--all"), ("archive", "verify"), ("list",)):
        done = released.product.call(*words)
        assert done.code == 0, done


def test_a_timeline_is_replayed_with_the_plain_tools(released: Released) -> None:
    timeline = min(path for path in (released.backups / "wal").iterdir() if path.is_dir())
    base = min((released.backups / "wal").glob("base-*"))
    unpacked(base, released.copy)
    for increment in sorted(timeline.iterdir()):
        unpacked(increment, released.copy.with_name(f"{released.copy.name}-wal"))
        subprocess.run(["sqlite3", released.copy, "PRAGMA wal_checkpoint(TRUNCATE)"], check=True, capture_output=True)
    with_a_wal = [each for each in released.expected["moments"] if each["state"]["*kept"].endswith("wal")]
    assert writer.read(released.copy) == with_a_wal[-1]["state"]


def unpacked(path: Path, target: Path) -> None:
    subprocess.run(["zstd", "-q", "-d", "-f", path, "-o", target], check=True)
