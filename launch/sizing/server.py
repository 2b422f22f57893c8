"""How much memory a policy server needs: weights, what it works with, and its KV cache. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.config import Config
from learner.engine.memory import GIB
from learner.engine.model_shape import ModelShape, shape_of

_BATCHED_TOKENS = 8192
"""Tokens that vLLM computes at once on a large GPU unless it is told otherwise."""
_CONTEXT_BYTES = 2 * GIB
"""Assumed for CUDA, NCCL and recorded graphs."""
PROCESS_BYTES = GIB // 2
"""What Python, torch and what else is loaded take in a process that computes on the CPU; 0.34 GiB
were measured in a learner before it had a model, 0.53 in a vLLM that served the shipped one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerMemory:
    """Bytes on each GPU of a server, or in the CPU memory of its machine.

    Attributes:
        weights: its share of them.
        working: activations, logits, and what libraries take for themselves.
        per_context: KV cache of one context of ``model.max_context`` tokens.
        cache: all of the KV cache; on a GPU what is left of the server's part, at least 0.
    """

    weights: int
    working: int
    per_context: int
    cache: int

    @property
    def least(self) -> int:
        """Without this it does not start: vLLM wants to hold one context of full length."""
        return self.weights + self.working + self.per_context

    @property
    def contexts(self) -> int:
        """How many contexts of full length it holds at once."""
        return self.cache // self.per_context


def server_memory(
    description: Mapping[str, Any], config: Config, *, gpu: int | None
) -> ServerMemory:
    """What the policy server of a run needs.

    Args:
        description: config.json of the model.
        config: of the run.
        gpu: bytes of each of its GPUs; None where it computes on the CPU.

    Raises:
        KeyError: the description lacks a size.
    """
    shape, server = shape_of(description), config.policy_server
    parallel = 1 if gpu is None else server.tensor_parallel
    compute = compute_bytes(config)
    weights = compute * shape.parameters // parallel
    working = _working(shape, config, parallel, compute)
    working += PROCESS_BYTES if gpu is None else _CONTEXT_BYTES
    if gpu is None:
        cache = int(server.memory_gib * GIB)
    else:
        cache = max(0, int(server.gpu_memory_fraction * gpu) - weights - working)
    return ServerMemory(
        weights=weights,
        working=working,
        per_context=config.model.max_context * cached_per_token(shape, compute, parallel),
        cache=cache,
    )


def compute_bytes(config: Config) -> int:
    """Bytes of a number in the type that is computed in."""
    return 2 if config.model.compute_dtype == "bfloat16" else 4


def cached_per_token(shape: ModelShape, compute: int, parallel: int = 1) -> int:
    """Bytes of keys and values of a token on each of ``parallel`` GPUs; no head is cut in two."""
    return 2 * compute * shape.layers * shape.keys // min(parallel, shape.key_heads)


def _working(shape: ModelShape, config: Config, parallel: int, compute: int) -> int:
    """Hidden states and one layer of a batch; logits and their log-softmax in float32."""
    tokens = max(_BATCHED_TOKENS, config.policy_server.max_sequences)
    layer = shape.queries + 2 * shape.keys + 2 * shape.intermediate
    batch = tokens * compute * (4 * shape.hidden + layer // parallel)
    return batch + 3 * 4 * config.policy_server.max_sequences * shape.vocabulary
