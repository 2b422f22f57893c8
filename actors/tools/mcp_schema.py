"""Functions of the notebook from the tools of an MCP server, and values from their results.

Pure: JSON Schema in, signatures out; content blocks in, Python values out.
"""

import base64
import keyword
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any

from mcp import types

from actors.kernels.interface import ToolParameter, ToolSpec

_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
    "null": "None",
}
_DEEPEST = 4
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
            TypeError: they do not fit the signature.
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
        optional = {p.name for p in self.spec.parameters if not p.required and p.default is None}
        return {
            self.keys[name]: value
            for name, value in bound.items()
            if value is not None or name not in optional
        }


def mcp_functions(owner: str, tools: Sequence[types.Tool]) -> list[McpFunction]:
    """A function ``owner.tool`` for each tool; names that Python cannot hold are changed.

    Args:
        owner: name of the server in the configuration.
        tools: what the server lists.
    """
    owner, taken, functions = identifier(owner), set[str](), list[McpFunction]()
    for tool in tools:
        name = identifier(tool.name, taken)
        taken.add(name)
        functions.append(_function(f"{owner}.{name}", tool))
    return functions


def identifier(text: str, taken: Collection[str] = ()) -> str:
    """A Python name as close to ``text`` as can be, and none of ``taken``."""
    text = unicodedata.normalize("NFKC", text)
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
            return base64.b64decode(block.data)
        case types.ResourceLink():
            return f"{block.name}: {block.uri}"
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            return resource.text
        case types.EmbeddedResource(resource=types.BlobResourceContents() as resource):
            return base64.b64decode(resource.blob)
    return str(block)


def _function(name: str, tool: types.Tool) -> McpFunction:
    schema = tool.input_schema
    definitions = schema.get("$defs") or schema.get("definitions") or {}
    required = schema.get("required") or ()
    properties = _mapped(schema.get("properties"))
    ordered = sorted(properties, key=lambda key: key not in required)
    keys: dict[str, str] = {}
    parameters = []
    for key in ordered:
        shown = identifier(key, keys)
        keys[shown] = key
        parameters.append(_parameter(shown, properties[key], key in required, definitions))
    doc = _doc(tool.description or tool.title or "", keys, properties)
    output = tool.output_schema or {}
    spec = ToolSpec(
        name=name, doc=doc, parameters=tuple(parameters), returns=_returns(output, definitions)
    )
    return McpFunction(spec=spec, tool=tool.name, keys=keys)


def _parameter(
    name: str, schema: Any, required: bool, definitions: Mapping[str, Any]
) -> ToolParameter:
    schema = schema if isinstance(schema, Mapping) else {}
    annotation = annotation_of(schema, definitions)
    default = schema.get("default")
    is_open = not required and default is None and annotation and "None" not in annotation
    return ToolParameter(
        name=name,
        annotation=f"{annotation} | None" if is_open else annotation,
        required=required,
        default=None if required else default,
    )


def annotation_of(schema: Any, definitions: Mapping[str, Any], depth: int = 0) -> str:
    """A JSON Schema as the text of a Python type; empty where it says nothing."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return ""
    if "$ref" in schema:
        target = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
        return annotation_of(target, definitions, depth + 1)
    if "enum" in schema or "const" in schema:
        choices = [schema["const"]] if "const" in schema else _listed(schema["enum"])
        return f"Literal[{', '.join(map(repr, choices))}]" if choices else ""
    branches = _listed(schema.get("anyOf")) or _listed(schema.get("oneOf"))
    if not branches:
        branches = [{**schema, "type": kind} for kind in _listed(schema.get("type"))]
    if branches:
        texts = [annotation_of(branch, definitions, depth + 1) for branch in branches]
        return " | ".join(dict.fromkeys(texts)) if all(texts) else ""
    name = _TYPES.get(str(schema.get("type")), "")
    items = annotation_of(schema.get("items"), definitions, depth + 1) if name == "list" else ""
    return f"list[{items}]" if items else name


def _listed(value: Any) -> list[Any]:
    """``value`` where it is a list, as a schema should have it; servers may send anything."""
    return value if isinstance(value, list) else []


def _mapped(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _returns(output: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if not output:
        return ""
    inner = {**definitions, **_mapped(output.get("$defs"))}
    properties = _mapped(output.get("properties"))
    if list(properties) == [_WRAPPED]:
        return annotation_of(properties[_WRAPPED], inner)
    return annotation_of(output, inner)


def _doc(description: str, keys: Mapping[str, str], properties: Mapping[str, Any]) -> str:
    lines = [
        f"    {name}: {' '.join(str(properties[key]['description']).split())}"
        for name, key in keys.items()
        if isinstance(properties[key], Mapping) and properties[key].get("description")
    ]
    return "\n".join([description.strip(), "", "Args:", *lines] if lines else [description.strip()])
