"""Reads msgpack of no more values than somebody will look at, whoever wrote it.

A megabyte holds a million empty lists: to make them and to look at each would hold the host's event
loop for seconds. So they are counted while they are made. The kernel's end asks the same function
first, so that a cell is told what would end its kernel.
"""

from typing import Any

import msgpack

MOST_VALUES = 1 << 14
"""In one message, whatever they are nested in; a list or dict counts once more for itself."""
MOST_ARGUMENTS = 256
"""Of one call, by place and by name."""
MOST_NAME = 200
"""Characters of the name of a tool or of an exception's class."""


def unpack(body: bytes) -> tuple[Any, int]:
    """The value in ``body``, and how many that are.

    Raises:
        ValueError: more than ``MOST_VALUES``, an extension type, or, as anything else that msgpack
            raises, malformed.
    """
    found = 0

    def count(values: Any) -> Any:
        nonlocal found
        found += len(values) + 1
        if found > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values")
        return values

    value = msgpack.unpackb(
        body,
        ext_hook=_refuse_extension,
        list_hook=count,
        object_hook=count,
        max_array_len=MOST_VALUES,
        max_map_len=MOST_VALUES,
    )
    return value, found


def _refuse_extension(code: int, _data: bytes) -> None:
    raise ValueError(f"msgpack extension {code}, which cannot be sent")
