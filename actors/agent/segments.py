"""A segment while it grows: what was given, what was sampled; nothing is encoded again."""

from collections.abc import Sequence

import numpy as np

from common.wire.records import NOT_AN_ACTION, Float32, Int32, Segment


class SegmentBuilder:
    """Collects the tokens of one context in order."""

    def __init__(self, prompt: Sequence[int]) -> None:
        """Start with the rendered prompt."""
        self.token_ids: list[int] = []
        self._action_index: list[int] = []
        self._logprobs: list[float] = []
        self._versions: list[int] = []
        self.give(prompt)

    def __len__(self) -> int:
        """Tokens so far."""
        return len(self.token_ids)

    @property
    def has_actions(self) -> bool:
        """Whether anything was sampled in it."""
        return any(index != NOT_AN_ACTION for index in self._action_index)

    def give(self, token_ids: Sequence[int]) -> None:
        """Append tokens that nobody sampled: prompt, observation."""
        count = len(token_ids)
        self.token_ids += token_ids
        self._action_index += [NOT_AN_ACTION] * count
        self._logprobs += [0.0] * count
        self._versions += [NOT_AN_ACTION] * count

    def sample(self, action: int, token_ids: Int32, logprobs: Float32, versions: Int32) -> None:
        """Append the sampled tokens of step ``action``, exactly as the server returned them."""
        self.token_ids += token_ids.tolist()
        self._action_index += [action] * len(token_ids)
        self._logprobs += logprobs.tolist()
        self._versions += versions.tolist()

    def build(self, most: int | None = None) -> Segment:
        """The finished segment, of at most ``most`` tokens if that is given."""
        return Segment(
            token_ids=np.array(self.token_ids[:most], dtype=np.int32),
            action_index=np.array(self._action_index[:most], dtype=np.int32),
            behaviour_logprobs=np.array(self._logprobs[:most], dtype=np.float32),
            versions=np.array(self._versions[:most], dtype=np.int32),
        )
