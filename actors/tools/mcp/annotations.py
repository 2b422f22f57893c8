"""JSON Schemas of an MCP server as texts of Python types, for signatures. Pure."""

from collections.abc import Mapping
from typing import Any

LONGEST_VALUE = 100
"""Characters of one value in a signature."""

_LONGEST_ANNOTATION = 500
_MOST_CHOICES = 50
_MOST_BRANCHES = 8
_DEEPEST = 4
_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
    "null": "None",
}


def shown_value(value: Any) -> str:
    """Any JSON value as Python writes it, cut to a length."""
    value = value[:LONGEST_VALUE] if isinstance(value, str) else value
    return repr(value)[:LONGEST_VALUE]


def annotation_of(schema: Any, definitions: Mapping[str, Any]) -> str:
    """A JSON Schema as the text of a Python type; empty where it says nothing short."""
    text = _annotation(schema, definitions, 0)
    return text if len(text) <= _LONGEST_ANNOTATION else ""


def _annotation(schema: Any, definitions: Mapping[str, Any], depth: int) -> str:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return ""
    if "$ref" in schema:
        target = definitions.get(str(schema["$ref"]).rpartition("/")[2], {})
        return _annotation(target, definitions, depth + 1)
    if "enum" in schema or "const" in schema:
        choices = [schema["const"]] if "const" in schema else listed(schema["enum"])
        is_short = 0 < len(choices) <= _MOST_CHOICES
        return f"Literal[{', '.join(map(shown_value, choices))}]" if is_short else ""
    branches = listed(schema.get("anyOf")) or listed(schema.get("oneOf"))
    if not branches:
        branches = [{**schema, "type": kind} for kind in listed(schema.get("type"))]
    if len(branches) > _MOST_BRANCHES:
        return ""
    if branches:
        texts = [_annotation(branch, definitions, depth + 1) for branch in branches]
        return " | ".join(dict.fromkeys(texts)) if all(texts) else ""
    name = _TYPES.get(str(schema.get("type")), "")
    items = _annotation(schema.get("items"), definitions, depth + 1) if name == "list" else ""
    return f"list[{items}]" if items else name


def listed(value: Any) -> list[Any]:
    """``value`` where it is a list, as a schema should have it; servers may send anything."""
    return value if isinstance(value, list) else []


def mapped(value: Any) -> Mapping[str, Any]:
    """``value`` where it is an object, as a schema should have it; servers may send anything."""
    return value if isinstance(value, Mapping) else {}
