"""Loads the policy from a Hugging Face folder and computes log-probabilities of packs."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from common.errors import InputError
from common.model_config import read_model_config
from learner.engine.attention import PACKED_ATTENTION, layout_of, register_packed_attention
from learner.engine.context_parallel import ContextRanks, gather_scores, layout_of_share
from learner.engine.context_shares import share_of
from learner.engine.logprobs import OutputLayer, TargetScores
from learner.engine.tokenizer import TOKENIZER, check_vocabulary
from learner.packs.packing import Pack


class _Policy:
    """What is added to a causal language model of transformers: log-probabilities.

    Names of parameters, configuration and saved files stay as they are.
    """

    lm_head: nn.Linear
    model: nn.Module

    def __init__(self, config: PreTrainedConfig) -> None:
        """Build the model, then let its output layer compute log-probabilities."""
        super().__init__(config)  # type: ignore[call-arg]
        self.lm_head = OutputLayer.of(self.lm_head)

    def forward(
        self,
        *args: Any,
        wanted: Tensor | None = None,
        predecessors: Tensor | None = None,
        temperature: float = 1.0,
        with_entropy: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Without ``wanted``, what the stock model does.

        Args:
            args: as the stock model takes them.
            wanted: [N] int64, ids of which the log-probability is wanted.
            predecessors: [N] int64, place in the sequence of the token before each.
            temperature: see ``score_targets``.
            with_entropy: see ``score_targets``.
            kwargs: as the stock model takes them.
        """
        if wanted is None or predecessors is None:
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        states = self.model(*args, use_cache=False, **kwargs).last_hidden_state
        return self.lm_head(states[0, predecessors], wanted, temperature, with_entropy)


class Qwen2Policy(_Policy, Qwen2ForCausalLM):  # type: ignore[misc]
    """Qwen2 and Qwen2.5."""


class Qwen3Policy(_Policy, Qwen3ForCausalLM):  # type: ignore[misc]
    """Qwen3."""


class LlamaPolicy(_Policy, LlamaForCausalLM):  # type: ignore[misc]
    """Llama."""


POLICIES: dict[str, type[PreTrainedModel]] = {
    "qwen2": Qwen2Policy,
    "qwen3": Qwen3Policy,
    "llama": LlamaPolicy,
}
"""Classes by ``model_type`` in config.json, one for each of ``common.model_config.FAMILIES``."""


def load_model(path: str | Path, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load the policy for training, with attention over packs.

    Args:
        path: local Hugging Face folder: config.json, weights, and usually a tokenizer.
        dtype: how the weights are stored. The optimizer wants float32; the compute type is
            chosen in ``learner.engine.sharding.shard``.

    Raises:
        InputError: there is no such folder, it is no model of a supported family, its weights
            do not fit its config, or its tokenizer has more ids than the model.
    """
    folder = Path(path)
    family = check_model_folder(folder)
    register_packed_attention()
    try:
        model: PreTrainedModel = POLICIES[family].from_pretrained(
            str(folder), dtype=dtype, attn_implementation=PACKED_ATTENTION, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"model folder '{folder}' cannot be loaded: {error}") from error
    return model.train()


def check_model_folder(folder: Path) -> str:
    """Find what is wrong with a model folder without loading its weights.

    Returns:
        The family of the model, a key of POLICIES.

    Raises:
        InputError: see ``load_model``.
    """
    config = read_model_config(folder)
    tokenizer = folder / TOKENIZER
    if tokenizer.exists():
        check_vocabulary(tokenizer, config["vocab_size"])
    return str(config["model_type"])


def score_targets(
    model: nn.Module,
    pack: Pack,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
    context: ContextRanks | None = None,
) -> TargetScores:
    """Log-probabilities of the targets of a pack under the model, and entropies if wanted.

    The output layer only runs where the next token is a target, and never holds logits for all
    of them. The call goes through the root module, so the hooks of FSDP run; a pack without
    targets runs the same collectives.

    Args:
        model: from ``load_model``, sharded or not.
        pack: on the model's device.
        temperature: the temperature the targets were sampled at, above 0; logits are divided
            by it, so that the result is comparable with the behaviour log-probabilities.
        with_entropy: whether entropies are wanted, at the same temperature.
        context: the ranks that share this pack; each must call this with the same pack and
            compute the same from the result (see ``context_parallel.gather_scores``), which
            is as in one process. None if the pack is the calling rank's own.
    """
    options = {"temperature": temperature, "with_entropy": with_entropy}
    if context is None:
        scores = model(
            input_ids=pack.token_ids.unsqueeze(0),
            position_ids=pack.position_ids.unsqueeze(0),
            layout=layout_of(pack.segment_lengths),
            predecessors=pack.targets - 1,
            wanted=pack.token_ids[pack.targets],
            **options,
        )
        return TargetScores(*scores)
    share = share_of(pack, context.index, context.count)
    scores = model(
        input_ids=share.token_ids.unsqueeze(0),
        position_ids=share.position_ids.unsqueeze(0),
        layout=layout_of_share(share, context.group),
        predecessors=share.predecessors,
        wanted=pack.token_ids[pack.targets[share.targets]],
        **options,
    )
    own = torch.stack([part for part in scores if part is not None], dim=-1)
    logprobs, *entropies = gather_scores(own, share, context.group).unbind(-1)
    return TargetScores(logprobs, entropies[0] if entropies else None)


def token_logprobs(
    model: nn.Module,
    pack: Pack,
    *,
    temperature: float = 1.0,
    context: ContextRanks | None = None,
) -> Tensor:
    """The log-probabilities of ``score_targets``, [N] float32, differentiable."""
    return score_targets(model, pack, temperature=temperature, context=context).logprobs
