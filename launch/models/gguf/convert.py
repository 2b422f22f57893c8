"""``lzero import-gguf``: writes a Hugging Face folder from a GGUF file, de-quantised.

Tensors go through memory a few MiB at a time, so that a model needs no more of it than its file
has pages in use. The folder gets its name when it is whole.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig

from common.errors import InputError, MachineError
from launch.models.gguf.description import ending_tokens, model_description
from launch.models.gguf.file import GgufFile, open_gguf
from learner.checkpoints.model_files import write_model_files
from learner.checkpoints.number_formats import FORMAT_OF_DTYPE

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedModel:
    """What was written."""

    family: str
    tensors: int
    num_bytes: int


def import_gguf(file: Path, out: Path, dtype: str = "bfloat16") -> ImportedModel:
    """Write a Hugging Face folder.

    Args:
        file: the GGUF file.
        out: folder to write; must not exist, or be empty.
        dtype: of the weights: float32, bfloat16 or float16.

    Raises:
        InputError: the file cannot be used, or something is in the way of the folder.
        MachineError: a package is missing, or the folder cannot be written.
    """
    check_free(out)
    source = open_gguf(file)
    with _named(file):
        shapes = {name: tensor.shape for name, tensor in source.tensors.items()}
        description = model_description(source.metadata, shapes)
    out = out.expanduser().resolve()
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        written = _write(source, description, partial, FORMAT_OF_DTYPE[dtype])
        if out.exists():
            out.rmdir()
        os.rename(partial, out)
    except OSError as error:
        raise MachineError(f"'{out}' cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return written


def check_free(out: Path) -> None:
    """Check that a folder can be made.

    Raises:
        InputError: it exists and is not empty, or there is no folder to make it in.
    """
    folder = out.expanduser()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"'{out}' exists and is not empty; name another folder with --out")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"'{folder.absolute().parent}' is no folder, so '{out}' cannot be made")


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Say which file it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"'{file}' cannot be imported: {error}") from error


def _write(
    source: GgufFile, description: Mapping[str, Any], folder: Path, number_format: str
) -> ImportedModel:
    from launch.models.gguf.tensors import hugging_face_weights

    with _named(source.path):
        weights = hugging_face_weights(source.tensors, description, number_format)
    folder.mkdir()
    source.tokenizer.save_pretrained(folder)
    _write_config(source.metadata, description, folder)
    digests = write_model_files(weights, folder, folder, number_format)
    return ImportedModel(
        family=description["model_type"],
        tensors=len(weights),
        num_bytes=sum(digest.num_bytes for digest in digests.values()),
    )


def _write_config(
    metadata: Mapping[str, Any], description: Mapping[str, Any], folder: Path
) -> None:
    values = dict(description)
    family = values.pop("model_type")
    config = AutoConfig.for_model(family, **values)
    config.architectures = [_ARCHITECTURES[family]]
    config.save_pretrained(folder)
    ends = list(ending_tokens(metadata))
    GenerationConfig(
        bos_token_id=description["bos_token_id"],
        eos_token_id=ends[0] if len(ends) == 1 else ends or None,
        pad_token_id=description["pad_token_id"],
    ).save_pretrained(folder)
