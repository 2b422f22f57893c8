"""Small things to do with file descriptors."""

import asyncio
import os
import select


async def readable(descriptor: int) -> None:
    """Wait until ``descriptor`` can be read; any number of tasks may wait for the same one."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    own = os.dup(descriptor)
    try:
        loop.add_reader(own, _resolve, done)
        await done
    finally:
        loop.remove_reader(own)
        os.close(own)


def is_readable(descriptor: int) -> bool:
    """Whether ``descriptor`` can be read now."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def moved(descriptor: int, number: int) -> int:
    """Move ``descriptor`` to ``number``, or leave it where it is if that is -1; where it is now."""
    if number < 0:
        return descriptor
    os.dup2(descriptor, number, inheritable=False)
    os.close(descriptor)
    return number


def _resolve(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
