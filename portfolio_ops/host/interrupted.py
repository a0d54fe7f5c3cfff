"""What ended a run from outside, in words: signals come as exceptions that unwind it."""

import signal


def interrupted_by(error: BaseException | None) -> str:
    """`interrupted by Ctrl-C`, `ended by SIGTERM`; empty for whatever else it is.

    Args:
        error: A KeyboardInterrupt; or a SystemExit with 128 and the signal's number, as the command line raises it.
    """
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by Ctrl-C"
    code = error.code if isinstance(error, SystemExit) else None
    numbers = {128 + number: number.name for number in (signal.SIGTERM, signal.SIGHUP)}
    return f"ended by {numbers[code]}" if isinstance(code, int) and code in numbers else ""
