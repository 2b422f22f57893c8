"""Checks that the sections share."""

from common.errors import ConfigError


def require(holds: bool, message: str) -> None:
    """Raise ConfigError with ``message`` unless ``holds``."""
    if not holds:
        raise ConfigError(message)
