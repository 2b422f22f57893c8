"""What a task type may use to measure an answer that a judge process alone cannot."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from actors.kernels.pool import KernelPool
from common.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """Sandboxes, and a model that grades; None for what this process does not have."""

    sandboxes: KernelPool | None = None
    grader: Callable[[str], Awaitable[str]] | None = None
    """Takes a prompt and gives the model's answer."""

    def need_sandboxes(self, kind: str) -> KernelPool:
        """The sandboxes.

        Raises:
            ConfigError: there are none.
        """
        if self.sandboxes is None:
            raise ConfigError(f"kind {kind!r} needs sandboxes to score an answer; here are none")
        return self.sandboxes

    def need_grader(self, kind: str) -> Callable[[str], Awaitable[str]]:
        """The model that grades.

        Raises:
            ConfigError: there is none.
        """
        if self.grader is None:
            raise ConfigError(
                f"kind {kind!r} needs a model that grades answers: set rewards.judge to a table "
                "[services.NAME] with base_url and model"
            )
        return self.grader
