"""``lzero import-gguf``."""

import argparse
from pathlib import Path

_MIB = 1 << 20


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero import-gguf``."""
    parser = commands.add_parser(
        "import-gguf", help="write a GGUF file as a Hugging Face folder that can be trained"
    )
    parser.add_argument("file", type=Path, help="GGUF file of the llama, qwen2 or qwen3 family")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--dtype",
        default="bfloat16",
        choices=("float32", "bfloat16", "float16"),
        help="type of the weights (default bfloat16)",
    )
    parser.add_argument(
        "--no-check", action="store_true", help="leave out what lzero import-check does"
    )
    parser.add_argument(
        "--no-vllm", action="store_true", help="leave out vLLM's own loader, which takes longest"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; 1 where a check of the written folder failed."""
    from common.visible import visible
    from launch.commands.import_check import show_findings
    from launch.models.gguf.convert import import_gguf
    from launch.models.import_check import check_import

    done = import_gguf(arguments.file, arguments.out, arguments.dtype)
    print(
        visible(
            f"wrote {arguments.out} from {arguments.file}: family {done.family}, {done.tensors} "
            f"tensors, {done.num_bytes / _MIB:.1f} MiB, {arguments.dtype}"
        )
    )
    if arguments.no_check:
        return 0
    return show_findings(check_import(arguments.out, with_vllm=not arguments.no_vllm))
