"""`portfolio-ops serve`: the HTTP API."""

import socket
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from portfolio_ops.cli.backup import Wait
from portfolio_ops.cli.context import Context
from portfolio_ops.errors import ConfigurationError, ExitCode

if TYPE_CHECKING:
    from portfolio_ops.config import Site

_SOCKETS_MOST = 2


@click.command("serve")
@click.option("--idle", type=Wait(), default="60s", show_default=True, help="Without a call for so long, it ends.")
@click.pass_obj
def command(context: Context, idle: timedelta) -> ExitCode:
    """Answer the HTTP API on the sockets that systemd hands over, until nobody calls any more.

    portfolio-api@SITE.socket starts it at the first call. Backups that are asked for are made by another unit.
    """
    from portfolio_ops.api.app import Api  # noqa: PLC0415  (the server takes longer to load than all else)
    from portfolio_ops.api.guard import Guard  # noqa: PLC0415
    from portfolio_ops.api.maker import Maker  # noqa: PLC0415
    from portfolio_ops.api.server import serve  # noqa: PLC0415
    from portfolio_ops.host.journal import Log  # noqa: PLC0415
    from portfolio_ops.host.sockets import inherited  # noqa: PLC0415

    sockets = inherited(_SOCKETS_MOST)
    site = context.site()
    guard = Guard(_token(site, sockets))
    serve(
        sockets,
        Api(site, guard, Maker(site)),
        Log(site=site.name, job="api"),
        idle=idle.total_seconds(),
        wait=site.api.wait.total_seconds(),
    )
    return context.finish("serve", {}, lambda: None)


def _token(site: "Site", sockets: list[socket.socket]) -> str:
    """What callers must bring; empty on a unix socket alone, whose mode decides.

    Raises:
        ConfigurationError: The network is listened to, and no token is asked for; or it is empty.
    """
    from portfolio_ops.host.credentials import secret  # noqa: PLC0415

    if site.api.token:
        token = secret(site.api.token)
        if not token:
            raise ConfigurationError([f"the credential {site.api.token} is empty"], suggestion="write a token into it")
        return token
    if any(each.family != socket.AF_UNIX for each in sockets):
        raise ConfigurationError(
            ["a TCP socket is served with a token only, and [api] token names none"],
            suggestion='set [api] token = "credential:api-token", and LoadCredential=api-token:FILE in the unit',
        )
    return ""
