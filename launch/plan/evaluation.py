"""Which held-out questions are asked before and after training, and under which conditions."""

from pathlib import Path

from common.config import Config
from common.evaluation import Suite

HELDOUT = "heldout"
GREEDY = "greedy"
CONTROL = "control"


def plan_before(config: Config) -> tuple[Suite, ...]:
    """The suites asked of the starting policy."""
    return _heldout_suites(config)


def plan_after(config: Config, world: Path | None = None) -> tuple[Suite, ...]:
    """The suites asked of the trained policy: the same, the control and the extra columns.

    Args:
        config: a resolved configuration.
        world: the folder of the generated world, or None for a user's own tasks.
    """
    suites = _heldout_suites(config)
    evaluation = config.evaluation
    if suites and evaluation.control:
        suites += (_suite(config, CONTROL, per_family=evaluation.control, search_disabled=True),)
    if world is not None and evaluation.greedy_per_family:
        suites += extra_suites(world, per_family=evaluation.greedy_per_family)
    return suites


def extra_suites(world: Path, *, per_family: int) -> tuple[Suite, ...]:
    """Held-out question wordings, and names made of words never seen in training."""
    return (
        Suite(
            name="wordings",
            tasks=str(world / "heldout_wordings.jsonl"),
            corpus=str(world / "heldout_corpus.sqlite"),
            per_family=per_family,
        ),
        Suite(
            name="unseen",
            tasks=str(world / "unseen.jsonl"),
            corpus=str(world / "unseen_corpus.sqlite"),
            per_family=per_family,
        ),
    )


def _heldout_suites(config: Config) -> tuple[Suite, ...]:
    if not config.tasks.heldout:
        return ()
    evaluation = config.evaluation
    suites: tuple[Suite, ...] = ()
    if evaluation.per_family:
        suites += (_suite(config, HELDOUT, per_family=evaluation.per_family),)
    if evaluation.greedy_per_family:
        suites += (
            _suite(config, GREEDY, per_family=evaluation.greedy_per_family, temperature=0.0),
        )
    return suites


def _suite(
    config: Config,
    name: str,
    *,
    per_family: int,
    temperature: float = 1.0,
    search_disabled: bool = False,
) -> Suite:
    return Suite(
        name=name,
        tasks=config.tasks.heldout,
        corpus=config.tasks.heldout_corpus or config.tasks.train_corpus,
        temperature=temperature,
        per_family=per_family,
        search_disabled=search_disabled,
    )
