"""A throwaway Debian host: a tree under an overlay, booted by systemd-nspawn with systemd as its PID 1.

It has a network of its own with nothing in it but the loopback; ssh reaches it through that. Its kernel and clock are
this machine's. Limits of memory and tasks, and IPAddressDeny=, are not enforced in it (no controllers are delegated).
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).parents[2]
VOLUME = Path("/mnt/volume")
_REBOOT = 133
_PATIENCE = 60.0
_DOCKER = ("--system-call-filter=bpf", "--system-call-filter=keyctl")
_MKFS = {"ext4": ["mkfs.ext4", "-q", "-b", "4096"], "xfs": ["mkfs.xfs", "-q"]}


class Droplet:
    """One host.

    Args:
        name: Its host name; also that of its cgroup.
        tree: What it is made of. It is only read.
        folder: For all that it writes.
        filesystem: Of the volume at /mnt/volume: ext4 or xfs.
        docker: Whether containers run in it.
        binds: Folders of this machine that it sees, to read.
    """

    def __init__(
        self,
        name: str,
        tree: Path,
        folder: Path,
        *,
        filesystem: str,
        docker: bool = False,
        binds: dict[Path, Path] | None = None,
    ) -> None:
        self.name, self.folder = name, folder
        self._tree, self._docker, self._binds = tree, docker, binds or {}
        self._upper, self._root = folder / "upper", folder / "root"
        self._volume, self._image = folder / "volume", folder / "volume.img"
        self._filesystem = filesystem
        base = Path("/sys/fs/cgroup")
        hybrid = [base / each for each in ("unified", "systemd") if (base / each).is_dir()]
        self._groups = [each / f"test-{os.getpid()}-{name}" for each in hybrid or [base]]
        self._boots = 0
        # Short: the path of a socket has at most 107 characters (unix(7)).
        self._control = Path(tempfile.mkdtemp(prefix="droplet-"))
        self._connection: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self._seed()
            self._mount()
            self._watcher = threading.Thread(target=self._run, daemon=True)
            self._watcher.start()
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _seed(self) -> None:
        for folder in (self._upper, self.folder / "work", self._root, self._volume, self.folder / "docker"):
            folder.mkdir(parents=True)
        key = self.folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        for path, text, mode in (
            ("etc/hostname", f"{self.name}\n", 0o644),
            ("etc/ssh/sshd_config.d/test.conf", "ListenAddress 127.0.0.1\nUsePAM no\n", 0o644),
            ("root/.ssh/authorized_keys", key.with_suffix(".pub").read_text(), 0o600),
            ("etc/timezone", "Europe/Zurich\n", 0o644),
        ):
            target = self._upper / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(mode)
        (self._upper / "etc/localtime").symlink_to("/usr/share/zoneinfo/Europe/Zurich")
        (self._upper / "root").chmod(0o700)
        (self._upper / "root/.ssh").chmod(0o700)
        (self._upper / "var/log/journal").mkdir(parents=True)

    def _mount(self) -> None:
        layers = f"lowerdir={self._tree},upperdir={self._upper},workdir={self.folder / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", str(self._root)], check=True)
        subprocess.run(["truncate", "-s", "4G", str(self._image)], check=True)
        subprocess.run([*_MKFS[self._filesystem], str(self._image)], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self._volume)], check=True)

    def _run(self) -> None:
        """Boot, and boot again after each reboot, until it is powered off."""
        command = [
            *("systemd-nspawn", "--quiet", f"--directory={self._root}", f"--machine={self.name}", "--boot"),
            *("--register=no", "--keep-unit", "--console=pipe", "--private-network", "--resolv-conf=off"),
            "--timezone=off",
            f"--bind={self._volume}:{VOLUME}",
            *(f"--bind-ro={source}:{target}" for source, target in self._binds.items()),
            *((*_DOCKER, f"--bind={self.folder / 'docker'}:/var/lib/docker") if self._docker else ()),
        ]
        status = _REBOOT
        while status == _REBOOT:
            with (self.folder / "console.log").open("ab") as console:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                    start_new_session=True,
                    preexec_fn=self._enter_cgroups,  # noqa: PLW1509  (two hosts started from one cgroup would share its payload)
                )
            self._boots += 1
            status = self._process.wait()
        self._ended.set()

    def _enter_cgroups(self) -> None:
        for group in self._groups:
            group.mkdir(exist_ok=True)
            (group / "cgroup.procs").write_text(str(os.getpid()))

    @property
    def leader(self) -> int:
        """The process that is PID 1 in there."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0])

    def wait(self) -> None:
        """Until it is up and ssh answers."""
        self._disconnect()
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(IndexError, OSError, AssertionError, subprocess.TimeoutExpired):
                done = self.try_run("systemctl", "is-system-running", timeout=5)
                if done.stdout.strip() in {"running", "degraded"}:
                    self._connect()
                    return
            time.sleep(0.1)
        raise TimeoutError(f"{self.name} did not come up:\n{(self.folder / 'console.log').read_text()[-3000:]}")

    def _connect(self) -> None:
        """Open the connection that all commands share: to make one for each would take longer than most of them."""
        command = ["ssh", "-N", *self.ssh_options(), "-o", "ControlMaster=yes", *self._sharing(), f"root@{self.name}"]
        nothing = subprocess.DEVNULL
        self._connection = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.kill()
            self._connection.wait()
            self._connection = None
        for socket in self._control.iterdir():
            socket.unlink()

    def _sharing(self) -> list[str]:
        """Where the shared connection is; where there is none, a command makes its own."""
        return ["-o", f"ControlPath={self._control}/{self._boots}"]

    def ssh_options(self) -> list[str]:
        """What makes ssh reach it."""
        return [
            *("-o", f"ProxyCommand=nsenter -t {self.leader} -n nc -N 127.0.0.1 22"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
            *("-o", "IdentitiesOnly=yes", "-i", str(self.folder / "key")),
        ]

    def try_run(self, *words: str, timeout: float = 120, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a command in it, as root."""
        line = shlex.join(words)
        command = ["ssh", *self.ssh_options(), "-o", "ControlMaster=no", *self._sharing(), f"root@{self.name}", line]
        return subprocess.run(command, input=text or "", capture_output=True, text=True, timeout=timeout, check=False)

    def run(self, *words: str, timeout: float = 120, text: str | None = None) -> str:
        """As `try_run`, and it must succeed; gives its stdout."""
        done = self.try_run(*words, timeout=timeout, text=text)
        assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Write a small file in it."""
        self.run("mkdir", "-p", str(Path(path).parent))
        self.run("tee", path, text=text)

    def play(self, playbook: str, variables: dict[str, Any], *options: str) -> "subprocess.CompletedProcess[str]":
        """Run one of the project's playbooks against it, as a user would."""
        (self.folder / "variables.json").write_text(json.dumps(variables))
        ansible = Path(shutil.which("ansible-playbook") or REPOSITORY / ".venv/bin/ansible-playbook")
        options_text = " ".join(f"'{each}'" if " " in each else each for each in self.ssh_options())
        (self.folder / "inventory").write_text(
            f'{self.name} ansible_user=root ansible_ssh_common_args="{options_text}"\n'
        )
        return subprocess.run(
            [
                *(str(ansible), "-i", str(self.folder / "inventory"), "-e", f"@{self.folder / 'variables.json'}"),
                *(*options, f"playbooks/{playbook}"),
            ],
            cwd=REPOSITORY / "ansible",
            env={
                **os.environ,
                "ANSIBLE_HOME": str(self.folder / "ansible"),
                # Of this host alone: by its name, another run's host of the same name would answer.
                "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "cp"),
                "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=10s",
                "ANSIBLE_NOCOLOR": "1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def reboot(self) -> None:
        """Restart it in the ordinary way, and wait until it is up."""
        before = self._boots
        self.try_run("systemctl", "reboot")
        self._wait_for_boot(before)

    def crash(self) -> None:
        """Cut its power: nothing in it gets a chance to end well. Then boot it again."""
        before = self._boots
        os.kill(self.leader, signal.SIGKILL)
        self._ended.wait(_PATIENCE)
        self._ended.clear()
        self._watcher = threading.Thread(target=self._run, daemon=True)
        self._watcher.start()
        self._wait_for_boot(before)

    def _wait_for_boot(self, before: int) -> None:
        deadline = time.monotonic() + _PATIENCE
        while self._boots == before and time.monotonic() < deadline:
            time.sleep(0.05)
        self.wait()

    def stop(self) -> None:
        """End it and take away all that it left on this machine."""
        self._disconnect()
        self._control.rmdir()
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(IndexError, OSError, AssertionError):
                os.kill(self.leader, signal.SIGKILL)
        if self._watcher is not None:
            self._watcher.join(_PATIENCE)
        for mount in (self._volume, self._root):
            if os.path.ismount(mount):
                subprocess.run(["umount", str(mount)], check=True)
        for group in self._groups:
            for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            with contextlib.suppress(OSError):
                group.rmdir()
