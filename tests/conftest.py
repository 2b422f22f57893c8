"""Fixtures shared by all tests."""

import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Integration tests run one after the other in one worker, all others in the other."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "processes" if file.startswith("tests/integration/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """How the workers of ``make test`` share the tests."""
    return _Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a worker tells of a test is text, also where the test logged what is none."""
    return _as_text((yield))


def _as_text(data: Any) -> Any:
    match data:
        case str():
            return data.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {key: _as_text(value) for key, value in data.items()}
        case list() | tuple():
            return type(data)(map(_as_text, data))
    return data


def _enter_rank(
    index: int, function: Callable[..., Any], count: int, folder: str, arguments: tuple[Any, ...]
) -> None:
    """Body of a rank: join the group, call ``function(rank, *arguments)``, store the result."""
    import torch

    from learner.engine.mesh import training_processes

    torch.set_num_threads(1)
    os.environ.update(RANK=str(index), LOCAL_RANK=str(index), WORLD_SIZE=str(count))
    with training_processes(f"file://{folder}/rendezvous") as rank:
        result = function(rank, *arguments)
    torch.save(result, f"{folder}/result-{index}.pt")


@pytest.fixture
def run_ranks(tmp_path: Path) -> Callable[..., list[Any]]:
    """``run_ranks(function, count, *arguments)``: results of ``function`` on gloo ranks.

    Each rank is a new process that calls ``function(rank, *arguments)``; the function must be
    at the top level of its module. A failure on any rank is raised here with its traceback.
    """
    calls = iter(range(1000))

    def run(function: Callable[..., Any], count: int, *arguments: Any) -> list[Any]:
        import torch
        from torch.multiprocessing import start_processes

        folder = tmp_path / f"ranks-{next(calls)}"
        folder.mkdir()
        start_processes(
            _enter_rank,
            args=(function, count, str(folder), arguments),
            nprocs=count,
            start_method="spawn",
        )
        return [
            torch.load(folder / f"result-{index}.pt", weights_only=False) for index in range(count)
        ]

    return run
