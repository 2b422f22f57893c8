"""A conversation in token ids, for training: tokens in, tokens out, every one on record.

Earlier actions and observations that a new segment carries on are given again by the ids they had;
nothing that was sampled is ever encoded from text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from actors.agent.conversation import DeltaListener, KeptStep, Opening, Sample
from actors.agent.segments import SegmentBuilder
from actors.policy import PolicyClient
from common.chat import ChatRenderer, Tokenizer
from common.wire.records import Segment


@dataclass(slots=True)
class _StepIds:
    action: list[int]
    observation: list[int]


class TokenConversation:
    """The context of one episode as token ids; see ``conversation.Conversation``."""

    def __init__(
        self,
        *,
        policy: PolicyClient,
        renderer: ChatRenderer,
        tokenizer: Tokenizer,
        limit: int,
        temperature: float,
        whole_turns: bool = False,
    ) -> None:
        """Talk to ``policy`` in contexts of at most ``limit`` tokens.

        Args:
            policy: samples the actions.
            renderer: turns new text into ids.
            tokenizer: turns sampled ids into text.
            limit: longest segment, tokens.
            temperature: of the sampling.
            whole_turns: an action ends with the turn, not with its code block.
        """
        self._policy, self._renderer, self._tokenizer = policy, renderer, tokenizer
        self._temperature = temperature
        self._whole_turns = whole_turns
        self._finished: list[Segment] = []
        self._current = SegmentBuilder(())
        self._opening = 0
        """Tokens of the prompt that the current segment began with."""
        self._ids: dict[int, _StepIds] = {}
        self._rendered: tuple[str, list[int]] = ("", renderer.observation(""))
        self.limit = limit
        self.prompt_tokens = 0

    @property
    def tokens(self) -> int:
        """Tokens of the current segment."""
        return len(self._current)

    def escape(self, text: str) -> str:
        """``text`` from outside as it may stand in a system prompt."""
        return self._renderer.escape(text)

    def begin(self, opening: Opening, kept: Sequence[KeptStep] = ()) -> None:
        """Start a new segment; one in which nothing was sampled is forgotten."""
        if self._current.has_actions:
            self._finished.append(self._current.build())
        prompt = self._renderer.prompt(opening.task, opening.system, opening.notepad)
        self._current, self._opening = SegmentBuilder(prompt), len(prompt)
        for one in kept:
            ids = self._ids[one.step]
            if one.replacement is not None:
                ids.observation = self._in_turn(one.step, self._render(one.replacement))
            self._current.give(ids.action)
            self._current.give(ids.observation)

    def measure(self, text: str) -> int:
        """Tokens that ``text`` would take as an observation."""
        newest = next(reversed(self._ids), None)
        ids = self._render(text)
        return len(ids if newest is None else self._in_turn(newest, ids))

    def step_tokens(self, step: int) -> tuple[int, int]:
        """Tokens of the action and of the observation of ``step``."""
        ids = self._ids[step]
        return len(ids.action), len(ids.observation)

    def observe(self, step: int, text: str, *, ours: bool = False) -> None:
        """Append the observation of ``step``; as a turn of its own where the action ended one."""
        ids = self._in_turn(step, self._renderer.reminder(text) if ours else self._render(text))
        self._ids[step].observation = ids
        self._current.give(ids)

    async def sample(
        self, step: int, *, max_tokens: int, on_delta: DeltaListener | None = None
    ) -> Sample:
        """Let the policy write the action of ``step``; the text comes in one piece."""
        ends_at_turn = self._renderer.turn_end_token_ids
        generation = await self._policy.generate(
            self._current.token_ids,
            max_tokens=max_tokens,
            temperature=self._temperature,
            stop_token_ids=ends_at_turn if self._whole_turns else self._renderer.stop_token_ids,
            stop_strings=() if self._whole_turns else self._renderer.stop_strings,
            prefix=self._opening,
        )
        ids = generation.token_ids
        self.prompt_tokens += len(self._current)
        self._current.sample(step, ids, generation.logprobs, generation.versions)
        self._ids[step] = _StepIds(action=ids.tolist(), observation=[])
        text = self._tokenizer.decode(ids.tolist())
        if on_delta is not None:
            on_delta(text)
        return Sample(text=text, finish_reason=generation.finish_reason, tokens=len(ids))

    def segments(self) -> tuple[Segment, ...]:
        """All segments in which something was sampled; if there is none, the start of the first.

        Not all of it: a prompt that is too long alone fits no segment, and nobody learns from it.
        """
        if self._current.has_actions:
            return (*self._finished, self._current.build())
        return tuple(self._finished) or (self._current.build(most=self.limit),)

    def _in_turn(self, step: int, observation: list[int]) -> list[int]:
        """``observation`` as it goes on from the action of ``step``."""
        action = self._ids[step].action
        ended = bool(action) and action[-1] in self._renderer.turn_end_token_ids
        return self._renderer.new_turn(observation) if ended else observation

    def _render(self, text: str) -> list[int]:
        """Ids of an observation; the last one is remembered, as it is measured, then shown."""
        if self._rendered[0] != text:
            self._rendered = (text, self._renderer.observation(text))
        return self._rendered[1]
