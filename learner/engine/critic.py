"""The critic of ``objective.advantage = "gae"``: a value before every token of an action.

consumes   packs and the rewards of their steps
produces   advantages by token, whitened over the batch; and a gradient step on the value model
waits for  the other ranks: values by step are put together from all packs
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from common.config import Gae, Learner
from learner.advantages import generalised_advantages
from learner.engine.attention import layout_of
from learner.engine.mesh import Rank
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer, UpdateReport
from learner.engine.sharding import shard
from learner.objectives.token_gae import clipped_value_loss, token_advantages
from learner.packs.exchange import Work
from learner.packs.packing import Pack

_WHITENING_FLOOR = 1e-8


class ValueModel(nn.Module):
    """The policy's architecture with one number per token instead of logits."""

    def __init__(self, backbone: nn.Module, width: int) -> None:
        """Take a decoder; the output starts at 0, so that the first values are 0."""
        super().__init__()
        self.model = backbone
        self.value = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.value.weight)

    def forward(self, pack: Pack) -> Tensor:
        """[N] float32, the value before each target of the pack."""
        hidden = self.model(
            input_ids=pack.token_ids.unsqueeze(0),
            position_ids=pack.position_ids.unsqueeze(0),
            use_cache=False,
            layout=layout_of(pack.segment_lengths),
        ).last_hidden_state.squeeze(0)
        values: Tensor = self.value(hidden[pack.targets - 1]).sum(-1).float()
        return values


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenEstimates:
    """What the critic says about the N targets of a pack, at the start of the batch.

    Attributes:
        advantages: [N] float32, whitened over the batch.
        returns: [N] float32, what the values should have been.
        values: [N] float32.
    """

    advantages: Tensor
    returns: Tensor
    values: Tensor


class CriticModel:
    """A value model with its optimizer, on every rank."""

    def __init__(
        self, model: nn.Module, rank: Rank, *, config: Gae, learner: Learner, gamma: float
    ) -> None:
        """Train ``model``, sharded; ``gamma`` is the discount over steps."""
        self.model = model
        own = dataclasses.replace(learner, learning_rate=config.learning_rate, final_share=1.0)
        self.optimizer = PolicyOptimizer(model, own)
        self._rank, self._config, self._gamma = rank, config, gamma

    def estimate(
        self, works: Sequence[Work], step_rewards: Sequence[NDArray[np.floating]] | None
    ) -> list[list[TokenEstimates]]:
        """Estimates for every pack of every update; all ranks call it together.

        Args:
            works: this rank's packs.
            step_rewards: of the batch's trajectories in the order of the action ids; rank 0 only.
        """
        if not works:
            return []
        with torch.no_grad():
            values = [[self.model(self._here(pack)) for pack in work.packs] for work in works]
        returns = self._step_returns(works, values, step_rewards)
        raw = [
            [self._tokens(pack, own, returns) for pack, own in zip(work.packs, rows, strict=True)]
            for work, rows in zip(works, values, strict=True)
        ]
        mean, scale = self._whitening([one.advantages for row in raw for one in row])
        return [
            [
                TokenEstimates(
                    advantages=(one.advantages - mean) * scale,
                    returns=one.returns,
                    values=one.values,
                )
                for one in row
            ]
            for row in raw
        ]

    def learn(self, pack: Pack, estimates: TokenEstimates, *, num_tokens: int) -> float:
        """Add the gradient of one pack; returns its part of the value loss."""
        loss = clipped_value_loss(
            self.model(self._here(pack)),
            estimates.values,
            estimates.returns,
            clip=self._config.value_clip,
            num_tokens=num_tokens,
        )
        # FSDP averages gradients over ranks, but the loss of the step is the sum of all packs.
        (loss * self._rank.count).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def step(self) -> UpdateReport:
        """Apply the gradients."""
        return self.optimizer.step()

    def _here(self, pack: Pack) -> Pack:
        return pack.to(self._rank.device)

    def _step_returns(
        self,
        works: Sequence[Work],
        values: Sequence[Sequence[Tensor]],
        step_rewards: Sequence[NDArray[np.floating]] | None,
    ) -> Tensor:
        """[A], return of every step by GAE over steps, on all ranks."""
        first = torch.zeros(len(works[0].advantages))
        for work, rows in zip(works, values, strict=True):
            for pack, own in zip(work.packs, rows, strict=True):
                starts = _first_tokens(pack.action_ids)
                first[pack.action_ids[starts]] = own[starts].cpu()
        dist.all_reduce(first)
        if step_rewards is not None:
            first = torch.from_numpy(self._over_steps(first.numpy(), step_rewards))
        dist.broadcast(first, src=0)
        return first

    def _over_steps(
        self, values: NDArray[np.float32], step_rewards: Sequence[NDArray[np.floating]]
    ) -> NDArray[np.float32]:
        parts, start = [np.zeros(0)], 0
        for rewards in step_rewards:
            own = values[start : start + len(rewards)]
            advantages = generalised_advantages(
                rewards, own, discount=self._gamma, decay=self._config.step_decay
            )
            parts.append(advantages + own)
            start += len(rewards)
        return np.concatenate(parts).astype(np.float32)

    def _tokens(self, pack: Pack, values: Tensor, step_returns: Tensor) -> TokenEstimates:
        advantages, returns = token_advantages(
            values.cpu(),
            pack.action_ids.cpu(),
            step_returns,
            discount=self._config.token_discount,
            decay=self._config.token_decay,
        )
        return TokenEstimates(
            advantages=advantages.to(values.device),
            returns=returns.to(values.device),
            values=values,
        )

    def _whitening(self, advantages: Sequence[Tensor]) -> tuple[float, float]:
        """Mean, and one over the unbiased standard deviation, over the tokens of all ranks."""
        every = torch.cat([torch.zeros(0), *(own.cpu() for own in advantages)]).double()
        sums = torch.stack([torch.tensor(float(len(every))).double(), every.sum(), every @ every])
        dist.all_reduce(sums)
        count, total, squares = sums.tolist()
        if count < 2:
            return 0.0, 0.0
        mean = total / count
        variance = max(0.0, (squares - count * mean * mean) / (count - 1))
        return mean, float((variance + _WHITENING_FLOOR) ** -0.5)


def load_critic(
    path: str | Path,
    rank: Rank,
    *,
    config: Gae,
    learner: Learner,
    gamma: float,
    compute_dtype: torch.dtype,
) -> CriticModel:
    """A critic that starts from the policy's weights.

    Raises:
        InputError: see ``load_model``.
    """
    policy = load_model(path)
    model = ValueModel(policy.get_submodule("model"), int(policy.config.hidden_size))
    shard(model, rank, compute_dtype=compute_dtype)
    return CriticModel(model.train(), rank, config=config, learner=learner, gamma=gamma)


def _first_tokens(action_ids: Tensor) -> Tensor:
    """[N] bool, whether a target is the first token of its action."""
    if len(action_ids) == 0:
        return torch.zeros(0, dtype=torch.bool)
    before = torch.nn.functional.pad(action_ids[:-1], (1, 0), value=-1)
    return action_ids != before
