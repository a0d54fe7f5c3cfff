"""HTTP as a client, of the few words that health checks and alerts need."""

import http.client
import urllib.error
import urllib.request

_BODY_MOST = 200


class HttpError(Exception):
    """No answer, or not one of 2xx; says which."""


def get(url: str, seconds: float) -> None:
    """Ask for a URL, and require an answer of 2xx. Proxies of the environment are not used: what is asked is near.

    Args:
        url: Of http or https.
        seconds: The limit for connecting, and for each read.

    Raises:
        HttpError: There was no such answer.
    """
    _send(urllib.request.Request(url), seconds, urllib.request.ProxyHandler({}))  # noqa: S310  (checked by the configuration)


def post(url: str, body: bytes, content_type: str, seconds: float) -> None:
    """Send a body to a URL, by the environment's proxy if it names one, and require an answer of 2xx.

    Raises:
        HttpError: There was no such answer.
    """
    request = urllib.request.Request(url, data=body, headers={"Content-Type": content_type}, method="POST")  # noqa: S310
    _send(request, seconds, urllib.request.ProxyHandler())


def _send(request: urllib.request.Request, seconds: float, proxies: urllib.request.ProxyHandler) -> None:
    request.add_header("User-Agent", "portfolio-ops")
    try:
        with urllib.request.build_opener(proxies).open(request, timeout=seconds) as answer:
            answer.read(_BODY_MOST)
    except urllib.error.HTTPError as error:
        error.close()
        raise HttpError(f"answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise HttpError(str(reason) or type(error).__name__) from error
