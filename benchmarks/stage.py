"""A restore up to the point at which the database would be exchanged, and no further. It says how long its checks took.

    python -m benchmarks.stage CONFIG TARGET [MOMENT]

MOMENT is a time in ISO format; without it, the newest backup is restored.
"""

import json
import sys
from datetime import datetime
from pathlib import Path

from portfolio_ops import config
from portfolio_ops.host.journal import Log
from portfolio_ops.restore.plan import choose
from portfolio_ops.restore.points import plan_moment
from portfolio_ops.restore.replay import stage_moment
from portfolio_ops.restore.stage import stage_database


def main(file: Path, target: Path, moment: str = "") -> None:
    """Restore, check, and say so."""
    site, log = config.load(file), Log(site="bench", job="restore")
    if moment:
        staged = stage_moment(plan_moment(site, datetime.fromisoformat(moment)), target, log)
    else:
        staged = stage_database(choose(site, "latest"), target, log)
    print(json.dumps({"checks": staged.check_seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
