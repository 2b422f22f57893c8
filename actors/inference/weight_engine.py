"""vLLM's side of a weight update: swap staged weights into the running model.

vLLM calls ``init_transfer_engine`` once per publisher and then, for each update,
``start_weight_update``, ``update_weights`` and ``finish_weight_update``. The whole reload happens
inside ``update_weights``, after the staged version was looked up: a request for weights that are
not there fails before the model is touched.
"""

import dataclasses
import logging
import os
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
from actors.inference.plugin import KEYS_VARIABLE
from actors.inference.staging import StagingReceiver
from common.places import Address
from common.wire.keys import read_key_pair

log = logging.getLogger(__name__)


@dataclass
class StagedInitInfo(WeightTransferInitInfo):  # type: ignore[misc]
    """Where the publisher listens, and its key: a ``common.places.Address``."""

    bind: str
    host: str
    port: int
    key: str


@dataclass
class StagedUpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
    """Which staged version to swap in."""

    version: int


class StagedWeightEngine(WeightTransferEngine[StagedInitInfo, StagedUpdateInfo]):  # type: ignore[misc]
    """Loads staged checkpoint-format weights into the model of this worker."""

    init_info_cls = StagedInitInfo
    update_info_cls = StagedUpdateInfo
    supports_draft_weight_update = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See the base class."""
        super().__init__(*args, **kwargs)
        self._receiver: StagingReceiver | None = None
        # It warns of a tied lm_head and of rotary tables, which no snapshot holds, at each
        # update; what is really missing is an error in receive_weights.
        logging.getLogger(initialize_layerwise_reload.__module__).setLevel(logging.ERROR)

    def init_transfer_engine(self, init_info: StagedInitInfo) -> None:
        """Start receiving from a publisher; replaces an earlier one."""
        self.shutdown()
        keys = Path(os.environ[KEYS_VARIABLE])
        self._receiver = StagingReceiver(
            Address(**dataclasses.asdict(init_info)),
            server=keys.stem,
            keys=read_key_pair(keys),
            rank=int(self.parallel_config.rank),
        )
        self._receiver.start()

    def start_weight_update(self) -> None:
        """Nothing to prepare: the reload is one step, in ``receive_weights``."""

    def finish_weight_update(self) -> None:
        """Nothing is left to do."""

    def update_weights(self, update_info: dict[str, Any]) -> None:
        """Swap in the version that ``update_info`` names."""
        self.receive_weights(self.parse_update_info(update_info))
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()

    def receive_weights(self, update_info: StagedUpdateInfo) -> None:
        """Load the staged tensors.

        Raises:
            LookupError: that version is not staged; the model is untouched.
            RuntimeError: parameters of the model were not in the snapshot; they keep their values.
        """
        if self._receiver is None:
            raise LookupError("no publisher was named, init_weight_transfer_engine comes first")
        staged = self._receiver.take(update_info.version)
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
                f"weights of version {update_info.version} lack {len(missing)} parameters of the "
                f"model, the first is '{missing[0]}'"
            )

    def shutdown(self) -> None:
        """Stop receiving; the model keeps its weights."""
        if self._receiver is not None:
            self._receiver.stop()
            self._receiver = None


def _refresh_packed_embeddings(model: torch.nn.Module) -> None:
    """Pack tied output embeddings again.

    On CPU vLLM multiplies by a packed copy of each matrix. A reload renews the copies of the
    layers it loaded; a tied ``lm_head`` is not one of them, although its weights changed.
    """
    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding) and hasattr(module, "cpu_linear"):
            module.quant_method.process_weights_after_loading(module)
