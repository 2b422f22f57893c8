"""Tool functions of the notebook: plain Python functions that run on the host.

The host describes a tool as ``[name, doc, parameters, returns, is_property]`` with parameters
``[name, annotation, required, default, keyword_only]``, see ``ToolSpec`` in
``actors/kernels/interface.py``. ``notepad.add_todo`` becomes a method of an object ``notepad``.
"""

import inspect
import socket
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from actors.kernels.sandboxed.channel import Channel, MaskedInterrupts, ToolError, plain

TOOL_FD = 3
"""Descriptor of the tool socket in a kernel that has a loop of its own, such as ipykernel."""

_channels: dict[int, Channel] = {}


class _Annotation:
    """Text that a signature shows as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def connect(tools: Sequence[Sequence[Any]], namespace: dict[str, Any]) -> None:
    """Bind ``tools`` in a kernel that has a loop of its own."""
    if TOOL_FD not in _channels:
        _channels[TOOL_FD] = Channel(socket.socket(fileno=TOOL_FD), MaskedInterrupts())
    bind_tools(_channels[TOOL_FD], tools, namespace)


def bind_tools(channel: Channel, tools: Sequence[Sequence[Any]], namespace: dict[str, Any]) -> None:
    """Put a function, or an object with methods, for each of ``tools`` into ``namespace``."""
    namespace[ToolError.__name__] = ToolError
    members: dict[str, dict[str, Any]] = {}
    for name, doc, parameters, returns, is_property in tools:
        function = _function(channel, name, doc, _signature(parameters, returns))
        owner, _, method = name.rpartition(".")
        if not owner:
            namespace[name] = function
        elif is_property:
            members.setdefault(owner, {})[method] = _property(function, doc)
        else:
            members.setdefault(owner, {})[method] = staticmethod(function)
    for owner, attributes in members.items():
        namespace[owner] = type(owner, (), {"__slots__": (), **attributes})()


def _function(
    channel: Channel, name: str, doc: str, signature: inspect.Signature
) -> Callable[..., Any]:
    takes_anything = any(
        repr(parameter.annotation) == "Any" for parameter in signature.parameters.values()
    )

    def tool(*arguments: Any, **keywords: Any) -> Any:
        try:
            signature.bind(*arguments, **keywords)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        if takes_anything:
            arguments = tuple(map(_sendable, arguments))
            keywords = {key: _sendable(value) for key, value in keywords.items()}
        return channel.call(name, arguments, keywords)

    tool.__name__ = tool.__qualname__ = name.rpartition(".")[2]
    tool.__module__ = "tools"
    tool.__doc__ = doc
    tool.__signature__ = signature  # type: ignore[attr-defined]
    return tool


def _sendable(value: Any) -> Any:
    """``value``, or its text where it cannot be sent as it is."""
    try:
        msgpack.packb(value, default=plain)
    except (TypeError, ValueError, OverflowError):
        return str(value)
    return value


def _property(function: Callable[..., Any], doc: str) -> property:
    return property(lambda _self: function(), doc=doc)


def _signature(parameters: Sequence[Sequence[Any]], returns: str) -> inspect.Signature:
    made = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY
            if keyword_only
            else inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if required else default,
            annotation=_Annotation(annotation) if annotation else inspect.Parameter.empty,
        )
        for name, annotation, required, default, keyword_only in parameters
    ]
    shown = _Annotation(returns) if returns else inspect.Signature.empty
    return inspect.Signature(made, return_annotation=shown)
