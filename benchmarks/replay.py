"""A restore of the newest moment in the archive: the base, and each increment on it, replayed by SQLite itself.

python -m benchmarks.replay CONFIG TARGET
"""

import sys
from pathlib import Path

import apsw

from portfolio_ops import config
from portfolio_ops.host.journal import Log
from portfolio_ops.restore.stage import decode_to
from portfolio_ops.sqlite.increment_content import extract
from portfolio_ops.store import timeline


def replay(file: Path, target: Path) -> None:
    """Bring `target` to the archive's last moment, durably.

    What was flushed before the base was made is replayed too: the same pages again.
    """
    site = config.load(file)
    names, base = timeline.ids(site.backups), timeline.newest_base(site.backups, site.name)
    if len(names) != 1 or base is None:
        raise SystemExit(f"one timeline and its base are expected, there are {names} and {base}")
    found = timeline.read(site.backups, names[0])
    wrong = [*found.problems, *(each.damaged for each in found.increments if each.damaged)]
    if wrong:
        raise SystemExit(f"the archive is damaged: {wrong}")
    decode_to(base, target, Log(site=site.name, job="bench"))
    for increment in found.increments:
        if not increment.cuts:
            continue
        extract(increment, increment.cuts[-1], target.with_name(f"{target.name}-wal"))
        connection = apsw.Connection(str(target))
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        connection.close()


if __name__ == "__main__":
    replay(Path(sys.argv[1]), Path(sys.argv[2]))
