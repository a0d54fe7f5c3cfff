"""The main job in one minute: an embedded site with a live writer, its four jobs, a rehearsal, and restores.

Everything lies in one temporary directory, which is gone at the end. Neither root nor systemd is needed.
"""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

TOOL = Path(sys.executable).with_name("portfolio-ops")
SITE = Path(__file__).with_name("site.py")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(text: str) -> None:
    print(f"\n\033[1m# {text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


def run(config: Path, *words: str) -> str:
    """Run one command as a person would, and show it and what it prints."""
    print(f"$ portfolio-ops --config {config} {' '.join(words)}", flush=True)
    done = subprocess.run([TOOL, "--config", config, *words], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SystemExit(f"portfolio-ops {' '.join(words)} ended with {done.returncode}")
    return done.stdout


def demonstrate(folder: Path) -> None:
    """Build the site, run its jobs while it is written, restore one backup and compare."""
    root, config = folder / "portfolio-demo", folder / "demo.toml"
    config.write_text(f'[site]\nroot = "{root}"\n')
    say("A site: a SQLite database in WAL mode and a log, both written all the time")
    # In a session of its own: Ctrl-C is for us, and we end it.
    command = [sys.executable, str(SITE), str(root)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert writer.stdout is not None
        print(writer.stdout.readline(), end="")
        say("The four jobs, on the live site")
        run(config, "backup", "daily")
        run(config, "backup", "social")
        run(config, "backup", "gallery", "Winter light: Été")
        run(config, "logs", "rotate")
        say("Rehearse a restore, as a timer does every week")
        run(config, "drill")
        say("What there is, and how it is doing")
        run(config, "list")
        run(config, "status")
        say("Bring the comments back that somebody deletes now, while the site goes on")
        delete(folder)
        run(config, "restore", "social", "--merge", "--yes")
        say("Bring the whole database back, beside the live one")
        run(config, "restore", "database", "latest", "--to", str(folder / "beside.sqlite"))
        say("The same with nothing but zstd and sqlite3")
        restore(config, folder)
    finally:
        writer.send_signal(signal.SIGTERM)
        said = writer.communicate()[0]
    report = said.splitlines()[-1]
    say("And the site?")
    print(report)
    if json.loads(report)["errors"]:
        raise SystemExit("the site met errors")


def delete(folder: Path) -> None:
    """A mistake on the live database."""
    print("$ sqlite3 portfolio.sqlite 'DELETE FROM comments WHERE id <= 20'")
    connection = sqlite3.connect(folder / "portfolio-demo/data/portfolio.sqlite", timeout=10)
    connection.execute("DELETE FROM comments WHERE id <= 20")
    connection.commit()
    connection.close()


def restore(config: Path, folder: Path) -> None:
    """Decode the latest daily with the plain programs, and compare it with what its metadata states."""
    listed = json.loads(
        subprocess.run(
            [TOOL, "--config", config, "--json", "list", "daily"], capture_output=True, text=True, check=True
        ).stdout
    )
    artifact = listed["data"]["artifacts"][-1]
    copy = folder / "restored.sqlite"
    print(f"$ zstd -d {artifact['file']} -o {copy}")
    subprocess.run(["zstd", "-q", "-d", artifact["file"], "-o", copy], check=True)
    print(f"$ sqlite3 {copy} 'PRAGMA integrity_check; SELECT count(*) FROM comments;'")
    done = subprocess.run(
        ["sqlite3", copy, "PRAGMA integrity_check; SELECT count(*) FROM comments;"],
        capture_output=True,
        text=True,
        check=True,
    )
    print(done.stdout, end="")
    shown = json.loads(
        subprocess.run(
            [TOOL, "--config", config, "--json", "show", artifact["id"]], capture_output=True, text=True, check=True
        ).stdout
    )
    stated = shown["data"]["details"]["rows"]["comments"]
    live = (
        sqlite3.connect(folder / "portfolio-demo/data/portfolio.sqlite")
        .execute("SELECT count(*) FROM comments")
        .fetchone()[0]
    )
    print(f"rows of comments: {stated} stated in the artifact, {live} in the live site by now")
    if done.stdout.splitlines() != ["ok", str(stated)]:
        raise SystemExit("the restored database is not what the artifact states")


def end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001  (signal(2)'s signature)
    """Unwind, so that all that was made goes; a second signal does not disturb that."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> None:
    """Run the demonstration and clean up, whatever happens."""
    for program in ("zstd", "sqlite3"):
        if shutil.which(program) is None:
            raise SystemExit(f"the demonstration needs {program}: apt-get install {program}")
    for number in SIGNALS:
        signal.signal(number, end)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="portfolio-ops-demo-") as name:
        demonstrate(Path(name))
    say(f"Done in {time.monotonic() - began:.0f} s; nothing is left behind")


if __name__ == "__main__":
    main()
