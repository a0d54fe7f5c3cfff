"""The report: what other commands say, on one page."""

import os
import subprocess
import sys
from pathlib import Path

from portfolio_ops.config import Site
from tests.integration.test_jobs import asked, call
from tests.unit.test_page import Reader

TOOL = Path(sys.executable).with_name("portfolio-ops")


def test_it_says_what_is_wrong_and_what_can_be_restored(site: Site) -> None:
    site.file.write_text(site.file.read_text() + '\n[alert]\nwebhook = "https://chat.example/secret-token"\n')
    call(site, "backup", "daily")
    call(site, "backup", "gallery", "<script>Winter")
    call(site, "archive", "once")
    status = asked(site, "status", code=10)["data"]
    text = asked(site, "report")["data"]["page"]
    said = "\n".join(Reader(text).said)
    for finding in status["findings"]:
        assert finding in said
    for artifact in asked(site, "list")["data"]["artifacts"]:
        assert artifact["id"] in said
        assert Path(artifact["file"]).name in said
    assert "any second" in said
    assert "recovery window: any moment from" in said
    assert "secret-token" not in text
    assert "<script>" not in text


def test_it_is_written_to_a_file_and_not_to_a_terminal(site: Site, tmp_path: Path) -> None:
    command: list[str | Path] = [TOOL, "--config", site.file, "report"]
    with (tmp_path / "page.html").open("wb") as file:
        subprocess.run(command, stdout=file, check=True, env={**os.environ, "LC_ALL": "C"})
    Reader((tmp_path / "page.html").read_text("ascii"))
    ours, theirs = os.openpty()
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 2
    assert f"portfolio-ops --config {site.file} report > report.html" in done.stderr
