"""What the host of a policy server needs of an engine; ``actors.inference.host.vllm`` is one."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from actors.inference.staging import StagedFiles
from common.wire.hosting import Generate, Generated, ServerLoad

TORN = "torn"
"""Label of weights after an update that failed half-way; who reads it refuses their tokens."""


class EngineGoneError(Exception):
    """The engine has ended, and what it had to do is lost."""


class WrongRequestError(Exception):
    """The engine will never accept this request."""


class Engine(Protocol):
    """It samples. Each life of an engine is an object of its own."""

    async def generate(self, request: Generate) -> Generated:
        """What is sampled after a prompt.

        Raises:
            WrongRequestError: it never will be.
            EngineGoneError: the engine has ended.
            Exception: anything else; asked again it may do it.
        """
        ...

    async def swap(self, staged: StagedFiles) -> float:
        """Pause, load these weights, go on; the seconds of the pause.

        Whatever it raises, it goes on, and its label is that of the weights before, or ``TORN``.
        """
        ...

    async def version(self) -> str:
        """The label of the weights that it samples with."""
        ...

    def load(self) -> ServerLoad:
        """What it has to do."""
        ...

    async def ended(self) -> str:
        """Return when it has ended, and how."""
        ...

    def close(self) -> None:
        """End it, if it has not."""
        ...


StartEngine = Callable[[], Awaitable[Engine]]
"""Starts an engine with the weights of the model folder."""
