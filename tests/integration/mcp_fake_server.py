"""A small MCP server: ``python mcp_fake_server.py [PORT]`` speaks HTTP on the port, else stdio."""

import asyncio
import base64
import os
import sys
from typing import Annotated, Literal

from mcp import types
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

server = MCPServer("fake")


class Place(BaseModel):
    name: str
    people: int


@server.tool()
def add(a: Annotated[int, Field(description="first number")], b: int = 2) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def place(name: str, people: int | None = None) -> Place:
    """Describe a place."""
    return Place(name=name, people=people or 7)


@server.tool(name="list-files")
def list_files(
    kind: Literal["all", "new"], filters: list[str], deep: bool = False, limit: float = 0.5
) -> list[str]:
    """List files."""
    return [kind, *filters, str(deep), str(limit)]


@server.tool(name="import")
def keyword_named(text: str) -> str:
    """Echo a text."""
    return text


@server.tool(structured_output=False)
def picture(caption: str = "") -> list[types.ContentBlock]:
    """Draw a picture."""
    data = base64.b64encode(b"\x89PNG picture").decode()
    image = types.ImageContent(data=data, mime_type="image/png")
    return [image, types.TextContent(text=caption)] if caption else [image]


@server.tool()
def variables() -> list[str]:
    """Names of the variables that this process sees."""
    return sorted(os.environ)


@server.tool()
def variable(name: str) -> str:
    """Value of a variable."""
    return os.environ.get(name, "")


@server.tool()
def fail(text: str) -> str:
    """Always fail."""
    raise ToolError(text)


@server.tool()
async def wait() -> str:
    """Never answer."""
    await asyncio.Event().wait()
    return "never"


@server.tool()
def pid() -> int:
    """Process id of this server."""
    return os.getpid()


@server.tool()
def die(marker: str = "") -> str:
    """End this process, always or until a file exists."""
    if marker and os.path.exists(marker):
        return "alive"
    if marker:
        open(marker, "x").close()
    print("about to die", file=sys.stderr, flush=True)
    os._exit(3)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
