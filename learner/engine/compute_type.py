"""In which type this machine computes a model fastest: ``python -m learner.engine.compute_type``.

bfloat16 rounds to 8 bits, so it has to win by enough. What a GPU of compute capability 8.0 does is
known; a processor is asked by a matrix product of the model's own width.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from common.errors import LZeroError
from common.model_config import read_model_config
from learner.engine.model_shape import ModelShape, shape_of

WORTH_IT = 1.5
"""How many times faster than float32 the product must be in bfloat16."""

_ROWS = 512
_OPERATIONS = 2e9
"""Of one product at most: some 10 ms of a core."""
_TRIES = 3


def fastest(shape: ModelShape) -> tuple[str, str]:
    """The compute type for a model of that shape, ``float32`` or ``bfloat16``, and the reason."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16", f"{name} computes in it"
        return "float32", f"{name} does not compute in bfloat16"
    single, half = product_seconds(shape.hidden, _widest(shape))
    return decide(single, half, width=shape.hidden)


def decide(single_s: float, half_s: float, *, width: int) -> tuple[str, str]:
    """The type that those seconds of one product in float32 and bfloat16 speak for. Pure."""
    chosen = "bfloat16" if single_s >= WORTH_IT * half_s else "float32"
    return chosen, (
        f"a product of width {width} took {1e3 * single_s:.1f} ms in float32 and "
        f"{1e3 * half_s:.1f} ms in bfloat16"
    )


def product_seconds(hidden: int, widest: int) -> tuple[float, float]:
    """Shortest time of one layer's product in float32 and in bfloat16, seconds.

    Args:
        hidden: columns of the input.
        widest: columns of the output.
    """
    rows = max(32, min(_ROWS, int(_OPERATIONS / (2 * hidden * widest))))
    states, weight = torch.randn(rows, hidden), torch.randn(hidden, widest)
    halves = states.bfloat16()
    single = _shortest(lambda: states @ weight)
    # A layer's weights are kept in float32 and converted each time the layer is used.
    return single, _shortest(lambda: halves @ weight.bfloat16())


def _shortest(work: Callable[[], Tensor]) -> float:
    work()
    seconds = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _widest(shape: ModelShape) -> int:
    return max(outputs for _, outputs in shape.linear_layers.values())


def main() -> int:
    """Print the choice for a model folder as JSON; 2 for an expected error."""
    parser = argparse.ArgumentParser(prog="learner.engine.compute_type", description=__doc__)
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        dtype, reason = fastest(shape_of(read_model_config(arguments.model)))
    except LZeroError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps({"dtype": dtype, "reason": reason}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
