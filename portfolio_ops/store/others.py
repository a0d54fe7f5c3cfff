"""What lies among a site's backups and bears another site's name: it had that name, or two share a folder."""

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from portfolio_ops.calling import tool
from portfolio_ops.store.catalogue import Problem


@dataclass(frozen=True)
class Others:
    """All that bears one other name.

    Attributes:
        site: That name.
        backups: The folder of backups that it lies in.
        paths: Artifacts and timelines, as they lie below it.
    """

    site: str
    backups: Path
    paths: tuple[Path, ...]

    @property
    def text(self) -> str:
        """What was found, in words."""
        timelines = sum(1 for path in self.paths if (self.backups / path).is_dir())
        return (
            f"{self.backups} holds what bears the name of site {self.site!r}, and counts for nothing here "
            f"(artifacts: {len(self.paths) - timelines}, timelines: {timelines})"
        )

    @property
    def cure(self) -> str:
        """A command that takes it to a folder of its own beside this one, where a file of that name can say it is."""
        status, away = self.backups.stat(), self.backups.with_name(f"{self.backups.name}-{self.site}")
        folders = sorted({path.parent for path in self.paths})
        owner = ["-o", str(status.st_uid), "-g", str(status.st_gid), "-m", "750"]
        commands = [
            ["cd", str(self.backups)],
            ["install", "-d", *owner, *(str(away / folder) for folder in (Path(), *folders))],
        ]
        for folder in folders:
            names = [str(path) for path in self.paths if path.parent == folder]
            commands.append(["mv", "-nt", str(away / folder), *names])
        return " && ".join(map(shlex.join, commands))


def told(backups: Path, problems: Sequence[Problem]) -> list[str]:
    """What is wrong with files that are no artifacts of the site, in words: what bears another name is one of them."""
    words = [
        f"not an artifact: {each.reason}" + (f"; {each.cure}" if each.cure else "")
        for each in problems
        if not each.site
    ]
    return words + [f"{each.text}: `{tool()} doctor` names a cure" for each in others(backups, problems)]


def others(backups: Path, problems: Sequence[Problem]) -> list[Others]:
    """What bears the names of other sites, by name."""
    foreign = sorted((each for each in problems if each.site), key=lambda each: (each.site, each.path))
    return [
        Others(site, backups, tuple(each.path.relative_to(backups) for each in those))
        for site, those in itertools.groupby(foreign, key=lambda each: each.site)
    ]
