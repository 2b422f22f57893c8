"""The models that a chat server lists, in whatever form it lists them. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import PolicyServerError

_SHOWN_MODELS = 20
_NAMES = ("id", "name", "model")
"""Where servers put the name of a model."""
_LISTS = ("data", "models")
"""Where they put their list, unless the answer is the list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """A model as its server describes it.

    Attributes:
        name: what requests call it.
        max_context: the longest context in tokens; None where the server does not tell.
        keeps_tags: False where tags that are special tokens must be asked for (vLLM).
    """

    name: str
    max_context: int | None = None
    keeps_tags: bool = True


def read_models(body: str) -> tuple[ServedModel, ...]:
    """The models in the body of ``GET /models``; entries without a name are left out.

    Raises:
        ValueError: it holds no list of models.
    """
    try:
        answer = json.loads(body)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deep") from error
    if isinstance(answer, dict):
        answer = next((answer[name] for name in _LISTS if isinstance(answer.get(name), list)), None)
    if not isinstance(answer, list):
        raise ValueError(f"expected a list of models, got {body[:200]!r}")
    found = (_served(entry) for entry in answer)
    return tuple(model for model in found if model is not None)


def choose_model(name: str, models: Sequence[ServedModel], url: str) -> ServedModel:
    """The model called ``name``; the only one where that is empty.

    Raises:
        PolicyServerError: it is not clear which one is meant.
    """
    if not name and len(models) != 1:
        raise PolicyServerError(
            f"server {url} has {listed([model.name for model in models])}; say which model to use"
        )
    known = (model for model in models if not name or model.name == name)
    return next(known, ServedModel(name=name))  # else an alias; the first request will tell


def listed(names: Sequence[str]) -> str:
    """The names of a server's models."""
    shown = ", ".join(repr(name) for name in names[:_SHOWN_MODELS])
    more = f" and {len(names) - _SHOWN_MODELS} more" if len(names) > _SHOWN_MODELS else ""
    return f"these models: {shown}{more}" if names else "no models"


def _served(entry: Any) -> ServedModel | None:
    if isinstance(entry, str) and entry:
        return ServedModel(name=entry)
    if not isinstance(entry, dict):
        return None
    name = next((entry[key] for key in _NAMES if isinstance(entry.get(key), str)), "")
    if not name:
        return None
    length = entry.get("max_model_len")
    return ServedModel(
        name=name,
        max_context=length if type(length) is int and length > 0 else None,
        keeps_tags=entry.get("owned_by") != "vllm",
    )
