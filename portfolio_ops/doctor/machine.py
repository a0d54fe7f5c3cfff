"""The host: room on the disk, timers, the clock, the backend, Docker's own logs, the sandbox of the units."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.config import Site
from portfolio_ops.doctor.finding import Finding, advice, fault, ok
from portfolio_ops.errors import PortfolioOpsError
from portfolio_ops.host import backend
from portfolio_ops.host.files import free_bytes, nearest, reserve_bytes
from portfolio_ops.host.identity import as_root
from portfolio_ops.host.timers import TIMERS, service_state, service_states, status_text, timer_states
from portfolio_ops.jobs import health
from portfolio_ops.jobs.archive_health import ArchiveHealth
from portfolio_ops.jobs.health import Health
from portfolio_ops.moment import local
from portfolio_ops.store import catalogue, others
from portfolio_ops.store.artifact import Artifact, Kind
from portfolio_ops.store.retention import limit_of

_BOOTED = Path("/run/systemd/system")
_UNITS = Path("/etc/systemd/system")
_SECONDS = 120
_PERIODS = {Kind.DAILY: timedelta(days=1), Kind.SOCIAL: timedelta(weeks=1)}


def look(site: Site, told: Collection[str]) -> Iterator[Finding]:
    """Everything about the host.

    Args:
        told: What was found already, which `status` finds as well.
    """
    assessed = health.assess(site, datetime.now(UTC))
    found = catalogue.scan(site.backups, site.name)
    yield _room(site, found)
    yield _clock(found)
    foreign, archive = list(_others(site, found)), list(_archive(site, assessed.archive))
    yield from foreign
    yield from _timers(site)
    yield from archive
    yield from _runs(assessed, [*told, *(each.text for each in (*foreign, *archive))])
    yield from _backend(site)
    yield from _docker_logs()
    yield from _sandbox(site)


def _room(site: Site, found: catalogue.Catalogue) -> Finding:
    """What retention will come to keep, if backups stay as large as the last ones, against what is free."""
    place = nearest(site.backups)
    free = free_bytes(place) - reserve_bytes(place)
    coming = sum(_coming(site, kind, found.of(kind)) for kind in _PERIODS)
    newest = catalogue.newest_database(found)
    staging = newest.metadata.content.bytes if newest is not None else 0
    room = f"{free:,} bytes beyond the reserve" if free >= 0 else f"{-free:,} bytes short of the reserve"
    words = f"{room}; backups will grow by {coming:,}, a check of one takes {staging:,}"
    if free < coming + staging:
        return fault("room", words, f"enlarge the volume, or shorten [retention] daily; see `{tool()} prune --explain`")
    return ok("room", words)


def _coming(site: Site, kind: Kind, artifacts: list[Artifact]) -> int:
    """Bytes that are still to come until as many artifacts are kept as retention asks for."""
    if not artifacts:
        return 0
    full = limit_of(site.retention, kind) // _PERIODS[kind]
    return max(0, full - len(artifacts)) * artifacts[-1].bytes


def _clock(found: catalogue.Catalogue) -> Finding:
    now = datetime.now(UTC)
    ahead = [artifact for artifact in found.artifacts if artifact.taken > now + timedelta(minutes=5)]
    if ahead:
        return fault(
            "clock",
            f"{len(ahead)} backups are dated in the future, {ahead[-1].path.name} last: the clock is or was wrong",
            "timedatectl; backups of the future are kept until then, and protect nothing",
        )
    said = _said(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if said == "no":
        return advice("clock", "it is not kept by a time server", "apt-get install systemd-timesyncd")
    return ok("clock", local(now) + (", kept by a time server" if said == "yes" else ""))


def _others(site: Site, found: catalogue.Catalogue) -> Iterator[Finding]:
    """What bears another name; of a site that is configured here, its own jobs may be about to write more of it."""
    for each in others.others(site.backups, found.problems):
        file = site.file.with_name(f"{each.site}.toml")
        shared = f"give each site a folder of its own: [site] backups in {file} and {site.file}"
        yield fault("backups", each.text, shared if file.exists() else each.cure)


def _timers(site: Site) -> Iterator[Finding]:
    states = timer_states(site.name)
    if states is None:
        yield advice(
            "timers", "no systemd runs here: nothing starts the jobs", "start them by other means, or deploy the units"
        )
        return
    if not states:
        yield advice("timers", f"no timer of site {site.name} is installed", "deploy them with the Ansible role")
        return
    if missing := [name for name in TIMERS if not _is_deployed(site, name)]:
        unit = f"portfolio-{missing[0]}@{site.name}.service"
        words = f"{len(missing)} units have no drop-in of the deployment and refuse to start, {unit} first"
        yield fault("timers", words, f"deploy site {site.name} with the Ansible role")
        return
    units = service_states(*(f"portfolio-{name}@{site.name}.timer" for name in TIMERS))
    if len(units) == len(TIMERS) and all(unit.enabled and unit.active == "inactive" for unit in units.values()):
        words = f"none of site {site.name} runs, and each would after the next boot: their target was stopped"
        yield fault("timers", words, f"systemctl start portfolio@{site.name}.target")
        return
    for name in TIMERS:
        state, timer = states.get(name), f"portfolio-{name}@{site.name}.timer"
        if state is None or not state.active:
            yield fault("timers", f"{timer} does not run", f"systemctl enable --now {timer}")
        elif _said(["systemctl", "is-enabled", timer]) != "enabled":
            yield fault("timers", f"{timer} runs, but not after the next boot", f"systemctl enable {timer}")
        elif state.result != "success":
            yield fault(
                "timers", f"{timer} has failed: {state.result}", f"systemctl reset-failed {timer}, then start it"
            )
        elif _said(["systemctl", "is-failed", f"portfolio-{name}@{site.name}.service"]) == "failed":
            unit = f"portfolio-{name}@{site.name}.service"
            yield fault("timers", f"{unit} has failed for good", f"journalctl -xeu {unit}")
        else:
            yield ok("timers", f"{timer} runs")


def _is_deployed(site: Site, name: str) -> bool:
    """Whether a unit has the drop-in without which it starts for no site (`AssertPathExists=`)."""
    return (_UNITS / f"portfolio-{name}@{site.name}.service.d/10-portfolio-ops.conf").exists()


def _archive(site: Site, archive: ArchiveHealth | None) -> Iterator[Finding]:
    """Whether what follows the database runs, and archives. Where its unit is not there, the timers' are not either."""
    unit = f"portfolio-archive@{site.name}.service"
    state = service_state(unit)
    if state is None or not _is_deployed(site, "archive"):
        return
    if state.active == "failed":
        yield fault(
            "archive",
            f"{unit} has failed for good: {state.said or 'it said nothing'}",
            f"journalctl -xeu {unit}; mend what it names; systemctl reset-failed {unit}; systemctl start {unit}",
        )
    elif state.active != "active" and state.enabled:
        yield fault(
            "archive",
            f"{unit} does not run ({state.active}): no moment between backups is kept",
            f"systemctl start {unit}; if it does not stay: journalctl -xeu {unit}",
        )
    elif state.active != "active":
        yield advice(
            "archive",
            f"{unit} is not enabled: no moment between backups is kept",
            f"systemctl enable --now {unit}",
        )
    elif not state.enabled:
        yield fault("archive", f"{unit} runs, but not after the next boot", f"systemctl enable {unit}")
    elif archive is not None and archive.finding:
        yield fault("archive", archive.finding, f"journalctl -eu {unit}; mend what it names; systemctl restart {unit}")
    else:
        yield ok("archive", f"{unit} runs. {state.said}".strip())


def _runs(assessed: Health, told: Collection[str]) -> Iterator[Finding]:
    """What `status` finds, but for the backend, which is asked here anyhow, and for what is told already."""
    findings = [each for each in assessed.findings if not each.startswith(("the backend is not well", *told))]
    for each in findings:
        yield fault("runs", each, f"{tool()} status; journalctl -u 'portfolio-*'")
    if not findings:
        yield ok("runs", "no job is late or has failed")


def _backend(site: Site) -> Iterator[Finding]:
    if not backend.is_known(site.backend):
        yield advice(
            "backend",
            "how to stop and start it is not configured: a restore in place is refused while it runs",
            f"in {site.file}: [backend] compose, or stop, start and status",
        )
        return
    try:
        runs = backend.is_running(site.backend)
    except PortfolioOpsError as error:
        if os.getuid() == 0:
            yield fault("backend", error.message, error.suggestion)
        else:
            words = f"whether {site.backend.described} runs could not be asked by uid {os.getuid()}"
            yield advice("backend", words, "run this as root, as a restore in place is")
        return
    words = f"{site.backend.described} {'runs' if runs else 'does not run'}"
    if not site.backend.health:
        yield advice(
            "backend", f"{words}; it has no health check", "[backend] health: a restore then sees whether it is well"
        )
    elif runs and (why := health.sick_backend(site)):
        yield fault("backend", why[0], "read the backend's own log")
    else:
        yield ok("backend", words)


def _docker_logs() -> Iterator[Finding]:
    """Containers whose own logs grow without a limit. They are the daemon's: advice only."""
    if shutil.which("docker") is None:
        return
    names = (_said(["docker", "ps", "--quiet"]) or "").split()
    if not names:
        return
    with contextlib.suppress(ValueError, KeyError, TypeError):
        for each in json.loads(_said(["docker", "inspect", *names]) or "[]"):
            config = each["HostConfig"]["LogConfig"]
            if config["Type"] == "json-file" and "max-size" not in (config["Config"] or {}):
                yield advice(
                    "docker",
                    f"the log of container {each['Name'].lstrip('/')} grows without a limit",
                    'in its compose file: logging: {driver: local}; or "max-size" in /etc/docker/daemon.json',
                )


def _sandbox(site: Site) -> Iterator[Finding]:
    """Let a unit with the sandbox of the jobs try what they do."""
    unit = f"portfolio-doctor@{site.name}.service"
    if not _BOOTED.is_dir() or _said(["systemctl", "show", "--value", "--property=LoadState", unit]) != "loaded":
        return
    if os.getuid() != 0:
        yield advice("sandbox", "the units' sandbox was not tried", "run this as root")
        return
    try:
        with as_root():
            subprocess.run(["systemctl", "start", unit], capture_output=True, timeout=_SECONDS, check=True)  # noqa: S603, S607
    except subprocess.SubprocessError:
        said = status_text(unit) or "it did not start"
        yield fault("sandbox", f"in the units' sandbox: {said}", f"journalctl -xeu {unit}; deploy again")
    else:
        yield ok("sandbox", "in the units' sandbox the data can be read, and the backups and logs written")


def _said(argv: list[str]) -> str | None:
    """What a program says in one call, however it ends; None where it is not there or does not end."""
    try:
        with as_root():
            done = subprocess.run(  # noqa: S603  (argument lists of our own)
                argv, capture_output=True, text=True, timeout=_SECONDS, check=False, env={**os.environ, "LC_ALL": "C"}
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
