"""The learner: tokens per second, utilisation and memory of an optimizer step, beside its peers.

    python -m benchmarks.bench_learner [--quick] [--json PATH] [--device cpu|cuda]
        [--mode versus|packs] [--threads N] [--peak-tflops X] [--profile PATH]

``versus`` trains on episodes of very different lengths, in turns with

* padded: a stock Hugging Face model on right-padded batches of whole segments, as they come;
* padded by length: the same with segments sorted by length;
* per-step layout: every step of a trajectory a sample of its own, with its context as prompt.

``packs``, the default on a GPU, trains on one full-length sequence a pack, as others publish.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from transformers.utils import logging as transformers_logging

from benchmarks.learner import packs, versus
from benchmarks.learner.flops import peak_flops
from benchmarks.learner.measures import device_name
from benchmarks.report import Report, arguments
from learner.engine.mesh import training_processes

_TERA = 1e12


def parse() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU if there is one")
    parser.add_argument("--mode", choices=("versus", "packs"), help="packs on a GPU, else versus")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument(
        "--peak-tflops", type=float, help="of the device, for MFU; known for some GPUs"
    )
    parser.add_argument("--profile", type=Path, help="write a trace of one more step there")
    options = parser.parse_args()
    if options.device == "cpu":  # before torch looks for devices
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    options.device = options.device or found
    if options.device == "cuda" and found == "cpu":
        parser.error("--device cuda: torch finds no CUDA device")
    options.mode = options.mode or ("packs" if options.device == "cuda" else "versus")
    return options


def run(options: argparse.Namespace, say: Callable[[str], None]) -> Report:
    """Run the benchmark that the options describe."""
    on_gpu = options.device == "cuda"
    peak = options.peak_tflops * _TERA if options.peak_tflops else peak_flops(device_name())
    with tempfile.TemporaryDirectory() as folder, training_processes() as rank:
        where = (Path(folder), rank)
        rest = {"peak": peak, "trace": options.profile, "say": say}
        if options.mode == "packs":
            choice = (packs.CPU, packs.CPU_QUICK, packs.CUDA, packs.CUDA_QUICK)
            return packs.measure_packs(choice[2 * on_gpu + options.quick], *where, **rest)
        kinds = (versus.CPU, versus.CPU_QUICK, versus.CUDA, versus.CUDA_QUICK)
        return versus.measure_versus(kinds[2 * on_gpu + options.quick], *where, **rest)


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    transformers_logging.disable_progress_bar()
    console = Console(highlight=False)
    with console.status("") as status:
        report = run(options, status.update)
    report.give(console, options.json)


if __name__ == "__main__":
    main()
