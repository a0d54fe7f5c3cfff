"""HTTP as a client, of the few words that health checks and alerts need, and the patience for who does not answer."""

import http.client
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future


class HttpError(Exception):
    """No answer, or not one of 2xx; says which, in words that hold nothing of the URL: it may be a secret."""


def is_url(text: str) -> bool:
    """Whether it is a URL of http or https, and nothing besides."""
    try:
        parts = urllib.parse.urlsplit(text)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return known and text.isprintable() and " " not in text


def get(url: str, seconds: float) -> None:
    """Ask for a URL, and require an answer of 2xx. Proxies of the environment are not used: what is asked is near.

    Args:
        url: Of http or https.
        seconds: The limit for all of it.

    Raises:
        HttpError: There was no such answer.
    """
    _send(url, None, {}, seconds, urllib.request.ProxyHandler({}), urllib.request.HTTPRedirectHandler())


def post(url: str, body: bytes, content_type: str, seconds: float) -> None:
    """Send a body to a URL, by the environment's proxy if it names one, and require an answer of 2xx.

    A redirect is not followed: urllib would ask there without the body, and what was to be said would be lost.

    Args:
        url: Of http or https.
        seconds: The limit for all of it.

    Raises:
        HttpError: There was no such answer.
    """
    _send(url, body, {"Content-Type": content_type}, seconds, urllib.request.ProxyHandler())


def within(seconds: float, call: Callable[[], None]) -> None:
    """Call what waits for somebody else, for so long and no longer.

    A socket's limit is for each read, and the look-up of a name has none. So it is called in a thread, and what is late
    is left behind there; it ends with the process at the latest.

    Raises:
        TimeoutError: It has not ended.
    """
    done: Future[None] = Future()

    def work() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  (it is the caller's)
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=work, daemon=True).start()
    try:
        done.result(seconds)
    except TimeoutError:
        raise TimeoutError("timed out") from None


def _send(
    url: str, body: bytes | None, headers: dict[str, str], seconds: float, *handlers: urllib.request.BaseHandler
) -> None:
    try:
        within(seconds, lambda: _exchange(url, body, headers, seconds, handlers))
    except urllib.error.HTTPError as error:
        error.close()
        raise HttpError(f"answered {error.code} {http.client.responses.get(error.code, '')}".rstrip()) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise HttpError(_why(error)) from None


def _exchange(
    url: str,
    body: bytes | None,
    headers: dict[str, str],
    seconds: float,
    handlers: tuple[urllib.request.BaseHandler, ...],
) -> None:
    # Not build_opener(): it also takes file:, ftp: and data:, and a file that can be read would count as an answer.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        *handlers,
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, body, {"User-Agent": "portfolio-ops", **headers})  # noqa: S310
    with opener.open(request, timeout=seconds):
        pass


def _why(error: Exception) -> str:
    """What failed. Not the exception's own text: it may quote the URL, or what the other side said of it."""
    cause = getattr(error, "reason", error) if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "timed out"
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return f"TLS: {cause.reason}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(error).__name__
