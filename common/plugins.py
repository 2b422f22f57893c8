"""Finds an object of a user's own package by the name that the configuration gives."""

import difflib
import importlib
from typing import Any

from common.errors import ConfigError


def is_plugin(name: str) -> bool:
    """Whether ``name`` looks like ``package.module:name`` rather than a built-in."""
    return ":" in name


def load_plugin(name: str, *, key: str) -> Any:
    """The object called ``package.module:name``.

    Args:
        name: module and attribute, separated by a colon.
        key: the configuration key that holds the name, for the error message.

    Raises:
        ConfigError: there is no such module or attribute, or importing it failed.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not all(map(str.isidentifier, module_name.split("."))):
        raise ConfigError(f"{key}: {name!r} must be written package.module:name")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise ConfigError(
            f"{key}: cannot import {module_name!r} for {name!r}: {type(error).__name__}: {error}; "
            "is the package installed in this environment?"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        close = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{key}: module {module_name!r} has no {attribute!r}{hint}") from None
