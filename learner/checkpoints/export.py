"""Makes a plain Hugging Face folder from the sharded state of a checkpoint, without torch.

Any number of ranks may have written the state; a few MiB of memory are enough. Low-rank adapters
are added to the weights they belong to: W + scale * B A.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from learner.checkpoints.digests import Digest
from learner.checkpoints.model_files import MAX_FILE_BYTES, Weight, write_model_files
from learner.checkpoints.number_formats import Raw, convert
from learner.checkpoints.shard_files import TensorFolder

WEIGHTS = "model."
"""What the names of the policy's tensors in the state begin with."""

ADAPTERS = (".lora_A.weight", ".lora_B.weight")
"""How the names of the two factors of an adapter end, in place of ``.weight``."""

_BLOCK_BYTES = 16 << 20


def export_state(
    state: Path,
    source: Path,
    destination: Path,
    number_format: str,
    *,
    adapters: Mapping[str, float],
    max_file_bytes: int = MAX_FILE_BYTES,
) -> dict[str, Digest]:
    """Write a Hugging Face folder.

    Args:
        state: folder of the parts, as ``learner.checkpoints.writer`` writes them.
        source: folder of config and tokenizer.
        destination: folder to write.
        number_format: of the written weights: F32, BF16 or F16.
        adapters: scale of the adapter by Hugging Face name of the weight it belongs to.
        max_file_bytes: see ``learner.checkpoints.model_files.write_model_files``.

    Returns:
        Digests of the files, by name.

    Raises:
        InputError: the state is incomplete, or the source has no readable config.
    """
    tensors = TensorFolder(state)
    weights = [
        _weight(tensors, name.removeprefix(WEIGHTS), number_format, adapters)
        for name in tensors.names()
        if name.startswith(WEIGHTS) and not name.endswith(ADAPTERS)
    ]
    return write_model_files(
        weights, source, destination, number_format, max_file_bytes=max_file_bytes
    )


def _weight(
    tensors: TensorFolder, name: str, number_format: str, adapters: Mapping[str, float]
) -> Weight:
    whole = tensors.whole(WEIGHTS + name)

    def blocks() -> Iterator[Raw]:
        change = _change(tensors, name, adapters[name]) if name in adapters else None
        first = 0
        for block in tensors.blocks(WEIGHTS + name, _BLOCK_BYTES):
            if change is not None:
                block = _added(block, whole.format, change[first : first + len(block)])
                first += len(block)
            yield convert(block, whole.format, number_format)

    return Weight(name=name, shape=whole.shape, blocks=blocks)


def _change(tensors: TensorFolder, name: str, scale: float) -> NDArray[np.float32]:
    """What an adapter adds to the weight of that name, [out, in]."""
    factors = []
    for ending in ADAPTERS:
        factor = WEIGHTS + name.removesuffix(".weight") + ending
        whole = tensors.whole(factor)
        bits = tensors.read(factor, whole.offset, whole.shape)
        factors.append(convert(bits, whole.format, "F32").view(np.float32))
    a, b = factors
    return np.float32(scale) * (b @ a)


def _added(block: Raw, number_format: str, change: NDArray[np.float32]) -> Raw:
    """A block of weights with a change, in the weights' own format."""
    single = convert(block, number_format, "F32").view(np.float32)
    return convert((single + change).view(np.uint32), "F32", number_format)
