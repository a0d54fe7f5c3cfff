"""Listening sockets that the service manager hands over (sd_listen_fds(3)), and who is at the other end."""

import os
import socket
import struct

from portfolio_ops.errors import UsageError

_FIRST = 3  # SD_LISTEN_FDS_START
_UCRED = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
_HOW = "it is for a socket unit: systemctl start portfolio-api@SITE.socket"


def inherited(most: int) -> list[socket.socket]:
    """The sockets that were handed over to this very process; they are not handed on to its children.

    Args:
        most: How many there may be.

    Raises:
        UsageError: None were, or more, or one is not a listening stream socket of this host or of the network.
    """
    process, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not process or not count:
        raise UsageError("no socket was handed over (LISTEN_FDS is not set)", suggestion=_HOW)
    if process != str(os.getpid()):
        raise UsageError(f"the sockets were handed to process {process[:20]}, this is {os.getpid()}", suggestion=_HOW)
    if not count.isdecimal() or not 1 <= int(count) <= most:
        raise UsageError(f"{count[:20]} sockets were handed over; from 1 to {most} can be served", suggestion=_HOW)
    return [_listening(descriptor) for descriptor in range(_FIRST, _FIRST + int(count))]


def _listening(descriptor: int) -> socket.socket:
    try:
        given = socket.socket(fileno=descriptor)
        fits = given.type == socket.SOCK_STREAM and bool(given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        raise UsageError(f"descriptor {descriptor} is no socket ({error.strerror})", suggestion=_HOW) from error
    if not fits or given.family not in {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6}:
        raise UsageError(f"descriptor {descriptor} is not a listening stream socket", suggestion=_HOW)
    given.set_inheritable(False)
    return given


def peer_of(connection: socket.socket) -> str:
    """Who is at the other end, in words. On a unix socket as the kernel knows it (SO_PEERCRED), since it connected."""
    if connection.family == socket.AF_UNIX:
        pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return f"uid {uid}, pid {pid}"
    address: tuple[str, int] = connection.getpeername()
    return f"{address[0]} port {address[1]}"
