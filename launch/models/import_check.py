"""``lzero import-check``: what has to hold for a Hugging Face folder to be trained and served.

Its tensors are those of the architecture; tokenizer and vocabulary fit; the logits of transformers
and of our packed attention agree; writing the model again gives the same bits; and vLLM's loader
takes every tensor.
"""

import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.child_process import child_command, module_environment
from common.errors import LZeroError
from common.model_config import CONFIG, read_json_object, read_model_config
from launch.models.model_checks import UNUSED, open_weights, same_tensor, tensor_faults, tied_fault
from learner.checkpoints.model_files import Weight, write_model_files
from learner.checkpoints.number_formats import convert
from learner.checkpoints.shard_files import TensorFolder
from learner.engine.attention import layout_of
from learner.engine.loading import build_empty
from learner.engine.model import check_model_folder, load_model
from learner.engine.sharding import tied_names
from learner.engine.tokenizer import TOKENIZER, load_tokenizer

TOLERANCE = 1e-3
"""Largest difference of two float32 logits, relative to the largest logit."""

PROBES = (
    "The first question: 2 + 2 = ?",
    " naïve 东京 🚀\n\tdef f(x): return x",
    "0123456789 " * 7,
)
"""Texts for tokenizer and logits."""

_BLOCK_BYTES = 16 << 20
_VLLM_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found."""

    name: str
    ok: bool
    detail: str


def check_import(folder: Path, *, with_vllm: bool) -> Iterator[CheckResult]:
    """Do all checks, cheap ones first; a failed check does not keep the others from running.

    Raises:
        InputError: it is no model folder of a supported family, or its files cannot be read.
    """
    folder = folder.expanduser().resolve()
    family = check_model_folder(folder)
    config = read_model_config(folder)
    files = open_weights(folder)
    shape = f"{config['num_hidden_layers']} layers of width {config['hidden_size']}"
    yield CheckResult("config", True, f"family {family}, {shape}")
    vocabulary = int(config["vocab_size"])
    names = check_tensors(folder, files)
    yield names
    yield check_tied(config, files)
    yield _tried("tokenizer", check_tokenizer, folder, vocabulary)
    if names.ok:
        yield _tried("logits", check_logits, folder, vocabulary, files)
        yield check_round_trip(folder, files)
        if with_vllm:
            yield check_vllm(folder)


def _tried(name: str, check: Callable[..., CheckResult], *arguments: Any) -> CheckResult:
    """What a check finds; transformers raises what it likes about files of others."""
    try:
        return check(*arguments)
    except LZeroError:
        raise
    except Exception as error:
        return CheckResult(name, False, f"transformers cannot use the folder: {error!r:.300}")


def check_tensors(folder: Path, files: TensorFolder) -> CheckResult:
    """Whether the files hold the tensors of the architecture, in their shapes, and no others."""
    model = build_empty(folder)
    tied = tied_names(model)
    wanted = {name: tuple(p.shape) for name, p in model.state_dict().items() if name not in tied}
    numbers = sum(int(np.prod(shape)) for shape in wanted.values())
    detail = f"{len(wanted)} tensors, {numbers:,} parameters"
    unused = [name for name in files.names() if name.endswith(UNUSED)]
    if unused:
        detail += f"; {len(unused)} that nobody reads, such as {unused[0]}"
    return _finding("tensors", tensor_faults(wanted, files), detail)


def check_tied(config: dict[str, Any], files: TensorFolder) -> CheckResult:
    """Whether the output layer is, or is not, the embeddings, as the config says."""
    tied = bool(config.get("tie_word_embeddings", False))
    fault = tied_fault(files, tied=tied)
    detail = "output layer is the embeddings" if tied else "output layer of its own"
    return _finding("tied weights", [fault] if fault else [], detail)


def check_tokenizer(folder: Path, vocabulary: int) -> CheckResult:
    """Whether the tokenizer that rollouts use is the one transformers loads, and loses nothing."""
    path = folder / TOKENIZER
    if not path.is_file():
        return CheckResult("tokenizer", False, f"{TOKENIZER} is missing; training needs it")
    ours = load_tokenizer(path)
    theirs = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    faults = []
    for text in PROBES:
        ids = ours.encode(text, add_special_tokens=False).ids
        if ids != theirs.encode(text, add_special_tokens=False):
            faults.append(f"tokenizer.json and transformers encode {text!r} differently")
        if max(ids, default=0) >= vocabulary:
            faults.append(f"{text!r} encodes to ids beyond the {vocabulary} embeddings")
    size = ours.get_vocab_size(with_added_tokens=True)
    template = "with" if theirs.chat_template else "without"
    detail = f"{size} tokens, {vocabulary} embeddings, {template} chat template"
    return _finding("tokenizer", faults, detail)


def check_logits(folder: Path, vocabulary: int, files: TensorFolder) -> CheckResult:
    """Compare stock attention, one sequence at a time, with all sequences in one pack."""
    sequences = _probe_sequences(folder, vocabulary)
    stock = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()
    with torch.no_grad():
        expected = torch.cat([stock(ids.unsqueeze(0)).logits[0] for ids in sequences])
        del stock
        found = _packed_logits(folder, sequences)
    largest = float(expected.abs().max())
    difference = float((expected - found).abs().max())
    detail = (
        f"largest difference {difference:.2e} over {len(expected)} tokens in {len(sequences)} "
        f"segments; largest logit {largest:.3g}"
    )
    if difference != difference:
        detail = f"logits are not finite; nor are values of {', '.join(_not_finite(files)[:5])}"
    # A difference that is not a number is no agreement.
    return CheckResult("logits", difference <= TOLERANCE * max(1.0, largest), detail)


def _not_finite(files: TensorFolder) -> list[str]:
    """Tensors that hold NaN or infinity."""
    return [
        name
        for name in files.names()
        if (number_format := files.whole(name).format) in ("F32", "BF16", "F16")
        and not all(
            np.isfinite(convert(block, number_format, "F32").view(np.float32)).all()
            for block in files.blocks(name, _BLOCK_BYTES)
        )
    ]


def _packed_logits(folder: Path, sequences: Sequence[Tensor]) -> Tensor:
    model = load_model(folder).eval()
    lengths = torch.tensor([len(ids) for ids in sequences])
    positions = torch.cat([torch.arange(len(ids)) for ids in sequences])
    logits: Tensor = model(
        input_ids=torch.cat(list(sequences)).unsqueeze(0),
        position_ids=positions.unsqueeze(0),
        use_cache=False,
        layout=layout_of(lengths),
    ).logits[0]
    return logits


def _probe_sequences(folder: Path, vocabulary: int) -> list[Tensor]:
    """The texts of PROBES, one token alone, and ids drawn from all of the vocabulary."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(0, vocabulary, (n,), generator=generator) for n in (1, 33, 64)]
    if not (folder / TOKENIZER).is_file():
        return drawn
    tokenizer = load_tokenizer(folder / TOKENIZER)
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in PROBES]
    return [torch.tensor(ids) for ids in encoded if ids] + drawn


def check_round_trip(folder: Path, files: TensorFolder) -> CheckResult:
    """Write every tensor as an export does, read it back, and compare the bits."""
    formats = {files.whole(name).format for name in files.names()}
    if len(formats) != 1:
        return CheckResult("round trip", False, f"tensors are of several types: {sorted(formats)}")
    (number_format,) = formats
    if number_format not in ("F32", "BF16", "F16"):
        return CheckResult(
            "round trip", False, f"weights are {number_format}; expected float types"
        )
    with tempfile.TemporaryDirectory(prefix=".import-check-", dir=_scratch(folder)) as scratch:
        weights = [
            Weight(
                name=name,
                shape=files.whole(name).shape,
                blocks=lambda name=name: files.blocks(name, _BLOCK_BYTES),  # type: ignore[misc]
            )
            for name in files.names()
        ]
        write_model_files(weights, folder, Path(scratch), number_format)
        again = TensorFolder(Path(scratch))
        faults = [f"{n} changed" for n in files.names() if not same_tensor(files, again, n, n)]
        faults += _config_changes(folder / CONFIG, Path(scratch) / CONFIG)
    return _finding("round trip", faults, f"{len(files.names())} tensors and config are the same")


def check_vllm(folder: Path) -> CheckResult:
    """Let vLLM's own loader take the tensors, without memory for them, in another process."""
    if importlib.util.find_spec("vllm") is None:
        return CheckResult("vllm", True, "not installed here; not checked")
    quiet = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            child_command("launch.models.vllm_loader", str(folder)),
            env=module_environment({**os.environ, **quiet}),
            capture_output=True,
            text=True,
            check=False,
            timeout=_VLLM_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return CheckResult("vllm", False, f"its loader did not answer in {_VLLM_TIMEOUT_S:.0f} s")
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return CheckResult(
        "vllm", done.returncode == 0, lines[-1] if lines else "its loader said nothing"
    )


def _config_changes(before: Path, after: Path) -> list[str]:
    old, new = read_json_object(before), read_json_object(after)
    ignored = {"dtype", "torch_dtype"}
    keys = (old.keys() | new) - ignored
    return [f"config.{key} changed" for key in sorted(keys) if old.get(key) != new.get(key)]


def _scratch(folder: Path) -> str:
    """Beside the folder, where a model of this size has room; else the usual place."""
    return str(folder.parent) if os.access(folder.parent, os.W_OK) else tempfile.gettempdir()


def _finding(name: str, faults: Sequence[str], detail: str) -> CheckResult:
    shown = "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")
    return CheckResult(name, not faults, shown or detail)
