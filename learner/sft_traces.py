"""Reads what supervised fine-tuning learns from: traces in our grammar, and conversations.

A line of the file is either ``{"segments": [{"text": ..., "action": true or false}, ...]}``, text
as it is, or ``{"messages": [{"role": "user", "content": ...}, ...]}``, which the chat template of
the model writes. The loss counts actions and what the assistant says in full, the rest by a smaller
weight; a segment or message may name its own ``weight``.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from common.errors import InputError
from learner.packs.packing import PackableSegment, segment_of_examples

EXPECTED = (
    '{"segments": [{"text": ..., "action": ...}]} or {"messages": [{"role": ..., "content": ...}]}'
)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text with its loss weight."""

    text: str
    weight: float


Render = Callable[[Sequence[dict[str, Any]], bool], str]
"""Messages, and whether the assistant is to speak next, to text: a chat template."""


def read_traces(
    path: Path,
    tokenizer: Tokenizer,
    context_weight: float,
    *,
    render: Render | None = None,
    max_tokens: int = 0,
) -> list[PackableSegment]:
    """Encode a trace file span by span, as rollouts do.

    Args:
        path: the file.
        tokenizer: of the model.
        context_weight: loss weight of what the policy would not have sampled.
        render: the model's chat template, for lines with ``messages``.
        max_tokens: longest sequence; 0 for any.

    Returns:
        One segment per trace; of a conversation whose template writes earlier turns anew, several.

    Raises:
        InputError: the file is missing, empty or malformed, or a trace is too long; names file
            and line.
    """
    examples = []
    for number, entry in _lines(path):
        where = f"trace file '{path}' line {number}"
        for spans in _sequences(entry, context_weight, render, where):
            segment = _encode(spans, tokenizer, name=f"{path}:{number}")
            if max_tokens and len(segment) > max_tokens:
                raise InputError(
                    f"{where}: it has {len(segment)} tokens, but a pack holds {max_tokens}; raise "
                    "--pack-tokens or shorten the trace"
                )
            examples.append(segment)
    if not examples:
        raise InputError(f"trace file '{path}' is empty")
    return examples


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        lines = path.open(encoding="utf-8")
    except OSError as error:
        raise InputError(f"trace file '{path}' cannot be read: {error}") from error
    with lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise InputError(
                    f"trace file '{path}' line {number}: expected {EXPECTED}, got {error!r}"
                ) from error


def _sequences(
    entry: Any, context_weight: float, render: Render | None, where: str
) -> list[list[Span]]:
    try:
        if "messages" in entry:
            if render is None:
                raise InputError(
                    f"{where}: a conversation needs a chat template, which this model folder has "
                    "not; put chat_template.jinja into it or give segments"
                )
            return conversation_sequences(entry["messages"], context_weight, render, where)
        spans = [_span(segment, context_weight) for segment in entry["segments"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where}: expected {EXPECTED}, got {error!r}") from error
    if not spans or not spans[0].text:
        raise InputError(f"{where}: it has no text")
    return [spans]


def _span(entry: dict[str, Any], context_weight: float) -> Span:
    default = 1.0 if entry["action"] else context_weight
    return Span(str(entry["text"]), float(entry.get("weight", default)))


def conversation_sequences(
    messages: Sequence[dict[str, Any]], context_weight: float, render: Render, where: str
) -> list[list[Span]]:
    """What the template makes of a conversation, as the policy would have seen and sampled it.

    A template may write earlier turns differently once the conversation goes on (some leave out
    past thoughts). Then a new sequence begins, whose context has no weight: it was learnt before.

    Args:
        messages: with ``role``, ``content`` and perhaps ``weight``.
        context_weight: weight of what comes before the first answer.
        render: the template.
        where: file and line, for messages.

    Raises:
        InputError: nobody answers, or the template does not lead from a prompt to its answer.
    """
    sequences: list[list[Span]] = []
    written = ""
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = render(messages[:index], True)
        whole = render(messages[: index + 1], False)
        if not prompt or not whole.startswith(prompt):
            raise InputError(
                f"{where}: the chat template does not write message {index} as a continuation of "
                "its prompt; give the text as segments instead"
            )
        if sequences and prompt.startswith(written):
            sequences[-1].append(Span(prompt[len(written) :], context_weight))
        else:
            sequences.append([Span(prompt, 0.0 if sequences else context_weight)])
        weight = float(message.get("weight", 1.0))
        sequences[-1].append(Span(whole[len(prompt) :], weight))
        written = whole
    if not sequences:
        raise InputError(
            f"{where}: no message of it is the assistant's, so there is nothing to learn"
        )
    return sequences


def chat_template(folder: Path) -> Render | None:
    """The chat template of a model folder; None where it has none.

    Raises:
        InputError: a conversation cannot be written with it, when it is used.
    """
    from jinja2 import TemplateError
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    if not tokenizer.chat_template:
        return None

    def render(messages: Sequence[dict[str, Any]], answering: bool) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=answering
                )
            )
        except TemplateError as error:
            raise InputError(
                f"the chat template of '{folder}' refuses a conversation: {error}"
            ) from error

    return render


def _encode(spans: Sequence[Span], tokenizer: Tokenizer, *, name: str) -> PackableSegment:
    encodings = tokenizer.encode_batch([span.text for span in spans], add_special_tokens=False)
    ids: list[int] = []
    weights: list[float] = []
    for encoding, span in zip(encodings, spans, strict=True):
        ids += encoding.ids
        weights += [span.weight] * len(encoding.ids)
    weights[0] = 0.0
    return segment_of_examples(ids, weights, name=name)
