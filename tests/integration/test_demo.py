"""`make demo`, ended in its middle: nothing of it stays."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "demo/demo.py"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whoever_ends_it_leaves_no_folder_and_no_writer(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, DEMO],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    while (found := re.match(r"running, as process (\d+): ", process.stdout.readline())) is None:
        assert process.poll() is None
    os.killpg(process.pid, number)  # a terminal signals all that it shows; a service manager, too
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []
    deadline = time.monotonic() + 10
    while Path(f"/proc/{found[1]}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
