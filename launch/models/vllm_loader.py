"""Asks vLLM's loader for a model folder: ``python -m launch.models.vllm_loader FOLDER``.

The model is built on torch's ``meta`` device and gets tensors without memory, so that names and
shapes go through vLLM's own code, but no weights are read. A process of its own: vLLM changes the
process it runs in.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from learner.checkpoints.shard_files import TensorFolder


def tensors_taken(folder: Path) -> int:
    """Parameters of vLLM's model that the folder fills: all of them.

    Raises:
        ValueError: vLLM knows a tensor not, or misses one.
        OSError: a file that its loader wants is not there.
    """
    from vllm.config import set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model

    arguments = EngineArgs(model=str(folder), enforce_eager=True, load_format="dummy")
    config = arguments.create_engine_config()
    with set_current_vllm_config(config), tempfile.TemporaryDirectory() as scratch:
        init_distributed_environment(
            world_size=1,
            rank=0,
            local_rank=0,
            distributed_init_method=f"file://{scratch}/rendezvous",
            backend="gloo",
        )
        initialize_model_parallel(1, 1)
        with torch.device("meta"):
            model = initialize_model(config)
        filled = set(model.load_weights(_without_memory(folder, _files(config, folder))))
    missing = sorted({name for name, _ in model.named_parameters()} - filled)
    if missing:
        raise ValueError(f"vLLM misses {', '.join(missing)}")
    return len(filled)


def _files(config: Any, folder: Path) -> list[str]:
    """Names of the files that vLLM's loader chooses; it looks for all that an index names."""
    from vllm.config import LoadConfig
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    loader = DefaultModelLoader(LoadConfig(load_format="auto"))
    _, paths, safe, _ = loader._prepare_weights(config.model_config.model, None, None, True, None)
    if not safe:
        raise ValueError(f"it chose {paths} in {folder}, which are no safetensors files")
    return [Path(path).name for path in paths]


def _without_memory(folder: Path, names: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    files = TensorFolder(folder, names)
    for name in files.names():
        yield name, torch.empty(files.whole(name).shape, device="meta")


def main() -> int:
    """Print one line; 1 where vLLM refuses the folder."""
    try:
        count = tensors_taken(Path(sys.argv[1]))
    except (OSError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        sys.stderr.write(f"vLLM refuses it: {error!r}\n")
        return 1
    sys.stdout.write(f"its loader filled all {count} parameters\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
