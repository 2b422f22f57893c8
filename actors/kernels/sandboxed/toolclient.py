"""Tool functions for a Python kernel that has a loop of its own, such as ipykernel."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

from actors.kernels.sandboxed.channel import Channel, MaskedInterrupts, ToolError

TOOL_FD = 3
"""Descriptor of the tool socket in such a kernel."""

_channels: dict[int, Channel] = {}


def connect(names: Sequence[str], namespace: dict[str, Any]) -> None:
    """Put a function for each of ``names`` into ``namespace``."""
    if TOOL_FD not in _channels:
        _channels[TOOL_FD] = Channel(socket.socket(fileno=TOOL_FD), MaskedInterrupts())
    namespace[ToolError.__name__] = ToolError
    for name in names:
        namespace[name] = make_tool(_channels[TOOL_FD], name)


def make_tool(channel: Channel, name: str) -> Callable[..., Any]:
    """A plain function that runs the tool ``name`` on the host and waits for its result."""

    def tool(*arguments: Any, **keywords: Any) -> Any:
        return channel.call(name, arguments, keywords)

    tool.__name__ = tool.__qualname__ = name
    tool.__doc__ = f"Run {name!r} on the host."
    return tool
