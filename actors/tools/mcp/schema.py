"""Functions of the notebook from the tools of an MCP server, and values from their results.

Pure: JSON Schema in, signatures out; content blocks in, Python values out.
"""

import base64
import keyword
import logging
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any

from mcp import types

from actors.kernels.tool_specs import ToolParameter, ToolSpec
from actors.tools.arguments import shown, valid_text
from actors.tools.mcp.annotations import (
    LONGEST_VALUE,
    annotation_of,
    listed,
    mapped,
    shown_value,
)

_logger = logging.getLogger(__name__)

MAX_PARAMETERS = 100
"""A tool with more is left out."""

_DEEPEST_ARGUMENT = 50
_LONGEST_NAME = 64
_LONGEST_DESCRIPTION = 2000
_LONGEST_PARAMETER_DESCRIPTION = 500
_WRAPPED = "result"


@dataclass(frozen=True, kw_only=True, slots=True)
class McpFunction:
    """A tool of a server as a function of the notebook.

    Attributes:
        spec: what the notebook shows.
        tool: the server's own name of it.
        keys: the server's name of each parameter.
    """

    spec: ToolSpec
    tool: str
    keys: Mapping[str, str]

    def arguments(self, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by the server's names; what was left out stays out.

        Raises:
            TypeError: they do not fit the signature, or JSON cannot hold them.
            ValueError: they are nested too deeply for a server to read.
        """
        signature = Signature(
            [
                Parameter(
                    parameter.name,
                    Parameter.POSITIONAL_OR_KEYWORD,
                    default=Parameter.empty if parameter.required else parameter.default,
                )
                for parameter in self.spec.parameters
            ]
        )
        bound = signature.bind(*arguments, **keywords).arguments
        for name, value in bound.items():
            _check_sendable(name, value)
        optional = {p.name for p in self.spec.parameters if not p.required and p.default is None}
        return {
            self.keys[name]: value
            for name, value in bound.items()
            if value is not None or name not in optional
        }


def _check_sendable(name: str, value: Any, depth: int = 0) -> None:
    if isinstance(value, bytes):
        raise TypeError(f"{name} holds bytes, which JSON cannot; send text, such as base64")
    if depth > _DEEPEST_ARGUMENT:
        raise ValueError(f"{name} is nested more than {_DEEPEST_ARGUMENT} levels deep")
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list | tuple):
        for item in inner:
            _check_sendable(name, item, depth + 1)


def mcp_functions(owner: str, tools: Sequence[types.Tool]) -> list[McpFunction]:
    """A function ``owner.tool`` for each tool; names that Python cannot hold are changed.

    A tool that cannot be a function is left out, with a warning that names it. All texts of a
    server are cut to a length before anything else is done to them: they end in the prompt.

    Args:
        owner: name of the server in the configuration.
        tools: what the server lists.
    """
    owner, taken, functions = identifier(owner), set[str](), list[McpFunction]()
    for tool in tools:
        name = identifier(tool.name, taken)
        try:
            functions.append(_function(f"{owner}.{name}", tool))
        except (ValueError, TypeError, RecursionError) as error:
            _logger.warning(
                "MCP server name=%s: tool %s is left out: %s", owner, shown(tool.name), error
            )
        else:
            taken.add(name)
    return functions


def identifier(text: str, taken: Collection[str] = ()) -> str:
    """A Python name as close to ``text`` as can be, and none of ``taken``.

    Names with two underscores at both ends belong to Python, and lose them.
    """
    text = unicodedata.normalize("NFKC", text[:_LONGEST_NAME])[:_LONGEST_NAME]
    name = "".join(letter if f"a{letter}".isidentifier() else "_" for letter in text)
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_") or "_"
    if not name.isidentifier():
        name = f"_{name}"
    if keyword.iskeyword(name):
        name = f"{name}_"
    number, free = 2, name
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def mcp_value(result: types.CallToolResult) -> Any:
    """What a call gives: structured data, else text, else bytes, else a list of these.

    Raises:
        ValueError: the server reported an error; its text.
    """
    parts = [_part(block) for block in result.content]
    if result.is_error:
        raise ValueError("\n".join(map(str, parts)) or "the tool reported an error without a text")
    has_bytes = any(isinstance(part, bytes) for part in parts)
    if result.structured_content is not None and not has_bytes:
        return _unwrapped(result.structured_content)
    if not has_bytes:
        return "\n".join(map(str, parts))
    return parts[0] if len(parts) == 1 else parts


def _unwrapped(value: Any) -> Any:
    """SDKs put a result that is no object into an object of one key."""
    is_wrapped = isinstance(value, dict) and list(value) == [_WRAPPED]
    return value[_WRAPPED] if is_wrapped else value


def _part(block: types.ContentBlock) -> str | bytes:
    match block:
        case types.TextContent():
            return block.text
        case types.ImageContent() | types.AudioContent():
            return _bytes(block.data)
        case types.ResourceLink():
            return f"{block.name}: {block.uri}"
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            return resource.text
        case types.EmbeddedResource(resource=types.BlobResourceContents() as resource):
            return _bytes(resource.blob)
    return str(block)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"the tool answered with bytes that are no base64: {error}") from None


def _function(name: str, tool: types.Tool) -> McpFunction:
    schema = tool.input_schema
    definitions = mapped(schema.get("$defs")) or mapped(schema.get("definitions"))
    required = {key for key in listed(schema.get("required")) if isinstance(key, str)}
    properties = mapped(schema.get("properties"))
    if len(properties) > MAX_PARAMETERS:
        raise ValueError(f"it has {len(properties)} parameters, more than {MAX_PARAMETERS}")
    keys: dict[str, str] = {}
    parameters = []
    for key in sorted(properties, key=lambda key: key not in required):
        parameter = identifier(key, keys)
        keys[parameter] = key
        parameters.append(_parameter(parameter, properties[key], key in required, definitions))
    doc = _doc(tool.description or tool.title or "", keys, properties)
    output = tool.output_schema or {}
    spec = ToolSpec(
        name=name, doc=doc, parameters=tuple(parameters), returns=_returns(output, definitions)
    )
    return McpFunction(spec=spec, tool=tool.name, keys=keys)


def _parameter(
    name: str, schema: Any, required: bool, definitions: Mapping[str, Any]
) -> ToolParameter:
    annotation = annotation_of(schema, definitions)
    default = _short_default(mapped(schema).get("default"))
    is_open = not required and default is None and annotation and "None" not in annotation
    return ToolParameter(
        name=name,
        annotation=f"{annotation} | None" if is_open else annotation,
        required=required,
        default=None if required else default,
    )


def _short_default(value: Any) -> Any:
    """A default that a signature can show and a kernel can take; else the server's own counts."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return None
    is_plain = isinstance(value, int | float) or value is None
    return value if is_plain or len(shown_value(value)) < LONGEST_VALUE else None


def _returns(output: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if not output:
        return ""
    inner = {**definitions, **mapped(output.get("$defs"))}
    properties = mapped(output.get("properties"))
    if list(properties) == [_WRAPPED]:
        return annotation_of(properties[_WRAPPED], inner)
    return annotation_of(output, inner)


def _doc(description: str, keys: Mapping[str, str], properties: Mapping[str, Any]) -> str:
    lines = [
        f"    {name}: {text}"
        for name, key in keys.items()
        if (text := _description(properties[key]))
    ]
    text = _cut(description, _LONGEST_DESCRIPTION).strip()
    return "\n".join([text, "", "Args:", *lines] if lines else [text])


def _description(schema: Any) -> str:
    text = mapped(schema).get("description")
    if not isinstance(text, str):
        return ""
    return " ".join(_cut(text, _LONGEST_PARAMETER_DESCRIPTION).split())


def _cut(text: str, limit: int) -> str:
    return valid_text(f"{text[:limit]}..." if len(text) > limit else text)
