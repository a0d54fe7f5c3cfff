"""The role's own module: many files at once, and no more is touched than is asked for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.require import require_root

MODULE = Path(__file__).parents[2] / "ansible/roles/portfolio_ops/library/portfolio_ops_files.py"

RUN = """
import json, runpy, sys
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.load(sys.stdin)):
    runpy.run_path(sys.argv[1], run_name="__main__")
"""


def lay(*, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """What the module answers."""
    require_root("the role's module, which lays files of root's")
    given = json.dumps({**arguments, "_ansible_check_mode": check, "_ansible_diff": True})
    command = [sys.executable, "-c", RUN, str(MODULE)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_files_are_laid_once_with_their_folders(tmp_path: Path) -> None:
    unit = tmp_path / "x.service.d/10.conf"
    files = [{"path": str(unit), "content": "[Service]\nUser=1\n"}, {"path": str(tmp_path / "b"), "content": "é\n"}]
    assert lay(check=True, files=files)["paths"] == [file["path"] for file in files]
    assert not unit.parent.exists()
    assert lay(files=files)["changed"]
    assert unit.read_text() == files[0]["content"]
    assert (unit.stat().st_mode & 0o777, unit.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    before = unit.stat()
    assert not lay(files=files)["changed"]
    assert unit.stat() == before
    unit.chmod(0o600)
    assert lay(files=files)["paths"] == [str(unit)]
    assert unit.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "x.service.d"]


def test_a_link_in_its_place_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    other, link = tmp_path / "other", tmp_path / "link"
    other.write_text("as it was")
    link.symlink_to(other)
    assert lay(files=[{"path": str(link), "content": "ours\n"}])["changed"]
    assert (other.read_text(), link.is_symlink(), link.read_text()) == ("as it was", False, "ours\n")


def test_what_is_taken_away_is_not_shown(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    answer = lay(check=True, absent=[str(token), str(tmp_path / "never")])
    assert answer["paths"] == [str(token)]
    assert "secret" not in str(answer)
    assert token.exists()
    assert lay(absent=[str(token)])["changed"]
    assert not token.exists()
    assert not lay(absent=[str(token)])["changed"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    answer = lay(files=[{"path": str(tmp_path / "no/such/folder/file"), "content": ""}])
    assert "cannot lay the files" in answer["msg"]
