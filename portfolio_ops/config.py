"""The configuration of a site: `/etc/portfolio-ops/<site>.toml`.

Every key has a default but `[site] root`. All faults of a file are reported at once, each with the file, the key and
the cure, so that one look at the message is one edit.
"""

import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from portfolio_ops import setting as checks
from portfolio_ops.calling import tool
from portfolio_ops.errors import ConfigurationError, NotFoundError, UsageError

DIRECTORY = Path("/etc/portfolio-ops")
ENVIRONMENT = "PORTFOLIO_OPS_CONFIG"

SITE_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")

_STATE = ".portfolio-ops"


@dataclass(frozen=True)
class SocialTable:
    """A table of the social export. An optional one may be missing; in the file its name ends in `?`."""

    name: str
    optional: bool


@dataclass(frozen=True)
class Retention:
    """How long artifacts of each kind are kept, by their own time, and how many verified dailies always are."""

    daily: timedelta
    social: timedelta
    event: timedelta
    logs: timedelta
    wal: timedelta
    minimum: int


@dataclass(frozen=True)
class Backend:
    """How the site's own program is stopped for a restore, started again, and asked how it is.

    Attributes:
        stop, start, status: Programs with their arguments, or empty where none is configured; no shell reads them.
            `status` exits with 0 while the backend runs.
        running_service: For compose, the line that `status` prints while it runs; empty for any other.
        health: URL that answers with 2xx when it is well, or empty.
        patience: How long to wait for it to be down, and to be well.
        described: Who it is, in words.
    """

    stop: tuple[str, ...]
    start: tuple[str, ...]
    status: tuple[str, ...]
    running_service: str
    health: str
    patience: timedelta
    described: str


@dataclass(frozen=True)
class Alert:
    """Who is told when a scheduled run fails for good, or is well again. Empty where nobody is.

    `webhook` and `ping` may say `credential:NAME` for a secret that systemd passes (systemd.exec(5), LoadCredential=).
    """

    webhook: str
    mail: str
    command: tuple[str, ...]
    ping: str


@dataclass(frozen=True)
class Archive:
    """How the database is followed.

    Attributes:
        stall_budget: For how long the site's writers may be held off at a time.
    """

    stall_budget: timedelta


@dataclass(frozen=True)
class Gallery:
    """The table whose new rows are events, and its column with the names."""

    table: str
    name: str


@dataclass(frozen=True)
class Drill:
    """The rehearsal: the site's own SQL, each statement true on a sound restore, and where it is restored to."""

    checks: tuple[str, ...]
    scratch: Path


@dataclass(frozen=True)
class Api:
    """The HTTP API.

    Attributes:
        token: The name of the systemd credential that holds the bearer token; empty where none is asked for.
        wait: How long an answer waits for the backup that was asked for.
    """

    token: str
    wait: timedelta


@dataclass(frozen=True)
class Setting:
    """An effective value and where it comes from: `default`, or the file that sets it."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True)
class Site:
    """One application: its database, its logs and its backups. All paths are absolute.

    Attributes:
        name: The file's name without `.toml`; units carry it as their instance.
        settings: Every effective setting with its origin, in the order of the reference.
    """

    name: str
    file: Path
    root: Path
    database: Path
    backups: Path
    logs: tuple[Path, ...]
    social_tables: tuple[SocialTable, ...]
    retention: Retention
    backend: Backend
    alert: Alert
    drill: Drill
    archive: Archive
    gallery: Gallery | None
    api: Api
    settings: tuple[Setting, ...]

    @property
    def state(self) -> Path:
        """Locks and run records: nothing that a restore needs."""
        return self.backups / _STATE


_REQUIRED = object()
_SCHEMA: dict[str, dict[str, tuple[Callable[[Any], Any], Any]]] = {
    "site": {
        "root": (checks.text, _REQUIRED),
        "database": (checks.text, "data/portfolio.sqlite"),
        "backups": (checks.text, "backups"),
    },
    "logs": {"files": (checks.texts, ("logs/backend.log",))},
    "social": {"tables": (checks.texts, ("comments", "likes", "user_sessions", "social_interactions"))},
    "retention": {
        "daily": (checks.duration, "30d"),
        "social": (checks.duration, "12w"),
        "event": (checks.duration, "90d"),
        "logs": (checks.duration, "7d"),
        "wal": (checks.duration, "30d"),
        "minimum": (checks.count, 3),
    },
    "archive": {"stall_budget": (checks.budget, "50ms")},
    "gallery": {"table": (checks.text, ""), "name": (checks.text, "")},
    "backend": {
        "compose": (checks.text, ""),
        "service": (checks.text, "backend"),
        "stop": (checks.argv, ()),
        "start": (checks.argv, ()),
        "status": (checks.argv, ()),
        "health": (checks.url, ""),
        "patience": (checks.duration, "60s"),
    },
    "alert": {
        "webhook": (checks.secret_url, ""),
        "mail": (checks.address, ""),
        "command": (checks.argv, ()),
        "ping": (checks.secret_url, ""),
    },
    "drill": {
        "checks": (checks.texts, ()),
        "scratch": (checks.text, ""),
    },
    "api": {
        "token": (checks.credential, ""),
        "wait": (checks.duration, "50s"),
    },
}


def load(file: Path) -> Site:
    """Read and check a site's file.

    Raises:
        NotFoundError: There is no such file.
        ConfigurationError: It has faults; `problems` has a line for each.
    """
    name = _name_of(file)
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        others = ", ".join(sorted(each.stem for each in file.parent.glob("*.toml")))
        create = f'create it with two lines:  [site]  and  root = "/path/of/{name}"'
        raise NotFoundError(
            f"there is no configuration {file}",
            suggestion=f"configured are: {others}; or {create}" if others else create,
        ) from error
    except PermissionError as error:
        raise ConfigurationError(
            [f"{file}: cannot be read by uid {os.geteuid()} ({error.strerror})"],
            suggestion=f"what works for a site runs as its owner, who must be able to read it: chmod a+r {file};"
            f" chmod a+x {file.parent}",
        ) from error
    except OSError as error:
        raise ConfigurationError([f"{file}: cannot be read ({error.strerror})"]) from error
    return parse(file, content)


def parse(file: Path, content: bytes) -> Site:
    """Check what stands in a site's file, or is to stand there.

    Raises:
        ConfigurationError: It has faults; `problems` has a line for each.
    """
    name = _name_of(file)
    try:
        document = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{file}: is not TOML: {error}"], suggestion="mend that line") from error
    problems: list[str] = []
    settings = _settings(file, document, problems)
    values = {setting.key: setting.value for setting in settings}
    if not problems:
        problems += [f"{file}: {fault}" for fault in _path_faults(values)]
    if problems:
        raise ConfigurationError(problems, suggestion=f"edit the file, then run: {tool()} config check")
    return _site(name, file, values, settings)


def _name_of(file: Path) -> str:
    """The site's name, which its file bears.

    Raises:
        ConfigurationError: It bears none.
    """
    name = file.name.removesuffix(".toml")
    if not file.name.endswith(".toml") or not SITE_NAME.fullmatch(name):
        raise ConfigurationError(
            [f"{file}: the name must be <site>.toml, the site of a-z, 0-9 and -"],
            suggestion="rename the file; units carry the site's name",
        )
    return name


def _settings(file: Path, document: dict[str, Any], problems: list[str]) -> list[Setting]:
    """All settings of the schema, file over default; faults are added to `problems`."""
    problems += [
        f"{file}: unknown section [{section}]{_nearest(section, _SCHEMA)}"
        for section in document
        if section not in _SCHEMA
    ]
    settings = []
    for section, keys in _SCHEMA.items():
        table = document.get(section, {})
        if not isinstance(table, dict):
            problems.append(f"{file}: [{section}] must be a section, not a value")
            continue
        problems += [f"{file}: unknown key {section}.{key}{_nearest(key, keys)}" for key in table if key not in keys]
        for key, (check, default) in keys.items():
            if key in table:
                try:
                    settings.append(Setting(f"{section}.{key}", check(table[key]), str(file)))
                except ValueError as error:
                    problems.append(f"{file}: {section}.{key} {error}")
            elif default is _REQUIRED:
                problems.append(f'{file}: {section}.{key} is missing; add  {key} = "/absolute/path"  under [{section}]')
            else:
                settings.append(Setting(f"{section}.{key}", default, "default"))
    return settings


def _nearest(word: str, known: dict[str, Any]) -> str:
    """A hint at the valid word that is meant, or all of them."""
    import difflib  # noqa: PLC0415  (only for what is wrong)

    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; valid here: {', '.join(known)}"


def _path_faults(values: dict[str, Any]) -> list[str]:
    """Faults that show only when paths are put together."""
    faults = []
    root = Path(values["site.root"])
    if not root.is_absolute():
        faults.append("site.root must be an absolute path")
    database, backups = root / values["site.database"], root / values["site.backups"]
    if _is_within(root, backups) or _is_within(database.parent, backups):
        faults.append(f"site.backups must be a folder of its own, and {backups} holds the site")
    if not Path(values["site.database"]).is_absolute() and not _is_within(database, root):
        faults.append(f"site.database: {values['site.database']} leaves the site's root; write an absolute path")
    faults.extend(
        f"logs.files: {log} leaves the site's root" for log in values["logs.files"] if not _is_within(root / log, root)
    )
    if bool(values["gallery.table"]) != bool(values["gallery.name"]):
        missing = "name" if values["gallery.table"] else "table"
        faults.append(f"gallery.{missing} is missing; table and name belong together")
    return faults + _backend_faults(values)


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path is a folder, or lies in it, by its words alone."""
    return Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder))


def _backend_faults(values: dict[str, Any]) -> list[str]:
    """A backend is stopped and started in one way, and in a whole one."""
    commands = [key for key in ("stop", "start", "status") if values[f"backend.{key}"]]
    if values["backend.compose"]:
        if not Path(values["backend.compose"]).is_absolute():
            return ["backend.compose must be an absolute path: the folder of the compose file"]
        return [f"backend.{commands[0]} and backend.compose exclude each other"] if commands else []
    missing = [key for key in ("stop", "start", "status") if key not in commands]
    return [f"backend.{missing[0]} is missing; stop, start and status belong together"] if 0 < len(missing) < 3 else []  # noqa: PLR2004  (some, not all)


def _site(name: str, file: Path, values: dict[str, Any], settings: list[Setting]) -> Site:
    root = Path(values["site.root"])
    durations = {
        kind: checks.parse_duration(values[f"retention.{kind}"]) for kind in _SCHEMA["retention"] if kind != "minimum"
    }
    return Site(
        name=name,
        file=file,
        root=root,
        database=root / values["site.database"],
        backups=root / values["site.backups"],
        logs=tuple(root / log for log in values["logs.files"]),
        social_tables=tuple(
            SocialTable(table.removesuffix("?"), table.endswith("?")) for table in values["social.tables"]
        ),
        retention=Retention(**durations, minimum=values["retention.minimum"]),
        backend=_backend(values),
        alert=Alert(values["alert.webhook"], values["alert.mail"], values["alert.command"], values["alert.ping"]),
        drill=Drill(
            values["drill.checks"],
            root / values["drill.scratch"] if values["drill.scratch"] else root / values["site.backups"] / _STATE,
        ),
        archive=Archive(timedelta(milliseconds=int(values["archive.stall_budget"].removesuffix("ms")))),
        gallery=Gallery(values["gallery.table"], values["gallery.name"]) if values["gallery.table"] else None,
        api=Api(values["api.token"].removeprefix("credential:"), checks.parse_duration(values["api.wait"])),
        settings=tuple(settings),
    )


def _backend(values: dict[str, Any]) -> Backend:
    folder, service = values["backend.compose"], values["backend.service"]
    health, patience = values["backend.health"], checks.parse_duration(values["backend.patience"])
    if folder:
        # Options and service are separate words; a service that begins with a dash cannot become an option.
        compose = ("docker", "compose", "--project-directory", folder)
        return Backend(
            (*compose, "stop", "--", service),
            (*compose, "start", "--", service),
            # One that crashes and is started again and again runs too: it is to be stopped, and started at the end.
            (*compose, "ps", "--services", "--status", "running", "--status", "restarting", "--status", "paused"),
            service,
            health,
            patience,
            f"the compose service {service} in {folder}",
        )
    stop, start, status = (values[f"backend.{key}"] for key in ("stop", "start", "status"))
    return Backend(stop, start, status, "", health, patience, f"the backend (`{' '.join(stop)}`)" if stop else "")


def options_for(file: Path) -> list[str]:
    """What names a site's file on the command line, from any folder and for any user."""
    return ["--site", file.stem] if file.parent == DIRECTORY else ["--config", str(file.absolute())]


def find(config: Path | None, site: str | None) -> Path:
    """The file to load: named, by the site's name, by the environment, or the only one there is.

    Raises:
        UsageError: Both are given, or several sites are configured and none is named.
        NotFoundError: No site is configured.
    """
    if config is not None and site is not None:
        raise UsageError("--config and --site were both given", suggestion="give one of them")
    if config is not None:
        return config
    if site is not None:
        if not SITE_NAME.fullmatch(site):
            raise UsageError(f"{site!r} is not a site's name", suggestion="names are of a-z, 0-9 and -")
        return DIRECTORY / f"{site}.toml"
    if named := os.environ.get(ENVIRONMENT):
        return Path(named)
    files = sorted(DIRECTORY.glob("*.toml")) if DIRECTORY.is_dir() else []
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(file.stem for file in files)
        raise UsageError(
            f"several sites are configured: {names}", suggestion="say which: portfolio-ops --site NAME ..."
        )
    raise NotFoundError(
        f"no site is configured in {DIRECTORY}", suggestion=f"create {DIRECTORY}/<site>.toml, or give --config FILE"
    )
