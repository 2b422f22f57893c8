"""The ``inspect_file`` tool: the text of a file attached to the task."""

from actors.tools.arguments import short_text
from actors.tools.attached_files import MAX_NAME_CHARACTERS, attached_bytes
from actors.tools.documents.kinds import DocumentKind, document_kind, image_type
from actors.tools.documents.reader import DocumentReader
from actors.tools.excerpts import excerpt
from actors.tools.tool import FunctionTool
from common.config import Files
from common.wire.records import Task


class InspectFile(FunctionTool):
    """``inspect_file`` of attached files."""

    def __init__(self, files: Files, reader: DocumentReader) -> None:
        """Read documents with ``reader``."""
        super().__init__(self.inspect_file)
        self._limit = files.max_characters
        self._reader = reader

    async def inspect_file(
        self, name: str, start: int = 0, max_characters: int | None = None, *, task: Task
    ) -> str:
        """Read a file attached to the task as text, from character ``start``.

        Takes text, CSV, JSON, HTML, PDF, Word and Excel files; lists what a zip archive holds. A
        long text is shown in parts; the note at the end says where to go on.
        """
        name = short_text(name, "a file name", MAX_NAME_CHARACTERS)
        data = await attached_bytes(task, name)
        kind = document_kind(data, name=name)
        if kind is DocumentKind.IMAGE:
            return f"{name} is an image ({image_type(data)}, {len(data)} bytes); use visual_qa"
        try:
            text = await self._reader.read(data, kind)
        except ValueError as error:
            raise ValueError(f"{name} cannot be read: {error}") from None
        return excerpt(text, start, self._limit, most=max_characters)

    async def start(self) -> None:
        """Open the reader."""
        await self._reader.start()

    async def close(self) -> None:
        """Give the reader back."""
        await self._reader.close()
