"""What a model folder's config.json says, and whether this project can train such a model.

Read here once, so that learner, policy server and the checks before a run agree. The file is also
read by transformers and vLLM, so what they would refuse is refused.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import InputError

CONFIG = "config.json"
FAMILIES = ("qwen2", "qwen3", "llama")
"""What ``model_type`` may be: the families that are supported and tested."""

_BOM = b"\xef\xbb\xbf"
_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


def read_model_config(folder: Path) -> dict[str, Any]:
    """The object in ``config.json`` of a model folder, of a model that can be trained.

    Raises:
        InputError: the folder or the file is missing, it cannot be read, or describes a model of
            another family, a quantised one, or one without the usual sizes; names file and key.
    """
    if not folder.is_dir():
        raise InputError(
            f"model.path '{folder}' is not a folder; expected a local Hugging Face folder with "
            "config.json, safetensors and tokenizer files"
        )
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"model folder '{folder}' has no {CONFIG}")
    config = read_json_object(path)
    _check_kind(config, path)
    for key in _SIZES:
        _check_size(config, key, path)
    for key in ("num_key_value_heads", "head_dim", "max_position_embeddings"):
        if config.get(key) is not None:
            _check_size(config, key, path)
    return config


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder.

    Raises:
        InputError: it is missing, or no JSON object in UTF-8; names the file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        what = "model configuration" if path.name == CONFIG else "file"
        raise InputError(f"'{path}' is not a readable {what}: {error.strerror}") from error
    if data.startswith(_BOM):
        raise InputError(
            f"'{path}' begins with a byte order mark, which neither transformers nor vLLM reads; "
            "save it as UTF-8 without one"
        )
    try:
        value = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not UTF-8: {error.reason}") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"'{path}' is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not usable JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"'{path}' must hold a JSON object, got {type(value).__name__}")
    return value


def longest_context(config: Mapping[str, Any], path: Path) -> int | None:
    """How many tokens the model takes, with the scaling of positions that its config asks for.

    YaRN takes ``factor`` times the length it was trained at, whatever ``max_position_embeddings``
    says; linear scaling ``factor`` times that. Scaling that changes with the length of a text is
    not counted: the learner sees many texts at once.

    Args:
        config: of the model.
        path: of the file, for messages.

    Returns:
        Tokens; None where the config does not say.

    Raises:
        InputError: the scaling is not described as it should be.
    """
    longest = config.get("max_position_embeddings")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise InputError(f"'{path}': rope_parameters must be an object, got {rope!r:.60}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("yarn", "linear") or longest is None:
        return longest
    factor = rope.get("factor", 1.0)
    trained = rope.get("original_max_position_embeddings", longest)
    for name, value in (("factor", factor), ("original_max_position_embeddings", trained)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**31:
            raise InputError(f"'{path}': '{name}' of its rope scaling is {value!r:.60}")
    return max(longest, int(trained * factor)) if kind == "yarn" else int(longest * factor)


def _check_kind(config: Mapping[str, Any], path: Path) -> None:
    family = config.get("model_type")
    if family not in FAMILIES:
        raise InputError(
            f"model folder '{path.parent}' is of family {family!r}; supported are "
            f"{', '.join(FAMILIES)}"
        )
    if config.get("quantization_config") is not None:
        raise InputError(
            f"'{path}': the model is quantised (quantization_config); quantised models cannot be "
            "trained, use the original"
        )


def _check_size(config: Mapping[str, Any], key: str, path: Path) -> None:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise InputError(
            f"'{path}' lacks or misstates '{key}': expected a whole number above 0, "
            f"got {value!r:.60}"
        )
