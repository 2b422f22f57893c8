"""``lzero export``."""

import argparse
from pathlib import Path

_MIB = 1 << 20


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero export``."""
    parser = commands.add_parser(
        "export", help="write the weights of a checkpoint as a plain Hugging Face folder"
    )
    parser.add_argument("source", type=Path, help="run or checkpoint folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="type of the weights (default float32, exactly those of the checkpoint)",
    )
    parser.add_argument(
        "--max-file-gb",
        type=float,
        default=5.0,
        metavar="GB",
        help="larger weights are split into several files (default 5)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it."""
    from launch.models.export import ExportRequest, export

    done = export(
        ExportRequest(
            source=arguments.source,
            out=arguments.out,
            dtype=arguments.dtype,
            max_file_gb=arguments.max_file_gb,
        )
    )
    print(
        f"wrote {arguments.out} from {done.checkpoint} (step {done.step}): {done.files} files, "
        f"{done.num_bytes / _MIB:.1f} MiB, {arguments.dtype}"
    )
    return 0
