"""A conversation in chat messages, for any OpenAI-compatible server.

    system       the system prompt, if there is one
    user         the task, and the notepad
    assistant    <think>...</think><code>...</code>        one action
    user         <output>...</output>                      its observation
    assistant    and so on

Nothing here is fit for training: the server's token ids are not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from actors.agent.chat.answer import ChatAnswer, ChatMessage
from actors.agent.chat.client import ChatClient
from actors.agent.conversation import ContextTooLongError, DeltaListener, KeptStep, Opening, Sample
from actors.agent.foreign_action import rewrite
from actors.agent.foreign_tags import break_all_tags
from actors.agent.token_estimate import TokenEstimate
from common.chat import ACTION_END, observation_text, split_turns, task_text
from common.wire.records import Segment

_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
}
_NOTHING = "(no answer)"
"""Stands for an empty action in later prompts; servers refuse empty messages."""
_OUTPUT = "<output>"
_CUT = "… [cut: the context is full]"
_SHORTEST = 200
"""Characters of an observation that are never cut further."""


@dataclass(slots=True)
class _StepText:
    action: str
    action_tokens: int
    observation: str | None = None
    is_dropped: bool = False


class ChatConversation:
    """The context of one episode as chat messages; see ``conversation.Conversation``."""

    def __init__(
        self, client: ChatClient, *, limit: int, temperature: float, direct: bool = False
    ) -> None:
        """Talk to the model of ``client``.

        Args:
            client: asks the server.
            limit: the longest context in tokens, prompt and answer together.
            temperature: of the sampling.
            direct: answers are plain text and end where the model ends them.
        """
        self._client = client
        self._temperature = temperature
        self._direct = direct
        self._steps: dict[int, _StepText] = {}
        self._messages: list[ChatMessage] = []
        self._estimate = TokenEstimate()
        self._counted_messages = self._counted_tokens = 0
        self.limit = limit
        self.prompt_tokens = 0

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """The chat as the server will be sent it."""
        return tuple(self._messages)

    @property
    def tokens(self) -> int:
        """Tokens in the context: the server's last count, and an estimate of what came since."""
        return self._counted_tokens + self._estimate.of_all(
            self._messages[self._counted_messages :]
        )

    def escape(self, text: str) -> str:
        """``text`` from outside as it may stand in a system prompt."""
        return break_all_tags(text)

    def begin(self, opening: Opening, kept: Sequence[KeptStep] = ()) -> None:
        """Write the messages anew: the opening and the steps that are kept."""
        self._messages = []
        self._counted_messages = self._counted_tokens = 0
        for role, text in split_turns(opening.system):
            self._messages.append(ChatMessage(role=_ROLES[role], content=text))
        self._say(break_all_tags(task_text(opening.task, opening.notepad)))
        for one in kept:
            step = self._steps[one.step]
            if one.replacement is not None:
                step.observation = _observation(one.replacement)
            if not step.is_dropped:
                self._answer(step.action)
            if step.observation is not None:
                self._say(step.observation)

    def measure(self, text: str) -> int:
        """Tokens that ``text`` would take as an observation; an estimate."""
        return self._estimate.of(_observation(text))

    def step_tokens(self, step: int) -> tuple[int, int]:
        """Tokens of the action and of the observation of ``step``; the second is an estimate."""
        one = self._steps[step]
        seen = self._estimate.of(one.observation) if one.observation is not None else 0
        return one.action_tokens, seen

    def observe(self, step: int, text: str, *, ours: bool = False) -> None:
        """Append the observation of ``step``.

        A reminder takes the place of the message that was no action: small models go on as they
        began, and what they began with was wrong. An output before it loses its tags, which they
        would echo.
        """
        observation = text if ours else _observation(text)
        if ours:
            self._steps[step].is_dropped = True
            self._messages.pop()
            self._say(_retold(self._messages.pop().content))
            self._counted_messages = self._counted_tokens = 0
        self._steps[step].observation = observation
        self._say(observation)

    async def sample(
        self, step: int, *, max_tokens: int, on_delta: DeltaListener | None = None
    ) -> Sample:
        """Let the model write the action of ``step``, at most ``max_tokens``, and append it.

        Raises:
            PolicyServerError: no answer after all retries; says what to do.
        """
        answer = await self._ask(max_tokens, on_delta)
        text = answer.text
        if not self._direct:
            text = rewrite(text, stopped=answer.finish_reason == "stop")
        tokens = self._count(answer, text)
        self._steps[step] = _StepText(text, tokens)
        return Sample(text=text, finish_reason=answer.finish_reason, tokens=tokens)

    def segments(self) -> tuple[Segment, ...]:
        """None: the model's tokens are not known."""
        return ()

    async def _ask(self, max_tokens: int, on_delta: DeltaListener | None) -> ChatAnswer:
        """Ask; where our count was too low for the server, show less of the last observation."""
        while True:
            try:
                return await self._client.complete(
                    self._messages,
                    max_tokens=max_tokens,
                    temperature=self._temperature,
                    end="" if self._direct else ACTION_END,
                    on_delta=on_delta,
                )
            except ContextTooLongError:
                last = self._messages[-1].content
                self._estimate.was_too_low()
                if len(last) < _SHORTEST or not last.startswith(_OUTPUT):
                    raise
                shorter = _observation(last[len(_OUTPUT) : len(last) // 2] + _CUT)
                self._messages[-1] = ChatMessage(role="user", content=shorter)

    def _count(self, answer: ChatAnswer, text: str) -> int:
        """Append the action, with the server's token counts where it gives them."""
        prompt = answer.prompt_tokens
        if prompt is not None:
            self._estimate.learn(self._messages, prompt)
        tokens = answer.answer_tokens
        if tokens is None:
            tokens = self._estimate.of(text)
        before = self.tokens if prompt is None else prompt
        self.prompt_tokens += before
        self._answer(text)
        self._counted_tokens, self._counted_messages = before + tokens, len(self._messages)
        return tokens

    def _say(self, text: str) -> None:
        """Append to the user's side; some servers want the two sides to take turns."""
        if self._messages and self._messages[-1].role == "user":
            text = f"{self._messages.pop().content}\n\n{text}"
        self._messages.append(ChatMessage(role="user", content=text))

    def _answer(self, text: str) -> None:
        self._messages.append(ChatMessage(role="assistant", content=text or _NOTHING))


def _retold(message: str) -> str:
    """A message of the user's side; an output in words instead of tags."""
    if not message.startswith(_OUTPUT):
        return message
    return message.replace(_OUTPUT, "Your code printed:\n", 1).replace("</output>", "", 1)


def _observation(text: str) -> str:
    """An observation as a message; no tokenizer reads a tag in it but those of ours around it."""
    return observation_text(break_all_tags(text))
