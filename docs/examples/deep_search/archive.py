"""An MCP server over its standard streams: the catalogue of a harbour's archive, made up."""

from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel

server = MCPServer("archive")


class Item(BaseModel):
    """One thing that the archive keeps."""

    mark: str
    author: str
    year: int
    title: str


CATALOGUE = (
    Item(mark="HB 17", author="Voss, Ingrid", year=1896, title="Letters to the harbour board"),
    Item(mark="HB 41", author="Voss, Ingrid", year=1898, title="A keeper's diary, second winter"),
    Item(mark="HB 52", author="Voss, Ingmar", year=1898, title="Tide tables"),
    Item(mark="HB 63", author="Dahlmann, Erik", year=1898, title="Accounts of the coal store"),
)


@server.tool()
def find(author: str, year: int | None = None) -> list[Item]:
    """Items whose author's name, as it was signed, holds AUTHOR; of one YEAR if that is given."""
    wanted = author.casefold()
    named = [item for item in CATALOGUE if wanted in item.author.casefold()]
    return [item for item in named if year in (None, item.year)]


if __name__ == "__main__":
    server.run("stdio")
