"""The notebook's object ``context``: the agent's own context, to be read and rewritten.

Reading shows what the policy sees. Changes are noted here and take effect in the next prompt, in a
new segment; system prompt, task, notepad, budgets and the record for training cannot be changed.
"""

from collections.abc import Callable, Sequence
from typing import Any

from actors.agent.conversation import Conversation, Opening
from actors.agent.window import ContextWindow
from common.wire.records import Step


class ContextTool:
    """What the notebook's ``context`` calls on the host, for one episode."""

    properties = ("messages", "tokens", "limit", "left")
    methods = ("drop", "replace", "output")

    def __init__(
        self,
        *,
        conversation: Conversation,
        window: ContextWindow,
        steps: Sequence[Step],
        outputs: Sequence[str],
        opening: Callable[[], Opening],
        may_change: Callable[[], bool],
    ) -> None:
        """Look at the episode through these; ``may_change`` says if a segment is left."""
        self._conversation, self._window = conversation, window
        self._steps, self._outputs = steps, outputs
        self._opening, self._may_change = opening, may_change

    def messages(self) -> list[dict[str, Any]]:
        """Your context: dicts with step (None before the first), role, tokens and text."""
        opening = self._opening()
        found = [
            _message(None, "system", opening.system, None),
            _message(None, "task", opening.task, None),
            _message(None, "notepad", opening.notepad, None),
        ]
        for number in self._window.visible:
            step = self._steps[number]
            action, observation = self._conversation.step_tokens(number)
            text = self._window.replacement(number)
            found.append(_message(number, "action", step.action, action))
            shown = step.observation if text is None else text
            found.append(_message(number, "output", shown, observation))
        return [message for message in found if message["text"]]

    def tokens(self) -> int:
        """Tokens in your context now."""
        return self._conversation.tokens

    def limit(self) -> int:
        """The most tokens your context may hold."""
        return self._conversation.limit

    def left(self) -> int:
        """Tokens left before the context is full."""
        return max(0, self._conversation.limit - self._conversation.tokens)

    def drop(self, steps: int | list[int]) -> str:
        """Remove earlier steps (action and output) from your context."""
        self._check()
        numbers = steps if isinstance(steps, list | tuple) else [steps]
        for number in numbers:
            self._window.drop(number)
        return f"dropped {len(numbers)} steps"

    def replace(self, step: int, text: str) -> str:
        """Show TEXT, for instance a summary, in place of the output of an earlier step."""
        self._check()
        if not isinstance(text, str):
            raise TypeError(f"text must be a string, got {type(text).__name__}")
        self._window.replace(step, text)
        return f"replaced the output of step {step}"

    def output(self, step: int) -> str:
        """The whole output of an earlier step, also what your context did not show of it."""
        if step not in range(len(self._outputs)):
            raise ValueError(f"there is no output of step {step!r}; there are {len(self._outputs)}")
        return self._outputs[step]

    def _check(self) -> None:
        if not self._may_change():
            raise PermissionError("the context was changed as often as it may be in one episode")


def _message(step: int | None, role: str, text: str, tokens: int | None) -> dict[str, Any]:
    return {"step": step, "role": role, "tokens": tokens, "text": text}
