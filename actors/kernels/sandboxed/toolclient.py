"""Tool functions of the notebook: plain Python functions that run on the host.

The host describes a tool as ``[name, doc, parameters, returns, is_property]`` with parameters
``[name, annotation, required, default, keyword_only]``, see ``ToolSpec`` in
``actors/kernels/tool_specs.py``. ``notepad.add_todo`` becomes a method of an object ``notepad``.
"""

import inspect
import socket
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from actors.kernels.sandboxed.channel import Channel, MaskedInterrupts, ToolError, pack

TOOL_FD = 3
"""Descriptor of the tool socket in a kernel that has a loop of its own, such as ipykernel."""
_MODULE = "tools"
"""Where tools say that they are from."""


class _Annotation:
    """Text that a signature shows as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class NotebookTools:
    """The tools of one notebook, which outlive whatever a cell does to their names."""

    def __init__(self, channel: Channel, namespace: dict[str, Any]) -> None:
        """Bind none yet."""
        self._channel, self._namespace = channel, namespace
        self._bound: dict[str, Any] = {}

    def bind(self, tools: Sequence[Sequence[Any]]) -> None:
        """Put a function, or an object with methods, for each of ``tools`` into the namespace."""
        self._bound = {ToolError.__name__: ToolError}
        members: dict[str, dict[str, Any]] = {}
        for name, doc, parameters, returns, is_property in tools:
            function = _function(self._channel, name, doc, _signature(parameters, returns))
            owner, _, method = name.rpartition(".")
            if not owner:
                self._bound[name] = function
            elif is_property:
                members.setdefault(owner, {})[method] = _property(function, doc)
            else:
                members.setdefault(owner, {})[method] = staticmethod(function)
        for owner, attributes in members.items():
            own = {"__slots__": (), "__module__": _MODULE, **attributes}
            self._bound[owner] = type(owner, (), own)()
        self._namespace.update(self._bound)

    def begin_cell(self) -> None:
        """A cell begins."""
        self._channel.renew()

    def end_cell(self) -> str:
        """Put back what the cell replaced or deleted; what to tell about values lost by that.

        A module of the name of an object is not lost: what the object lacks is looked up there.
        """
        lost = []
        for name, value in self._bound.items():
            found = self._namespace.get(name, value)
            if isinstance(found, ModuleType) and type(value).__module__ == _MODULE:
                type(value).__getattr__ = _look_into(found)
            elif found is not value:
                lost.append(name)
            self._namespace[name] = value
        return "".join(f"[{name} is a tool again: use another name]\n" for name in lost)


_connected: dict[int, NotebookTools] = {}


def connect(tools: Sequence[Sequence[Any]], namespace: dict[str, Any]) -> None:
    """Bind ``tools`` in a kernel that has a loop of its own."""
    if TOOL_FD not in _connected:
        channel = Channel(socket.socket(fileno=TOOL_FD), MaskedInterrupts())
        _connected[TOOL_FD] = NotebookTools(channel, namespace)
    _connected[TOOL_FD].bind(tools)


def connected() -> NotebookTools | None:
    """The tools of a kernel that has a loop of its own, once there are some."""
    return _connected.get(TOOL_FD)


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
    tool.__module__ = _MODULE
    tool.__doc__ = doc
    tool.__signature__ = signature  # type: ignore[attr-defined]
    return tool


def _look_into(module: ModuleType) -> Callable[[Any, str], Any]:
    return lambda _self, name: getattr(module, name)


def _sendable(value: Any) -> Any:
    """``value``, or its text where it cannot be sent as it is."""
    try:
        pack(value)
    except (TypeError, ValueError, OverflowError):
        return str(value).encode("utf-8", "replace").decode()
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
