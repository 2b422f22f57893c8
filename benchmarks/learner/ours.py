"""Our optimizer step for the learner's benchmark, built as a run builds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.config import Apg, Config, Learner, Model, Objective
from common.wire.records import Trajectory
from learner.engine.mesh import Rank
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.policy import load_policy
from learner.profiling import trace_packs
from learner.step.metrics import StepMetrics
from learner.step.train_step import TrainStep

OBJECTIVE = Objective(apg=Apg(kappa=1e3))
"""The default, but random weights mask no action."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How the model computes, for ours and for the peers.

    Attributes:
        pack_tokens: token budget of a pack.
        dtype: compute type.
        activation_checkpointing: as ``learner.activation_checkpointing``.
        compile: as ``learner.compile``; ours only.
    """

    pack_tokens: int
    dtype: Literal["float32", "bfloat16"] = "float32"
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    compile: bool = False

    def config(self, folder: Path) -> Config:
        """The configuration of a run with the model in ``folder``."""
        return Config(
            model=Model(path=str(folder), dtype=self.dtype, max_context=self.pack_tokens),
            learner=Learner(
                pack_tokens=self.pack_tokens,
                activation_checkpointing=self.activation_checkpointing,
                compile=self.compile,
            ),
            objective=OBJECTIVE,
        )


class OurStep:
    """The learner's step on one rank: batch, packs, passes, optimizer and diagnostics."""

    def __init__(self, folder: Path, rank: Rank, engine: Engine) -> None:
        """Load the model as ``lzero train`` does."""
        config = engine.config(folder)
        self._model = load_policy(config, rank)
        self._step = TrainStep(
            self._model,
            PolicyOptimizer(self._model, config.learner),
            rank,
            config=config.learner,
            objective=config.objective,
            temperature=1.0,
        )

    def run(self, trajectories: Sequence[Trajectory]) -> StepMetrics:
        """Learn from one batch, on rank 0."""
        metrics = self._step.run(trajectories)
        if metrics is None:
            raise RuntimeError("the benchmark runs on one rank")
        return metrics

    def trace(self, trajectories: Sequence[Trajectory], path: Path) -> None:
        """Learn once more, and write a trace of it."""
        with trace_packs(self._model, path):
            self.run(trajectories)
