"""JSON Schema becomes signatures that Python can hold, and results become values."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import types

from actors.tools.mcp_schema import annotation_of, identifier, mcp_functions, mcp_value

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string"}, "str"),
        ({"type": "integer"}, "int"),
        ({"type": ["number", "null"]}, "float | None"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "str | int"),
        ({"type": "array", "items": {"type": "boolean"}}, "list[bool]"),
        ({"type": "array"}, "list"),
        ({"enum": ["a", 1]}, "Literal['a', 1]"),
        ({"const": "x"}, "Literal['x']"),
        ({"$ref": "#/$defs/Kind"}, "dict"),
        ({"$ref": "#/$defs/Loop"}, ""),
        ({"anyOf": [{"type": "string"}, {}]}, ""),
        ({}, ""),
        (True, ""),
    ],
)
def test_a_schema_is_shown_as_a_python_type(schema: Any, text: str) -> None:
    definitions = {"Kind": {"type": "object"}, "Loop": {"$ref": "#/$defs/Loop"}}
    assert annotation_of(schema, definitions) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("list-files", "list_files"),
        ("3d", "_3d"),
        ("class", "class_"),
        ("", "_"),
        ("größe", "größe"),
        ("a.b/c", "a_b_c"),
        ("x²", "x2"),
    ],
)
def test_names_become_identifiers(text: str, name: str) -> None:
    assert identifier(text) == name


def test_names_that_would_collide_are_numbered() -> None:
    tools = [types.Tool(name=name, input_schema={}) for name in ("a-b", "a_b", "a.b")]
    names = [function.spec.name for function in mcp_functions("s", tools)]
    assert names == ["s.a_b", "s.a_b_2", "s.a_b_3"]
    assert [function.tool for function in mcp_functions("s", tools)] == ["a-b", "a_b", "a.b"]


@given(
    names=st.lists(st.text(max_size=8), max_size=4),
    schema=st.dictionaries(
        st.sampled_from(["type", "enum", "anyOf", "default", "items", "$ref", "description"]), JSON
    ),
    required=st.booleans(),
)
def test_any_tool_gives_a_function_that_can_be_called(
    names: list[str], schema: dict[str, Any], required: bool
) -> None:
    properties = dict.fromkeys(names, schema)
    tool = types.Tool(
        name="".join(names),
        input_schema={
            "type": "object",
            "properties": properties,
            "required": names if required else [],
        },
    )

    (function,) = mcp_functions("ser ver", [tool])

    assert "(" in function.spec.signature
    values = dict.fromkeys((p.name for p in function.spec.parameters), 1)
    assert function.arguments((), values) == dict.fromkeys(properties, 1)
    assert set(function.keys.values()) == set(properties)


def test_optional_arguments_that_were_left_out_are_not_sent() -> None:
    schema = {
        "properties": {"from": {"type": "string"}, "b": {"default": 2}, "a": {"type": "integer"}},
        "required": ["a"],
    }
    (function,) = mcp_functions("s", [types.Tool(name="t", input_schema=schema)])

    assert function.spec.signature == "s.t(a: int, from_: str | None = None, b=2)"
    assert function.arguments((1,), {}) == {"a": 1}
    assert function.arguments((1,), {"from_": None}) == {"a": 1}
    assert function.arguments((1, "x", 3), {}) == {"a": 1, "from": "x", "b": 3}
    with pytest.raises(TypeError, match="too many positional arguments"):
        function.arguments((1, "x", 3, 4), {})


def blob(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("content", "structured", "value"),
    [
        ([], None, ""),
        ([types.TextContent(text="a"), types.TextContent(text="b")], None, "a\nb"),
        ([types.TextContent(text="{}")], {"result": [1]}, [1]),
        ([types.TextContent(text="{}")], {"result": 1, "more": 2}, {"result": 1, "more": 2}),
        ([types.AudioContent(data=blob("la"), mime_type="audio/wav")], None, b"la"),
        (
            [types.ResourceLink(name="Readme", uri="file:///readme")],
            None,
            "Readme: file:///readme",
        ),
        (
            [
                types.EmbeddedResource(
                    resource=types.TextResourceContents(uri="x://a", text="inside")
                ),
                types.EmbeddedResource(
                    resource=types.BlobResourceContents(uri="x://b", blob=blob("raw"))
                ),
            ],
            None,
            ["inside", b"raw"],
        ),
    ],
    ids=["empty", "texts", "wrapped", "object", "audio", "link", "resources"],
)
def test_a_result_becomes_a_value(content: Any, structured: Any, value: Any) -> None:
    result = types.CallToolResult(content=content, structured_content=structured)
    assert mcp_value(result) == value


def test_an_error_of_a_tool_is_raised_with_its_text() -> None:
    with pytest.raises(ValueError, match=r"^no such town$"):
        mcp_value(
            types.CallToolResult(content=[types.TextContent(text="no such town")], is_error=True)
        )
    with pytest.raises(ValueError, match="without a text"):
        mcp_value(types.CallToolResult(content=[], is_error=True))
