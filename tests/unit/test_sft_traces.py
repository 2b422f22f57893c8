"""Conversations become what the policy would have seen and said, with the right weights."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from common.errors import InputError
from learner.sft_traces import Span, chat_template, conversation_sequences, read_traces
from tests.tiny_text_model import CHAT_TEMPLATE, make_text_model

USER_A = {"role": "user", "content": "2 + 2?"}
SAYS_A = {"role": "assistant", "content": "4"}
USER_B = {"role": "user", "content": "And 3?"}
SAYS_B = {"role": "assistant", "content": "7"}


def chatml(messages: Sequence[dict[str, Any]], answering: bool) -> str:
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return text + ("<|im_start|>assistant\n" if answering else "")


def test_a_conversation_is_one_sequence_where_the_template_only_appends() -> None:
    (spans,) = conversation_sequences([USER_A, SAYS_A, USER_B, SAYS_B], 0.3, chatml, "here")

    assert spans == [
        Span("<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n", 0.3),
        Span("4<|im_end|>\n", 1.0),
        Span("<|im_start|>user\nAnd 3?<|im_end|>\n<|im_start|>assistant\n", 0.3),
        Span("7<|im_end|>\n", 1.0),
    ]


def test_a_template_that_rewrites_earlier_turns_gives_a_sequence_per_answer() -> None:
    def thoughtful(messages: Sequence[dict[str, Any]], answering: bool) -> str:
        """Shows thoughts only of the last message, as some templates do."""
        parts = []
        for place, message in enumerate(messages):
            thought = (
                "<hm>" if message["role"] == "assistant" and place == len(messages) - 1 else ""
            )
            parts.append(f"[{message['role']}]{thought}{message['content']}")
        return "".join(parts) + ("[assistant]" if answering else "")

    first, second = conversation_sequences([USER_A, SAYS_A, USER_B, SAYS_B], 0.3, thoughtful, "x")

    assert first == [Span("[user]2 + 2?[assistant]", 0.3), Span("<hm>4", 1.0)]
    assert second == [
        Span("[user]2 + 2?[assistant]4[user]And 3?[assistant]", 0.0),
        Span("<hm>7", 1.0),
    ]


def test_a_message_may_name_its_own_weight_and_what_nobody_answers_is_left_out() -> None:
    (spans,) = conversation_sequences(
        [USER_A, SAYS_A | {"weight": 0.5}, USER_B], 0.0, chatml, "here"
    )

    assert [span.weight for span in spans] == [0.0, 0.5]


def test_a_conversation_without_an_answer_is_refused() -> None:
    with pytest.raises(InputError, match="line 3: no message of it is the assistant's"):
        conversation_sequences([USER_A, USER_B], 0.3, chatml, "line 3")


def test_a_template_that_does_not_lead_to_the_answer_is_refused() -> None:
    def broken(messages: Sequence[dict[str, Any]], answering: bool) -> str:
        return "prompt" if answering else "something else"

    with pytest.raises(InputError, match=r"here: the chat template does not write message 1 as"):
        conversation_sequences([USER_A, SAYS_A], 0.3, broken, "here")


def test_a_file_may_mix_segments_and_conversations(tmp_path: Path) -> None:
    folder = make_text_model(tmp_path / "model")
    path = tmp_path / "traces.jsonl"
    segments = [{"text": "Who?", "action": False}, {"text": "Me.", "action": True}]
    lines = [{"segments": segments}, {"messages": [USER_A, SAYS_A, USER_B, SAYS_B]}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    plain, chat = read_traces(path, tokenizer, 0.25, render=chat_template(folder))

    assert plain.weights.tolist() == [0.0, 0.25, 0.25, 0.25, 1.0, 1.0, 1.0]
    text = tokenizer.decode(chat.token_ids.tolist(), skip_special_tokens=False)
    assert text == chatml([USER_A, SAYS_A, USER_B, SAYS_B], False)
    learnt = chat.token_ids[chat.weights == 1].tolist()
    assert tokenizer.decode(learnt, skip_special_tokens=False) == "4<|im_end|>\n7<|im_end|>\n"
    assert chat.name == f"{path}:2"


def test_a_conversation_for_a_model_without_template_says_what_to_do(tmp_path: Path) -> None:
    folder = make_text_model(tmp_path / "model", template="")
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps({"messages": [USER_A, SAYS_A]}) + "\n")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert chat_template(folder) is None

    with pytest.raises(InputError, match=r"line 1: a conversation needs a chat template"):
        read_traces(path, tokenizer, 0.3, render=chat_template(folder))


def test_a_conversation_that_the_template_refuses_is_an_input_error(tmp_path: Path) -> None:
    folder = make_text_model(
        tmp_path / "model", template="{{ raise_exception('no system here') }}" + CHAT_TEMPLATE
    )
    path = tmp_path / "traces.jsonl"
    path.write_text(json.dumps({"messages": [USER_A, SAYS_A]}) + "\n")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    with pytest.raises(InputError, match="refuses a conversation: no system here"):
        read_traces(path, tokenizer, 0.3, render=chat_template(folder))


@pytest.mark.parametrize(
    "line", ['{"messages": 3}', '{"messages": [{"content": "x"}]}', "[]", "7", '{"text": "x"}']
)
def test_a_line_of_another_form_is_named_with_what_was_expected(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"segments": [{"text": "x", "action": true}]}\n' + line + "\n")
    tokenizer = Tokenizer.from_file(str(make_text_model(tmp_path / "model") / "tokenizer.json"))

    with pytest.raises(InputError, match=r"bad\.jsonl' line 2: expected \{\"segments\""):
        read_traces(path, tokenizer, 0.3, render=chatml)


def test_a_trace_longer_than_a_pack_is_named_with_the_option_to_raise(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"segments": [{"text": "x" * 40, "action": True}]}) + "\n")
    tokenizer = Tokenizer.from_file(str(make_text_model(tmp_path / "model") / "tokenizer.json"))

    with pytest.raises(InputError, match=r"line 1: it has 40 tokens, but a pack holds 39; raise"):
        read_traces(path, tokenizer, 0.3, max_tokens=39)
