"""An MCP server that answers with whatever bytes it likes: ``python mcp_raw_server.py LISTING``."""

import json
import sys
from collections.abc import Iterator
from itertools import count
from typing import Any

LISTING = sys.argv[1]
EMPTY = {"type": "object", "properties": {}}
TOOL = {"name": "x", "inputSchema": EMPTY}
MALFORMED: list[Any] = [
    {"name": 3, "inputSchema": EMPTY},
    None,
    "tool",
    {"name": "no schema"},
    {"name": "text schema", "inputSchema": "object"},
    {"name": "list schema", "inputSchema": {"type": "object", "properties": []}},
    {"name": "wide", "inputSchema": {**EMPTY, "properties": {f"p{n}": {} for n in range(101)}}},
]
ODD = [
    {
        "name": "odd",
        "description": "d" * 100_000,
        "inputSchema": {
            "type": "object",
            "$defs": "none",
            "required": ["a"],
            "properties": {
                "a": {"$ref": "#/$defs/A"},
                "b": {"enum": ["v" * 10_000], "description": ["no text"]},
                "c": {"enum": list(range(10_000))},
                "d": {"default": "long" * 10_000},
                "e": {"default": 1 << 70, "type": "integer"},
                "__class__": {"type": "string"},
            },
        },
    },
    {"name": "__slots__", "inputSchema": EMPTY},
    {"name": "__init__", "inputSchema": EMPTY},
    {"name": "\ufdfa" * 300, "inputSchema": EMPTY},
]
TEXT = '{"content": [{"type": "text", "text": "%s"}]}'
RESULTS = {
    "surrogate": TEXT % "a\\ud800b",
    "structured surrogate": '{"content": [], "structuredContent": {"k\\ud800": ["\\udfff"]}}',
    "broken utf8": TEXT % "a\udcffb",
    "base64": '{"content": [{"type": "image", "data": "!!!", "mimeType": "image/png"}]}',
    "kind": '{"content": [{"type": "hologram"}]}',
    "null": "null",
    "list": "[]",
    "content": '{"content": null}',
    "number": TEXT.replace('"%s"', "7"),
    "garbage first": TEXT % "after garbage",
}


def main() -> None:
    """Answer until the input ends."""
    pages = listing()
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            answer(request, pages)


def answer(request: dict[str, Any], pages: Iterator[dict[str, Any]]) -> None:
    method, result = request["method"], ""
    if method == "initialize":
        result = json.dumps(
            {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "raw", "version": "1"},
            }
        )
    elif method == "tools/list":
        result = json.dumps(next(pages))
    elif method == "tools/call":
        name = request["params"]["name"]
        if name == "garbage first":
            write("this is no JSON\n")
        result = RESULTS.get(name, TEXT % "fine")
    fields = f'"result": {result}' if result else '"error": {"code": -32601, "message": "none"}'
    write(f'{{"jsonrpc": "2.0", "id": {json.dumps(request["id"])}, {fields}}}\n')


def listing() -> Iterator[dict[str, Any]]:
    """The pages of the list, in order and without end."""
    if LISTING == "malformed":
        calls = [{"name": name, "inputSchema": EMPTY} for name in RESULTS]
        yield {"tools": [*MALFORMED, TOOL, *ODD, *calls]}
    cursors = {"empty": lambda n: "", "same": lambda n: "again", "endless": lambda n: f"page {n}"}
    for number in count():
        yield {"tools": [TOOL], "nextCursor": cursors[LISTING](number)}


def write(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
