"""The endpoints of a site without limits, waiting or anybody who makes backups: it is the answers that count here.

python -m tests.integration.api.unlimited CONFIG TOKEN, with a listening socket as its standard input.
"""

import socket
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import uvicorn

from portfolio_ops import config
from portfolio_ops.api.app import Api
from portfolio_ops.api.guard import Bucket, Guard
from portfolio_ops.api.maker import Maker


class _Nobody(Maker):
    """Makes nothing: what is asked for stays."""

    def tend(self) -> None:
        pass


def main() -> None:
    site, token = config.load(Path(sys.argv[1])), sys.argv[2]
    guard = Guard(token)
    guard.calls = guard.triggers = guard.strangers = Bucket(float("inf"), 1)
    api = Api(replace(site, api=replace(site.api, wait=timedelta(0))), guard, _Nobody(site))
    close = [("Connection", "close")]  # as the product's own server has it
    served = uvicorn.Config(api.application(), log_config=None, lifespan="off", headers=close)
    uvicorn.Server(served).run([socket.socket(fileno=0)])


if __name__ == "__main__":
    main()
