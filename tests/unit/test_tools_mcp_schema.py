"""JSON Schema becomes signatures that Python can hold, and results become values."""

import base64
import json
import keyword
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import types

from actors.tools.mcp.annotations import annotation_of
from actors.tools.mcp.schema import identifier, mcp_functions, mcp_value

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
        ("__slots__", "slots"),
        ("__init__", "init"),
        ("__class__", "class_"),
        ("____", "_"),
        ("__", "_"),
        ("__private", "__private"),
        ("x" * 300, "x" * 64),
    ],
)
def test_names_become_identifiers(text: str, name: str) -> None:
    assert identifier(text) == name


@given(st.text(max_size=400), st.sets(st.text(max_size=3)))
def test_every_name_is_short_free_and_not_python_s_own(text: str, taken: set[str]) -> None:
    name = identifier(text, taken)
    assert name.isidentifier()
    assert not keyword.iskeyword(name)
    assert name not in taken
    assert len(name) <= 70
    assert not (name.startswith("__") and name.endswith("__"))


def test_a_schema_that_branches_without_end_is_read_in_bounded_time() -> None:
    many = [{"$ref": f"#/$defs/D{n}"} for n in range(100)]
    definitions = {f"D{n}": {"anyOf": many} for n in range(100)}
    begin = time.process_time()
    for count in (8, 100):
        annotation_of({"anyOf": many[:count], "items": {"anyOf": many}}, definitions)
    assert time.process_time() - begin < 0.5


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


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (b"\xff", TypeError, "a holds bytes, which JSON cannot"),
        ([{"b": [b"x"]}], TypeError, "a holds bytes"),
        (json.loads("[" * 500 + "]" * 500), ValueError, "a is nested more than 50 levels deep"),
    ],
)
def test_arguments_that_a_server_could_not_read_are_refused_at_once(
    value: Any, error: type[Exception], message: str
) -> None:
    (function,) = mcp_functions("s", [types.Tool(name="t", input_schema={"properties": {"a": {}}})])
    with pytest.raises(error, match=message):
        function.arguments((value,), {})
    assert function.arguments(([{"b": [1, "x", None]}],), {}) == {"a": [{"b": [1, "x", None]}]}


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


@pytest.mark.parametrize("data", ["!!", "YQ", "YQ==YQ==", "\u00e9"])
def test_bytes_that_are_no_base64_are_an_error(data: str) -> None:
    image = types.ImageContent(data=data, mime_type="image/png")
    with pytest.raises(ValueError, match="bytes that are no base64"):
        mcp_value(types.CallToolResult(content=[image]))


def test_an_error_of_a_tool_is_raised_with_its_text() -> None:
    with pytest.raises(ValueError, match=r"^no such town$"):
        mcp_value(
            types.CallToolResult(content=[types.TextContent(text="no such town")], is_error=True)
        )
    with pytest.raises(ValueError, match="without a text"):
        mcp_value(types.CallToolResult(content=[], is_error=True))
