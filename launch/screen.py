"""What the commands put on a terminal or a page, with nothing in it that could steer it."""

from html import escape

from rich.console import Console
from rich.text import Text

from common.visible import visible, visible_line


def say(console: Console, text: str) -> None:
    """Lines of plain text as they are: no markup, no wrapping, nothing that steers."""
    console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


def cell(text: str) -> Text:
    """What a table shows in one place; names of families and suites are the user's."""
    return Text(visible_line(text))


def html_text(text: str) -> str:
    """The same for a page: escaped, and no line reads differently from what it says."""
    return escape(visible(text))
