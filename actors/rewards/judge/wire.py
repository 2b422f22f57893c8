"""What an actor and its judge processes say to each other: length-prefixed msgpack, no pickles.

A judge process runs code of the user's, so that what it answers is checked field by field.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import msgpack
import numpy as np

from actors.rewards.scorer import Scored
from common.config import Rewards
from common.errors import ProtocolError
from common.json_input import surrogate_in
from common.wire.records import Outcome, Step, Task

LENGTH = struct.Struct("<Q")
"""Comes before every frame: its length in bytes."""

MAX_ANSWER_BYTES = 16 << 20
"""No honest answer of a judge is longer."""

MAX_FAILURE_CHARACTERS = 2000
"""What a user's exception says is cut there: it travels with the trajectory."""

_LARGEST = float(np.finfo(np.float32).max)
_TASK = tuple(field.name for field in fields(Task))
_STEP = tuple(field.name for field in fields(Step))


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """First frame to a judge.

    Attributes:
        path: module search path of the actor, so that the same packages are found.
        kinds: task types of the user's own.
        rewards: the section ``[rewards]``.
    """

    path: tuple[str, ...]
    kinds: tuple[str, ...]
    rewards: Rewards


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionRequest:
    """Asks what the policy is asked for a task."""

    task: Task


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRequest:
    """Asks what an episode is worth; ``measured`` where the actor measured the answer itself."""

    task: Task
    answer: str | None
    steps: tuple[Step, ...]
    outcome: Outcome
    measured: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A term or task type, called ``plugin``, failed; ``text`` is for the person who wrote it."""

    plugin: str
    text: str


Answer = str | Scored | Failure
"""Of a judge: a question, scores, or a failure; to a ``Setup`` an empty text or a failure."""


def pack_setup(setup: Setup) -> bytes:
    """A frame."""
    return _frame([setup.path, setup.kinds, asdict(setup.rewards)])


def unpack_setup(data: bytes) -> Setup:
    """The inverse, in the judge."""
    path, kinds, rewards = _unpacked(data)
    return Setup(path=tuple(path), kinds=tuple(kinds), rewards=Rewards(**rewards))


def pack_request(request: QuestionRequest | ScoreRequest) -> bytes:
    """A frame."""
    task = [getattr(request.task, name) for name in _TASK]
    if isinstance(request, QuestionRequest):
        return _frame([task])
    steps = [[getattr(step, name) for name in _STEP] for step in request.steps]
    measured = None if request.measured is None else dict(request.measured)
    return _frame([task, request.answer, steps, request.outcome.value, measured])


def unpack_request(data: bytes) -> QuestionRequest | ScoreRequest:
    """The inverse, in the judge."""
    task_values, *rest = _unpacked(data)
    task = Task(**dict(zip(_TASK, map(_frozen, task_values), strict=True)))
    if not rest:
        return QuestionRequest(task=task)
    answer, steps, outcome, measured = rest
    return ScoreRequest(
        task=task,
        answer=answer,
        steps=tuple(
            Step(**dict(zip(_STEP, map(_frozen, values), strict=True))) for values in steps
        ),
        outcome=Outcome(outcome),
        measured=measured,
    )


def pack_answer(answer: Answer) -> bytes:
    """A frame."""
    if isinstance(answer, str):
        return _frame(["asked", answer])
    if isinstance(answer, Failure):
        text = answer.text[:MAX_FAILURE_CHARACTERS].encode("utf-8", "replace").decode()
        return _frame(["failed", answer.plugin, text])
    return _frame(["scored", answer.step_rewards.tolist(), answer.scores])


def unpack_answer(data: bytes, *, steps: int) -> Answer:
    """The inverse, in the actor, with a look at everything.

    Args:
        data: a frame without its length.
        steps: of the episode that was to be scored.

    Raises:
        ProtocolError: it is no answer, or not one to that episode.
    """
    try:
        kind, *rest = _unpacked(data)
        if kind == "asked":
            return _text(*rest)
        if kind == "failed":
            plugin, text = rest
            return Failure(plugin=_text(plugin), text=_text(text))
        if kind == "scored":
            rewards, scores = rest
            return Scored(step_rewards=_rewards(rewards, steps), scores=_scores(scores))
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a judge process answered nonsense: {error}") from error
    raise ProtocolError(f"a judge process answered nonsense: {str(kind)[:60]!r}")


def _rewards(values: Sequence[object], steps: int) -> "np.ndarray[Any, np.dtype[np.float32]]":
    if not isinstance(values, list) or len(values) != steps:
        raise ValueError(f"expected {steps} rewards")
    return np.array([_number(value) for value in values], dtype=np.float32)


def _scores(values: Mapping[str, object]) -> dict[str, float]:
    if not isinstance(values, dict):
        raise ValueError("expected a map of scores")
    return {_text(name): _number(value) for name, value in values.items()}


def _number(value: object) -> float:
    if not isinstance(value, float) or not abs(value) <= _LARGEST:
        raise ValueError(f"expected a number that float32 holds, got {value!r}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or surrogate_in(value) is not None:
        raise TypeError(f"expected a text, got {value!r:.60}")
    return value


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _frame(value: Any) -> bytes:
    # Text of cells may hold halves of surrogate pairs; they come out as they went in.
    body: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return LENGTH.pack(len(body)) + body


def _unpacked(data: bytes) -> Any:
    return msgpack.unpackb(data, unicode_errors="surrogatepass")
