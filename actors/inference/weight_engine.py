"""vLLM's side of a weight update: swap staged weights into the running model.

For each update vLLM calls ``start_weight_update``, ``update_weights`` and ``finish_weight_update``.
The whole reload happens inside ``update_weights``, after the file of the version, which the host
has received (``actors.inference.staging``), was mapped: a request for weights that are not there
fails before the model is touched.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import (
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

from actors.inference.adapters import whole_tensors
from actors.inference.mapped import map_weights

log = logging.getLogger(__name__)


@dataclass
class NoInitInfo(WeightTransferInitInfo):  # type: ignore[misc]
    """Workers connect to nobody."""


@dataclass
class MappedUpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
    """Paths of the file of a version, and of the whole model that its adapters belong to."""

    path: str
    base: str = ""


class StagedWeightEngine(WeightTransferEngine[NoInitInfo, MappedUpdateInfo]):  # type: ignore[misc]
    """Loads staged checkpoint-format weights into the model of this worker."""

    init_info_cls = NoInitInfo
    update_info_cls = MappedUpdateInfo
    supports_draft_weight_update = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See the base class."""
        super().__init__(*args, **kwargs)
        # It warns of a tied lm_head and of rotary tables, which no snapshot holds, at each
        # update; what is really missing is an error in receive_weights.
        logging.getLogger(initialize_layerwise_reload.__module__).setLevel(logging.ERROR)

    def init_transfer_engine(self, init_info: NoInitInfo) -> None:
        """Nothing to connect to: the host of the server receives weights."""

    def start_weight_update(self) -> None:
        """Nothing to prepare: the reload is one step, in ``receive_weights``."""

    def finish_weight_update(self) -> None:
        """Nothing is left to do."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Swap in the version in the file that ``update_info`` names."""
        self.receive_weights(self.parse_update_info(update_info))
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: MappedUpdateInfo) -> None:
        """Load the staged tensors.

        Raises:
            OSError: there is no such file; the model is untouched.
            RuntimeError: parameters of the model were not in the snapshot; they keep their values.
        """
        base = Path(update_info.base) if update_info.base else None
        staged = map_weights(Path(update_info.path), base=base)
        expected = {name for name, _ in self.model.named_parameters()}
        device = next(self.model.parameters()).device
        initialize_layerwise_reload(self.model)
        try:
            loaded = self.model.load_weights(whole_tensors(staged, device))
        finally:
            finalize_layerwise_reload(self.model, self.model_config)
            _refresh_packed_embeddings(self.model)
        missing = sorted(expected - loaded) if loaded is not None else []
        if missing:
            raise RuntimeError(
                f"weights of version {staged.manifest.version} lack {len(missing)} parameters of "
                f"the model, the first is '{missing[0]}'"
            )

    def shutdown(self) -> None:
        """Nothing is held; the model keeps its weights."""


def _refresh_packed_embeddings(model: torch.nn.Module) -> None:
    """Pack tied output embeddings again.

    On CPU vLLM multiplies by a packed copy of each matrix. A reload renews the copies of the
    layers it loaded; a tied ``lm_head`` is not one of them, although its weights changed.
    """
    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding) and hasattr(module, "cpu_linear"):
            module.quant_method.process_weights_after_loading(module)
