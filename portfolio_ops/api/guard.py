"""Who may call, how often, and how much may be sent: in front of everything else."""

import hmac
import time

from starlette.requests import Request

_TRIGGERS_BURST, _TRIGGERS_PER_SECOND = 30, 0.5
_CALLS_BURST, _CALLS_PER_SECOND = 300, 10.0
_STRANGERS_BURST, _STRANGERS_PER_SECOND = 60, 1.0


class Bucket:
    """So many at once, and so many a second in the long run.

    It is full again within a minute, so a server that ends when nobody calls for that long forgets nothing.
    """

    def __init__(self, most: float, per_second: float) -> None:
        self._most, self._rate = most, per_second
        self._level, self._at = most, time.monotonic()

    def wait(self) -> float:
        """Take one; gives 0, or the seconds until there is one again, and then none was taken."""
        now = time.monotonic()
        self._level, self._at = min(self._most, self._level + (now - self._at) * self._rate), now
        if self._level < 1:
            return (1 - self._level) / self._rate
        self._level -= 1
        return 0.0


class Guard:
    """One site's.

    Args:
        token: Must stand in `Authorization: Bearer`; empty where none is asked for.

    Attributes:
        calls: For who may call.
        triggers: For those of their calls that begin a backup.
        strangers: For who may not.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self.calls = Bucket(_CALLS_BURST, _CALLS_PER_SECOND)
        self.triggers = Bucket(_TRIGGERS_BURST, _TRIGGERS_PER_SECOND)
        self.strangers = Bucket(_STRANGERS_BURST, _STRANGERS_PER_SECOND)

    def refusal(self, request: Request) -> int:
        """0 for who may call; 401 for who brings no token, 403 for a wrong one. How long that took tells nothing."""
        if not self._token:
            return 0
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not given:
            return 401
        return 0 if hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token) else 403
