"""The wheels that a host needs, since it may have neither a compiler nor a network.

    python requirements/wheelhouse.py lock                            pin what runtime.txt names, with hashes
    python requirements/wheelhouse.py build OUTPUT --python 3.11 --machine x86_64

`build` prints one JSON object: the release's name, its folder, and whether anything in it changed.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# Debian 12, Ubuntu 24.04, Debian 13.
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64",)
HERE = Path(__file__).resolve().parent
LOCK = HERE / "runtime.lock"


def main() -> None:
    """Run the command that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lock")
    build_parser = commands.add_parser("build")
    build_parser.add_argument("output", type=Path)
    build_parser.add_argument("--python", choices=PYTHONS, required=True)
    build_parser.add_argument("--machine", choices=MACHINES, required=True)
    arguments = parser.parse_args()
    if arguments.command == "lock":
        lock()
    else:
        print(json.dumps(build(arguments.output, arguments.python, arguments.machine)))


def lock() -> None:
    """Download what runtime.txt pins and write down what came."""
    hashes: dict[str, set[str]] = {}
    pins = [line.partition("#")[0].strip() for line in (HERE / "runtime.txt").read_text().splitlines()]
    for python in PYTHONS:
        for machine in MACHINES:
            with tempfile.TemporaryDirectory() as folder:
                _download(python, machine, Path(folder), *filter(None, pins))
                _require_complete(python, machine, folder, *filter(None, pins))
                for wheel in Path(folder).iterdir():
                    pin = "==".join(wheel.name.split("-")[:2])
                    hashes.setdefault(pin, set()).add(_sha256(wheel))
    lines = ["# Written by `make lock` from runtime.txt."]
    lines += [
        " \\\n".join([pin, *(f"    --hash=sha256:{each}" for each in sorted(found))])
        for pin, found in sorted(hashes.items())
    ]
    LOCK.write_text("\n".join(lines) + "\n")


def build(output: Path, python: str, machine: str) -> dict[str, str | bool]:
    """Build the tool's wheel and lay the pinned ones beside it; what is there already is not fetched again.

    The release is named after everything in it, so that another checkout or another Python is another release.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _pip("wheel", "--no-deps", f"--wheel-dir={work}", str(HERE.parent))
        [ours] = work.glob("portfolio_ops-*.whl")
        version = ours.name.split("-")[1]
        digest = hashlib.sha256(f"{_sha256(ours)} {_sha256(LOCK)}".encode()).hexdigest()[:8]
        release = f"{version}-{digest}-cp{python.replace('.', '')}-{machine}"
        target = output.resolve() / release
        changed = not target.is_dir()
        if changed:
            _download(python, machine, work, "--require-hashes", f"--requirement={LOCK}")
            shutil.copy(LOCK, work / "runtime.lock")
            output.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_name(f".tmp-{release}")
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(work, unfinished)
            unfinished.rename(target)
    return {"release": release, "folder": str(target), "changed": changed}


def _download(python: str, machine: str, target: Path, *what: str) -> None:
    """Fetch wheels, and wheels only, for another Python than this one."""
    _pip("download", "--only-binary=:all:", "--no-deps", *_tags(python, machine), f"--dest={target}", *what)


def _require_complete(python: str, machine: str, wheels: str, *pins: str) -> None:
    """Let pip resolve the pins from these wheels alone: what each requires is among them, in a version that fits."""
    alone = ("--isolated", "--no-index", f"--find-links={wheels}", "--only-binary=:all:")
    with tempfile.TemporaryDirectory() as folder:
        _pip("download", *alone, *_tags(python, machine), f"--dest={folder}", *pins)


def _tags(python: str, machine: str) -> list[str]:
    platforms = [f"--platform={each}_{machine}" for each in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")]
    return [f"--python-version={python}", "--implementation=cp", f"--abi=cp{python.replace('.', '')}", *platforms]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check", *arguments[1:]]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
