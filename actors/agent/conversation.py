"""What the agent's loop needs of the policy's side of a conversation.

The loop (``loop.py``) decides *what* the context holds; a conversation knows *how* its policy
takes it: as token ids (``token_conversation.py``, for training) or as chat messages
(``chat_conversation.py``, for any OpenAI-compatible server).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.errors import PolicyServerError
from common.wire.records import Segment

DeltaListener = Callable[[str], None]
"""Takes pieces of an action's text while it is sampled."""


class ContextTooLongError(PolicyServerError):
    """The policy takes no context of this length, or none with an answer of this length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """How a segment begins.

    Attributes:
        system: the rendered system prompt; empty for none.
        task: the task as the policy is asked it.
        notepad: the notepad's text; empty where there is none.
    """

    system: str
    task: str
    notepad: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptStep:
    """An earlier step that a new segment carries on.

    Attributes:
        step: its number.
        replacement: text that takes the place of its observation; None keeps it as it was.
    """

    step: int
    replacement: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One sampled action: its text, why it ended, and how many tokens it has."""

    text: str
    finish_reason: str
    tokens: int


class Conversation(Protocol):
    """The context of one episode as its policy takes it. Nothing sampled is encoded again."""

    prompt_tokens: int
    """Tokens that the policy was given so far, those of each request counted anew."""

    @property
    def tokens(self) -> int:
        """Tokens in the context now; an estimate where the policy does not tell."""
        ...

    @property
    def limit(self) -> int:
        """The most tokens that a context may hold."""
        ...

    def escape(self, text: str) -> str:
        """``text`` from outside as it may stand in a system prompt: no tag for this policy."""
        ...

    def begin(self, opening: Opening, kept: Sequence[KeptStep] = ()) -> None:
        """Start a new segment; earlier segments stay on record as they are."""
        ...

    def measure(self, text: str) -> int:
        """Tokens that ``text`` would take as an observation."""
        ...

    def step_tokens(self, step: int) -> tuple[int, int]:
        """Tokens of the action and of the observation of a step of this segment."""
        ...

    def observe(self, step: int, text: str, *, ours: bool = False) -> None:
        """Append the observation of ``step``.

        Args:
            step: its number.
            text: what is observed.
            ours: it is a reminder, whose own tags are shown; the rest went through ``escape``.
        """
        ...

    async def sample(
        self, step: int, *, max_tokens: int, on_delta: DeltaListener | None = None
    ) -> Sample:
        """Let the policy write the action of ``step``, at most ``max_tokens``, and append it.

        Raises:
            ContextTooLongError: the context is longer than the policy takes.
            PolicyServerError: no answer after all retries.
        """
        ...

    def segments(self) -> tuple[Segment, ...]:
        """What training needs of it; empty where the policy's tokens are not known."""
        ...
