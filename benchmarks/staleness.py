"""A small agent that learns from stale data: the simulator of ``bench_staleness``.

The agent acts twice. Its first action "searches": the better it matches the key of its task, the
likelier the answer is revealed. Its second action is scored by how much of the answer it spells.
Tokens come from an autoregressive policy of low rank, small enough to train hundreds of times in an
hour; objectives and advantages are the learner's own (``learner.objectives``).

Staleness D is simulated as in training: the first half of every action is sampled by the weights
of D updates ago, the second half by those of D / 2 ago, and the log-probabilities are recorded.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common.config import Apg, Objective, Topr
from learner.advantages import advantages_of
from learner.objectives.policy_loss import PolicyLoss, policy_loss
from learner.objectives.sampled import Normalisers, SampledActions

KEY_TOKENS = 2
STEP_REWARD = 0.1
"""For a first action that matches its key."""
UNREVEALED = 0.3
"""What an answer counts that was not revealed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Sizes of the task and of the training; the defaults are those of the experiment."""

    tasks: int = 16
    vocabulary: int = 8
    search_tokens: int = 8
    answer_tokens: int = 24
    rank: int = 12
    trajectories: int = 256
    group_size: int = 4
    updates: int = 250
    learning_rate: float = 0.03
    discount: float = 0.95
    last: int = 20
    """Updates at the end over which the final reward is averaged."""
    evaluated: int = 512
    """Trajectories of each evaluation."""


UNBOUNDED = float("inf")
UNCORRECTED = Objective(
    apg=Apg(weight_limits_positive=(1.0, 1.0), weight_limits_negative=(1.0, 1.0), kappa=UNBOUNDED)
)
"""Every action counts as if the newest weights had sampled it."""
METHODS = {
    "none": UNCORRECTED,
    "token_tis": Objective(name="token_tis"),
    "gspo": Objective(name="gspo"),
    "apg": Objective(),
    "topr": Objective(name="topr", topr=Topr(kappa=UNBOUNDED)),
}
"""What is compared, with the defaults of each objective."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        reward: mean of the last evaluations of the newest weights.
        area: mean over evaluations of the whole run.
        effective_sample_size: mean over the last updates.
        masked_share: mean over all updates.
    """

    reward: float
    area: float
    effective_sample_size: float
    masked_share: float


class SmallPolicy(nn.Module):
    """Logits of token t in state s after token p: E[s] W[t] + B[p]."""

    def __init__(self, world: World, generator: torch.Generator) -> None:
        """Random E and W; B starts at 0."""
        super().__init__()
        length = world.search_tokens + world.answer_tokens
        shape = (length, world.rank, world.vocabulary)
        self.states = nn.Parameter(
            0.3 * torch.randn(3 * world.tasks, world.rank, generator=generator)
        )
        self.tokens = nn.Parameter(0.3 * torch.randn(shape, generator=generator))
        self.after = nn.Parameter(torch.zeros(world.vocabulary + 1, world.vocabulary))

    def logprobs(self, states: Tensor, first: int, actions: Tensor) -> Tensor:
        """[n, T] of actions [n, T] whose first token is the policy's token ``first``."""
        start = torch.full_like(actions[:, :1], len(self.after) - 1)
        before = torch.cat([start, actions[:, :-1]], dim=1)
        tokens = self.tokens[first : first + actions.shape[1]]
        logits = torch.einsum("nd,tdv->ntv", self.states[states], tokens) + self.after[before]
        return logits.log_softmax(-1).gather(-1, actions[..., None]).squeeze(-1)


Weights = dict[str, Tensor]


class Rollouts:
    """Samples two-step trajectories from frozen weights."""

    def __init__(self, world: World, generator: torch.Generator) -> None:
        """The keys and answers of the tasks are the same for every run."""
        fixed = torch.Generator().manual_seed(1234)
        self._world, self._generator = world, generator
        self.keys = torch.randint(0, world.vocabulary, (world.tasks, KEY_TOKENS), generator=fixed)
        self.answers = torch.randint(
            0, world.vocabulary, (world.tasks, world.answer_tokens), generator=fixed
        )

    def sample(
        self, weights: Weights, later: Weights, states: Tensor, first: int, length: int
    ) -> tuple[Tensor, Tensor]:
        """Actions [n, length] and their log-probabilities; the second half is by ``later``."""
        before = torch.full((len(states),), self._world.vocabulary)
        actions, logprobs = [], []
        for place in range(length):
            own = weights if place < length // 2 else later
            hidden = own["states"][states] @ own["tokens"][first + place]
            every = (hidden + own["after"][before]).log_softmax(-1)
            before = torch.multinomial(every.exp(), 1, generator=self._generator).squeeze(1)
            actions.append(before)
            logprobs.append(every.gather(1, before[:, None]).squeeze(1))
        return torch.stack(actions, 1), torch.stack(logprobs, 1)

    def play(self, weights: Weights, later: Weights, tasks: Tensor) -> "Played":
        """One trajectory of each of ``tasks``."""
        world = self._world
        search, search_logprobs = self.sample(weights, later, tasks, 0, world.search_tokens)
        hit = (search[:, :KEY_TOKENS] == self.keys[tasks]).float().mean(1)
        chance = torch.rand(len(tasks), generator=self._generator)
        revealed = (chance < hit.square()).long()
        states = world.tasks * (1 + revealed) + tasks
        answer, answer_logprobs = self.sample(
            weights, later, states, world.search_tokens, world.answer_tokens
        )
        match = (answer == self.answers[tasks]).float().mean(1)
        rewards = torch.stack(
            [STEP_REWARD * hit, torch.where(revealed == 1, match, UNREVEALED * match)], 1
        )
        return Played(
            states=(tasks, states),
            actions=(search, answer),
            logprobs=(search_logprobs, answer_logprobs),
            rewards=rewards,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """n trajectories of two actions: states [n], actions and log-probabilities [n, T], rewards
    [n, 2].
    """

    states: tuple[Tensor, Tensor]
    actions: tuple[Tensor, Tensor]
    logprobs: tuple[Tensor, Tensor]
    rewards: Tensor


def train(
    objective: Objective, *, staleness: int, seed: int, world: World | None = None
) -> Outcome:
    """Train a fresh policy on data that is ``staleness`` updates old."""
    world = world or World()
    generator = torch.Generator().manual_seed(seed)
    policy = SmallPolicy(world, generator)
    rollouts = Rollouts(world, generator)
    optimizer = torch.optim.Adam(policy.parameters(), lr=world.learning_rate)
    history: deque[Weights] = deque(maxlen=staleness + 1)
    rewards, sizes, masked = [], [], []
    for update in range(world.updates):
        history.append(_frozen(policy))
        tasks = torch.randint(
            0, world.tasks, (world.trajectories // world.group_size,), generator=generator
        ).repeat_interleave(world.group_size)
        newer = history[max(0, len(history) - 1 - staleness // 2)]
        played = rollouts.play(history[0], newer, tasks)
        result = _loss(policy, played, objective, world)
        optimizer.zero_grad()
        result.loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        masked.append(result.verdicts.masked.float().mean().item())
        if update >= world.updates - world.last or update % 20 == 0:
            rewards.append((update, _evaluate(policy, rollouts, world, generator)))
            sizes.append(_effective_share(result))
    return Outcome(
        reward=float(np.mean([r for u, r in rewards if u >= world.updates - world.last])),
        area=float(np.mean([r for u, r in rewards if u % 20 == 0])),
        effective_sample_size=float(np.mean(sizes[-world.last :])),
        masked_share=float(np.mean(masked)),
    )


def _loss(policy: SmallPolicy, played: Played, objective: Objective, world: World) -> PolicyLoss:
    count = len(played.rewards)
    groups = [str(number // world.group_size) for number in range(count)]
    per_step = advantages_of(list(played.rewards.numpy()), groups, objective)
    advantages = torch.from_numpy(np.stack(per_step, axis=1).astype(np.float32)).flatten()
    firsts = (0, world.search_tokens)
    logprobs, owners = [], []
    for step in range(2):
        own = policy.logprobs(played.states[step], firsts[step], played.actions[step])
        logprobs.append(own.flatten())
        owner = torch.arange(count) + step * count
        owners.append(owner.repeat_interleave(played.actions[step].shape[1]))
    action_ids = torch.cat(owners)
    sampled = SampledActions(
        behaviour_logprobs=torch.cat([part.flatten() for part in played.logprobs]),
        action_ids=action_ids,
        versions=torch.zeros_like(action_ids),
        advantages=advantages,
        learner_version=0,
        max_staleness=0,
    )
    counts = Normalisers(tokens=len(action_ids), actions=2 * count)
    return policy_loss(torch.cat(logprobs), sampled, objective=objective, normalisers=counts)


def _evaluate(
    policy: SmallPolicy, rollouts: Rollouts, world: World, generator: torch.Generator
) -> float:
    newest = _frozen(policy)
    tasks = torch.randint(0, world.tasks, (world.evaluated,), generator=generator)
    return rollouts.play(newest, newest, tasks).rewards.sum(1).mean().item()


def _effective_share(result: PolicyLoss) -> float:
    rho = result.verdicts.ratios.log_rho.clamp(-20, 20).double().exp()
    return float(rho.sum().square() / (len(rho) * rho.square().sum()))


def _frozen(policy: SmallPolicy) -> Weights:
    return {name: value.detach().clone() for name, value in policy.named_parameters()}
