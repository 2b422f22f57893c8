"""Builds the objects that rollouts and evaluations share, from a resolved configuration."""

from collections.abc import Mapping
from pathlib import Path

from actors.episode import EpisodeRunner
from actors.kernels.pool import KernelPool
from actors.policy import PolicyClient
from actors.tokenizer import FileTokenizer
from actors.tools.search import SearchIndex
from actors.tools.toolbox import NoSearch, Searcher
from common.chat import ChatRenderer
from common.config import Config, Tasks

LOOPBACK = "127.0.0.1"


def policy_server_url(config: Config) -> str:
    """Where the policy server of this run listens."""
    return f"http://{LOOPBACK}:{config.policy_server.port}"


def make_policy(config: Config) -> PolicyClient:
    """A client of the run's policy server."""
    server = config.policy_server
    return PolicyClient(
        (policy_server_url(config),),
        timeout_s=server.request_timeout_s,
        attempts=server.request_attempts,
    )


def make_searchers(config: Config) -> dict[str, Searcher]:
    """The search tool of each corpus name that a task may have."""
    tasks: Tasks = config.tasks
    paths = {"train": tasks.train_corpus, "heldout": tasks.heldout_corpus or tasks.train_corpus}
    return {name: make_searcher(config, path) for name, path in paths.items()}


def make_searcher(config: Config, corpus: str, *, disabled: bool = False) -> Searcher:
    """The search tool over one corpus; a run without a corpus finds nothing."""
    search = config.search
    if disabled or search.disabled or not corpus:
        return NoSearch()
    return SearchIndex(
        Path(corpus),
        match=search.match,
        results=search.results,
        max_characters=search.max_characters,
    )


def make_runner(
    config: Config,
    *,
    actor_id: str,
    policy: PolicyClient,
    kernels: KernelPool,
    searchers: Mapping[str, Searcher],
) -> EpisodeRunner:
    """An episode runner over these parts.

    Raises:
        InputError: the model folder has no usable tokenizer.
    """
    tokenizer = FileTokenizer(Path(config.model.path))
    return EpisodeRunner(
        actor_id=actor_id,
        policy=policy,
        kernels=kernels,
        tokenizer=tokenizer,
        renderer=ChatRenderer(tokenizer, "", tokenizer.added_tokens),
        searchers=searchers,
        agent=config.agent,
        rewards=config.rewards,
        max_context=config.model.max_context,
        cell_timeout_s=config.kernel.cell_timeout_s,
    )
