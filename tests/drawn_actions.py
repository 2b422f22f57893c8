"""Actions as hypothesis draws them, and the loss of an objective on them."""

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from common.config import Objective
from learner.objectives.policy_loss import PolicyLoss, policy_loss
from learner.objectives.sampled import Normalisers, SampledActions

VERSION, MAX_STALENESS = 10, 8


@dataclass(frozen=True, kw_only=True)
class Actions:
    """One list per action; every action has at least one token."""

    behaviour: list[list[float]]
    deltas: list[list[float]]
    proximal: list[list[float]]
    versions: list[list[int]]
    advantages: list[float]

    def of(self, members: list[int]) -> "Actions":
        return Actions(
            **{name: [getattr(self, name)[i] for i in members] for name in _FIELDS}  # type: ignore[arg-type]
        )

    def with_one(self, other: "Actions") -> "Actions":
        return Actions(
            **{name: getattr(self, name) + getattr(other, name) for name in _FIELDS}  # type: ignore[arg-type]
        )

    @property
    def lengths(self) -> list[int]:
        return [len(own) for own in self.deltas]

    @property
    def normalisers(self) -> Normalisers:
        return Normalisers(tokens=sum(self.lengths), actions=len(self.lengths))


_FIELDS = ("behaviour", "deltas", "proximal", "versions", "advantages")


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32)


@st.composite
def actions(draw: st.DrawFn, *, spread: float = 1.0) -> Actions:
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    scale = draw(st.sampled_from([0.01, 0.1, 1.0])) * spread

    def per_token(strategy: st.SearchStrategy[Any]) -> Any:
        return [draw(st.lists(strategy, min_size=n, max_size=n)) for n in lengths]

    return Actions(
        behaviour=per_token(numbers(-8, 0)),
        deltas=[[scale * d for d in own] for own in per_token(numbers(-3, 3))],
        proximal=[[scale * d for d in own] for own in per_token(numbers(-3, 3))],
        versions=per_token(st.integers(0, VERSION)),
        advantages=draw(st.lists(numbers(-2, 2), min_size=len(lengths), max_size=len(lengths))),
    )


@dataclass(frozen=True, kw_only=True)
class Result:
    """Loss, the gradient on every token, the action of every token, and the verdicts."""

    loss: float
    gradient: Tensor
    owner: Tensor
    result: PolicyLoss


def run(
    batch: Actions,
    objective: Objective,
    *,
    normalisers: Normalisers | None = None,
    places: list[int] | None = None,
    count: int | None = None,
) -> Result:
    """The loss of actions that lie at ``places`` of a batch of ``count``."""
    places = list(range(len(batch.lengths))) if places is None else places
    count = len(places) if count is None else count
    owner = torch.tensor(places).repeat_interleave(torch.tensor(batch.lengths))
    behaviour, deltas, proximal = (
        torch.tensor([x for own in rows for x in own])
        for rows in (batch.behaviour, batch.deltas, batch.proximal)
    )
    advantages = torch.zeros(count)
    advantages[torch.tensor(places)] = torch.tensor(batch.advantages)
    learner = (behaviour + deltas).requires_grad_()
    result = policy_loss(
        learner,
        SampledActions(
            behaviour_logprobs=behaviour,
            action_ids=owner,
            versions=torch.tensor([v for own in batch.versions for v in own]),
            advantages=advantages,
            learner_version=VERSION,
            max_staleness=MAX_STALENESS,
        ),
        objective=objective,
        normalisers=batch.normalisers if normalisers is None else normalisers,
        proximal_logprobs=behaviour + proximal,
    )
    (gradient,) = torch.autograd.grad(result.loss, learner)
    return Result(loss=result.loss.item(), gradient=gradient, owner=owner, result=result)
