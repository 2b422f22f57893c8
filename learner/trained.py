"""What a configuration trains, and the step that trains it: for a run and for its replay."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from common.config import Config
from learner.checkpoints.state import Trainee
from learner.engine.critic import CriticModel, load_critic
from learner.engine.mesh import Rank
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.policy import load_policy
from learner.engine.reference import ReferenceModel, load_reference
from learner.step.train_step import TrainStep


@dataclass(frozen=True, slots=True)
class Trained:
    """The policy with its optimizer, and the critic where advantages come from one."""

    model: PreTrainedModel
    optimizer: PolicyOptimizer
    critic: CriticModel | None

    @property
    def beside(self) -> Mapping[str, Trainee]:
        """What a checkpoint holds beside the policy."""
        if self.critic is None:
            return {}
        return {"critic": Trainee(self.critic.model, self.critic.optimizer)}


def load_trained(config: Config, rank: Rank) -> Trained:
    """Load what is trained, as it was before the first step; every rank must call it.

    Raises:
        LZeroError: see ``learner.engine.policy.load_policy``.
    """
    model = load_policy(config, rank)
    updates = config.run.steps * config.learner.updates_per_batch
    optimizer = PolicyOptimizer(model, config.learner, steps=updates)
    return Trained(model, optimizer, _critic(config, rank))


def train_step(config: Config, trained: Trained, rank: Rank) -> TrainStep:
    """The step of a run; every rank must call it."""
    return TrainStep(
        trained.model,
        trained.optimizer,
        rank,
        config=config.learner,
        objective=config.objective,
        temperature=config.agent.temperature,
        reference=_reference(config, rank),
        critic=trained.critic,
    )


def _reference(config: Config, rank: Rank) -> ReferenceModel | None:
    """The model that the run started from, where a KL term asks for it."""
    if not config.objective.kl_reference:
        return None
    return load_reference(
        config.model.path,
        rank,
        compute_dtype=getattr(torch, config.model.compute_dtype),
        temperature=config.agent.temperature,
        cpu_offload=config.learner.cpu_offload,
    )


def _critic(config: Config, rank: Rank) -> CriticModel | None:
    """The value model, where advantages come from one."""
    if config.objective.advantage != "gae":
        return None
    return load_critic(
        config.model.path,
        rank,
        config=config.objective.gae,
        learner=config.learner,
        gamma=config.objective.discount,
        compute_dtype=getattr(torch, config.model.compute_dtype),
    )
