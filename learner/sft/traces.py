"""Reads what supervised fine-tuning learns from: traces in our grammar, and conversations.

A line of the file is either ``{"segments": [{"text": ..., "action": true or false}, ...]}``, text
as it is, or ``{"messages": [{"role": "user", "content": ...}, ...]}``, perhaps with ``tools``,
which the chat template of the model writes. The loss counts actions and what the assistant says in
full, the rest by a smaller weight; a segment or message may name its own ``weight``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from common.errors import InputError
from common.json_input import numbered_lines, parse_json
from learner.packs.packing import PackableSegment, segment_of_examples
from learner.sft.fields import EXPECTED, Span, messages_of, spans_of, tools_of

Render = Callable[..., str]
"""Messages, whether the assistant is to speak next, and perhaps ``tools``, to text: a chat
template."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """How lines become segments; see ``read_traces``."""

    tokenizer: Tokenizer
    context_weight: float
    render: Render | None
    max_tokens: int


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
        tokenizer: of the model, which neither cuts nor fills up texts.
        context_weight: loss weight of what the policy would not have sampled.
        render: the model's chat template, for lines with ``messages``.
        max_tokens: longest sequence; 0 for any.

    Returns:
        One segment per trace; of a conversation whose template writes earlier turns anew, several.

    Raises:
        InputError: the file is missing, empty, malformed, or without anything to learn, or a trace
            is too long; names file, line and field.
    """
    reading = _Reading(
        tokenizer=tokenizer, context_weight=context_weight, render=render, max_tokens=max_tokens
    )
    examples: list[PackableSegment] = []
    for number, text in numbered_lines(path, what="trace file"):
        examples += _segments(text, reading, f"trace file '{path}' line {number}")
    if not examples:
        raise InputError(f"trace file '{path}' is empty")
    if not any(example.weights.any() for example in examples):
        raise InputError(
            f"trace file '{path}' holds nothing to learn: every token has the weight 0, and the "
            "first of a trace always has"
        )
    return examples


def _segments(text: str, reading: _Reading, where: str) -> list[PackableSegment]:
    result = []
    for spans in _sequences(parse_json(text, where), reading, where):
        segment = _encode(spans, reading.tokenizer, where)
        if reading.max_tokens and len(segment) > reading.max_tokens:
            raise InputError(
                f"{where}: it has {len(segment)} tokens, but a pack holds {reading.max_tokens}; "
                "raise --pack-tokens or shorten the trace"
            )
        result.append(segment)
    return result


def _sequences(entry: Any, reading: _Reading, where: str) -> list[list[Span]]:
    if not isinstance(entry, dict) or ("segments" in entry) == ("messages" in entry):
        raise InputError(f"{where}: expected {EXPECTED}, got {entry!r:.80}")
    if "segments" in entry:
        return [spans_of(entry["segments"], reading.context_weight, where)]
    messages = messages_of(entry["messages"], where)
    render = reading.render
    if render is None:
        raise InputError(
            f"{where}: a conversation needs a chat template, which this model folder has not; put "
            "chat_template.jinja into it or give segments"
        )
    tools = tools_of(entry.get("tools"), where)
    if tools:
        render = _with_tools(render, tools, messages, where)
    return conversation_sequences(messages, reading.context_weight, render, where)


def _with_tools(
    render: Render, tools: list[dict[str, Any]], messages: list[dict[str, Any]], where: str
) -> Render:
    telling = partial(render, tools=tools)
    if telling(messages, False) == render(messages, False):
        raise InputError(
            f"{where}: the chat template writes nothing of 'tools'; leave them out, or use a model "
            "whose template does"
        )
    return telling


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
        InputError: nobody answers, or the template refuses the conversation, or does not lead from
            a prompt to its answer.
    """
    sequences: list[list[Span]] = []
    written = ""
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        try:
            prompt, whole = render(messages[:index], True), render(messages[: index + 1], False)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
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
        InputError: the tokenizer of the folder cannot be loaded; or a conversation cannot be
            written with the template, when it is used.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # it raises what it likes about damaged files
        raise InputError(f"the tokenizer of '{folder}' cannot be loaded: {error}") from error
    if not tokenizer.chat_template:
        return None

    def render(
        messages: Sequence[dict[str, Any]],
        answering: bool,
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    list(messages),
                    tools=None if tools is None else list(tools),
                    tokenize=False,
                    add_generation_prompt=answering,
                )
            )
        except Exception as error:  # a template is a program of somebody else's
            raise InputError(
                f"the chat template of '{folder}' refuses a conversation: {error}"
            ) from error

    return render


def _encode(spans: Sequence[Span], tokenizer: Tokenizer, where: str) -> PackableSegment:
    encodings = tokenizer.encode_batch([span.text for span in spans], add_special_tokens=False)
    ids: list[int] = []
    weights: list[float] = []
    for encoding, span in zip(encodings, spans, strict=True):
        ids += encoding.ids
        weights += [span.weight] * len(encoding.ids)
    if not ids:
        raise InputError(f"{where}: the tokenizer makes nothing of its text")
    weights[0] = 0.0
    return segment_of_examples(ids, weights, name=where)
