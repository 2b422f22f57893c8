"""Writes plain Hugging Face folders, which any tool can load; needs no torch.

Weights go to ``model.safetensors``, or where they are larger than a limit to
``model-00001-of-00003.safetensors`` and so on with ``model.safetensors.index.json``. Never more
than a few MiB of them are held in memory.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.model_config import CONFIG, read_json_object
from common.weight_index import INDEX, WEIGHTS
from learner.checkpoints.digests import Digest, Hasher, digest_of, write_file
from learner.checkpoints.number_formats import BYTES, Raw
from learner.checkpoints.shard_header import Piece, make_header

COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
"""What a model folder holds beside its weights, where it is there."""

MAX_FILE_BYTES = 5 * 10**9
"""Default size of a weights file, as transformers writes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """A tensor to be written.

    Attributes:
        name: its Hugging Face name.
        shape: of the tensor.
        blocks: makes its bits, in order, already in the format of the file.
    """

    name: str
    shape: tuple[int, ...]
    blocks: Callable[[], Iterable[Raw]]


def write_model_files(
    weights: Sequence[Weight],
    source: Path,
    destination: Path,
    number_format: str,
    *,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> dict[str, Digest]:
    """Write weights beside config and tokenizer of the model they come from.

    Args:
        weights: all tensors of the model, tied ones once.
        source: folder the model was loaded from.
        destination: folder to write; made if needed, other files in it stay.
        number_format: F32, BF16 or F16.
        max_file_bytes: a larger model is split into several files; one tensor never is.

    Returns:
        Digests of all files written, by name; they are on the disk itself.

    Raises:
        InputError: the source has no readable config.
    """
    destination.mkdir(parents=True, exist_ok=True)
    _remove_weights(destination)
    digests = _write_weights(weights, destination, number_format, max_file_bytes)
    for name in COPIED:
        if name != CONFIG and (source / name).is_file():
            if source.resolve() != destination.resolve():
                _copy(source / name, destination / name)
            digests[name] = digest_of(destination / name)
    digests[CONFIG] = write_file(destination / CONFIG, _config_with_dtype(source, number_format))
    return digests


def _write_weights(
    weights: Sequence[Weight], folder: Path, number_format: str, max_file_bytes: int
) -> dict[str, Digest]:
    pieces = [_piece(weight, number_format) for weight in weights]
    pieces.sort(key=lambda piece: piece.name)
    blocks = {weight.name: weight.blocks for weight in weights}
    parts = _split(pieces, max_file_bytes)
    if len(parts) == 1:
        return {WEIGHTS: _write_part(folder / WEIGHTS, parts[0], blocks)}
    digests: dict[str, Digest] = {}
    weight_map: dict[str, str] = {}
    for number, part in enumerate(parts, start=1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        digests[name] = _write_part(folder / name, part, blocks)
        weight_map |= {piece.name: name for piece in part}
    total = sum(piece.num_bytes for piece in pieces)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    digests[INDEX] = write_file(folder / INDEX, text.encode())
    return digests


def _piece(weight: Weight, number_format: str) -> Piece:
    return Piece(
        name=weight.name,
        format=number_format,
        shape=weight.shape,
        offset=(0,) * len(weight.shape),
        whole=weight.shape,
    )


def _split(pieces: Sequence[Piece], max_bytes: int) -> list[list[Piece]]:
    parts: list[list[Piece]] = [[]]
    filled = 0
    for piece in pieces:
        if parts[-1] and filled + piece.num_bytes > max_bytes:
            parts.append([])
            filled = 0
        parts[-1].append(piece)
        filled += piece.num_bytes
    return parts


def _write_part(
    path: Path, pieces: Sequence[Piece], blocks: Mapping[str, Callable[[], Iterable[Raw]]]
) -> Digest:
    hasher = Hasher()
    with path.open("wb") as file:
        header = make_header(pieces, {"format": "pt"})
        hasher.update(header)
        file.write(header)
        for piece in pieces:
            written = 0
            for block in blocks[piece.name]():
                if block.nbytes:
                    data = block.reshape(-1).view(np.uint8).data
                    hasher.update(data)
                    written += file.write(data)
            if written != piece.num_bytes:
                raise ValueError(
                    f"tensor '{piece.name}' gave {written} bytes; its shape {list(piece.shape)} "
                    f"of {BYTES[piece.format]}-byte numbers takes {piece.num_bytes}"
                )
        file.flush()
        os.fsync(file.fileno())
    return hasher.digest()


def _copy(source: Path, destination: Path) -> None:
    shutil.copyfile(source, destination)
    with destination.open("rb") as file:
        os.fsync(file.fileno())


def _config_with_dtype(source: Path, number_format: str) -> bytes:
    path = source / CONFIG
    names = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
    config = read_json_object(path)
    config.pop("torch_dtype", None)
    config["dtype"] = names[number_format]
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()


def _remove_weights(folder: Path) -> None:
    """What an earlier model left would be loaded beside the new weights."""
    for path in (*folder.glob("model-*-of-*.safetensors"), folder / INDEX):
        path.unlink(missing_ok=True)
