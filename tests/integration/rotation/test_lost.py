"""A log that is removed is told, once it was one."""

import subprocess
import time
from pathlib import Path

import pytest

from portfolio_ops.config import Site
from tests.integration.test_jobs import asked, call


def told(site: Site, *, log: Path | None = None) -> list[str]:
    return [each for each in asked(site, "status", code=10)["data"]["findings"] if str(log or site.logs[0]) in each]


def test_a_log_that_was_rotated_and_is_gone_is_found(site: Site) -> None:
    log = site.logs[0]
    lines = log.read_bytes()
    log.unlink()
    assert told(site) == []  # the site may not have begun it yet
    log.write_bytes(lines)
    call(site, "logs", "rotate")
    assert told(site) == []
    log.unlink()
    assert told(site) == [f"the log {log} is not there any more: the site has not written it, or it was moved"]
    call(site, "logs", "rotate")
    assert call(site, "doctor", code=10).stdout.count(f"the log {log} is not there any more") == 1
    log.touch()
    assert told(site) == []


def test_who_writes_on_into_it_is_named_with_what_rescues_the_lines(site: Site) -> None:
    log = site.logs[0]
    call(site, "logs", "rotate")
    with subprocess.Popen(["sh", "-c", f"exec >> {log}; read _; echo late; read _"], stdin=subprocess.PIPE) as program:
        try:
            assert program.stdin is not None
            opened = Path(f"/proc/{program.pid}/fd/1")
            while opened.readlink() != log:
                time.sleep(0.01)
            log.unlink()
            [found] = told(site)
            assert f"{log} was removed, and sh (process {program.pid}) has it open still; " in found
            hold, restart, rescue = found.partition("root's: ")[2].split("; ")
            assert restart == "then restart the site"
            rescue = rescue.removeprefix("then in the same shell: ")
            to = program.stdin.fileno()
            late = f"echo >&{to}; until grep -q late {opened}; do :; done; kill -KILL {program.pid}"
            subprocess.run(["bash", "-ec", f"{hold}; {late}; {rescue}"], check=True, pass_fds=[to])
        finally:
            program.kill()
    assert log.with_name("backend.log.rescued").read_bytes().endswith(b"late\n")


@pytest.mark.parametrize("named", [True, False])
def test_a_log_that_never_was_is_told_by_the_rotation_and_found_from_then_on(site: Site, *, named: bool) -> None:
    log = site.logs[0]
    if named:
        log = site.root / "logs/mistyped.log"
        site.file.write_text(site.file.read_text() + '[logs]\nfiles = ["logs/mistyped.log"]\n')
    else:
        log.unlink()
    cure = f"see why the site does not write it, or correct [logs] files in {site.file}"
    assert told(site, log=log) == []  # the site may not have begun it yet
    assert call(site, "logs", "rotate").stdout == f"there is no log {log}: {cure}\n"
    assert asked(site, "logs", "rotate")["data"]["missing"] == [str(log)]
    assert told(site, log=log) == ([f"there is no log {log}, and no archive of it: {cure}"] if named else [])
    log.touch()
    assert call(site, "logs", "rotate").stdout == "nothing to rotate: no log has a new line\n"
    assert told(site, log=log) == []
