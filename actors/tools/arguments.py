"""Text that comes from cells and servers, made short and valid before anything else is done to it.

Normalising, encoding and parsing take longer than linear time for some texts, and hold the
interpreter while they do: one call could stop every episode of the process. So length comes first.
"""

_LONGEST_SHOWN = 100


def cut_text(value: object, name: str, limit: int) -> str:
    """The first ``limit`` characters of an argument.

    Raises:
        TypeError: it is neither text nor a number.
    """
    return _text(value, name)[:limit]


def short_text(value: object, name: str, limit: int) -> str:
    """An argument of at most ``limit`` characters, in which nothing can be left out.

    Raises:
        TypeError: it is neither text nor a number.
        ValueError: it is longer.
    """
    text = _text(value, name)
    if len(text) > limit:
        raise ValueError(f"{name} has {len(text)} characters, more than {limit}: {shown(text)}")
    return text


def shown(value: object) -> str:
    """``value`` for a message, as Python writes it, cut to a length that can be read."""
    text = repr(value[:_LONGEST_SHOWN] if isinstance(value, str | bytes) else value)
    is_cut = isinstance(value, str | bytes) and len(value) > _LONGEST_SHOWN
    return f"{text[:_LONGEST_SHOWN]}..." if is_cut or len(text) > 2 * _LONGEST_SHOWN else text


def valid_text(text: str) -> str:
    """``text`` that UTF-8 can hold: halves of a character are joined, lone ones become ``?``."""
    try:
        text.encode()
    except UnicodeEncodeError:
        joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return joined.encode("utf-8", "replace").decode()
    return text


def _text(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise TypeError(f"{name} must be text, got {type(value).__name__}")
