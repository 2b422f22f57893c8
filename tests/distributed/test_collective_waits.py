"""A rank that comes to a place before the others says that it waits for them."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.waits.catalogue import WaitKind
from learner.engine.agreement import broadcast_number, largest_numbers
from learner.engine.mesh import Rank
from tests.wait_sentences import said
from tests.waiting import wait_for

pytestmark = [pytest.mark.distributed, pytest.mark.nightly]


def meet(rank: Rank, folder: str) -> str:
    """Rank 0 is early: the other comes once it has said what it waits for."""
    told = Path(folder) / "told"
    if not rank.is_first:
        wait_for(told.exists, timeout_s=60)
        return f"{largest_numbers(7)} {broadcast_number(0)}"
    heard: list[str] = []

    def listen() -> None:
        heard.append(said(WaitKind.AGREEMENT, "learner"))
        told.touch()

    listener = threading.Thread(target=listen)
    listener.start()
    largest_numbers(3)
    broadcast_number(5)
    listener.join()
    return heard[0]


def test_the_first_rank_waits_for_the_others_to_come_to_the_same_place(
    run_ranks: Callable[..., list[Any]], tmp_path: Path
) -> None:
    first, other = run_ranks(meet, 2, str(tmp_path))

    assert first == "learner waits for the other learner's ranks to come to the same place"
    assert other == "[7] 5"
