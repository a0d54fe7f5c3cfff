"""Secrets that systemd passes to a unit (systemd.exec(5), LoadCredential=)."""

import os
from pathlib import Path

from portfolio_ops.errors import ConfigurationError

PREFIX = "credential:"
"""Before a credential's name, in a configuration."""


def secret(name: str) -> str:
    """What a credential says, without the white space around it.

    Raises:
        ConfigurationError: There is none of that name.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        raise ConfigurationError([f"there are no credentials here, {name} is one"])
    try:
        return (Path(folder) / name).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError([f"the credential {name} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError:
        raise ConfigurationError([f"the credential {name} is not text in UTF-8"]) from None
