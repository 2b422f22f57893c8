"""Whatever is begun at a desk comes to an end of its own, also where it had not set out yet."""

import asyncio

from actors.inference.host.desk import Desk, is_cleared


async def work(said: list[str], begun: asyncio.Event | None = None) -> None:
    """Wait for nothing; say how that ended."""
    try:
        if begun is not None:
            begun.set()
        await asyncio.Event().wait()
    except asyncio.CancelledError as error:
        said.append("cleared" if is_cleared(error) else "given up")


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_who_is_at_work_when_all_is_cleared_hears_of_it() -> None:
    async def play() -> list[str]:
        desk, said, begun = Desk(), list[str](), asyncio.Event()
        desk.begin(b"a", 1, work(said, begun))
        await begun.wait()
        desk.clear()
        await settle()
        return said

    assert asyncio.run(play()) == ["cleared"]


def test_who_has_not_set_out_when_all_is_cleared_hears_of_it_too() -> None:
    async def play() -> list[str]:
        desk, said = Desk(), list[str]()
        desk.begin(b"a", 1, work(said))
        desk.clear()
        await settle()
        return said

    assert asyncio.run(play()) == ["cleared"]


def test_who_is_given_up_before_it_set_out_leaves_its_number_free() -> None:
    async def play() -> bool:
        desk, said = Desk(), list[str]()
        desk.begin(b"a", 1, work(said))
        desk.give_up(b"a", 1)
        await settle()
        return desk.is_full(b"a", 1)

    assert not asyncio.run(play())
