"""vLLM finds this through its ``vllm.general_plugins`` entry points, in each of its processes."""

from contextlib import suppress

BACKEND = "lzero-mapped"
"""Name of the engine in ``--weight-transfer-config``."""


def register() -> None:
    """Make the weight engine known to vLLM; harmless when called again."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

    with suppress(ValueError):  # already registered in this process
        WeightTransferEngineFactory.register_engine(
            BACKEND, "actors.inference.weight_engine", "StagedWeightEngine"
        )
