"""What a client of the policy needs of a server that it asks, and how asking can fail."""

from typing import Protocol

from common.wire.generation import Generation
from common.wire.hosting import Generate


class RetryableError(Exception):
    """An attempt failed in a way that another attempt may not."""


class UnreachableError(RetryableError):
    """The server is not there, or not ready; it may be starting again."""


class WrongPromptError(Exception):
    """The server will never accept this request."""


class PolicyLine(Protocol):
    """A way to one policy server; several requests may be under way at once."""

    async def generate(self, request: Generate) -> Generation:
        """What is sampled; the request's number is the line's to choose.

        Raises:
            RetryableError: the attempt failed.
            WrongPromptError: every attempt will.
            PolicyServerError: what came is no generation.
        """
        ...

    async def close(self) -> None:
        """Give up what is under way."""
        ...
