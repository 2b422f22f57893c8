"""Conversations become what the policy would have seen and said, with the right weights."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from common.errors import InputError
from learner.engine.tokenizer import load_tokenizer
from learner.sft.fields import Span
from learner.sft.traces import chat_template, conversation_sequences, read_traces
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
    assert chat.name == f"trace file '{path}' line 2"


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


def refusal(tmp_path: Path, line: Any, *, render: Any = chatml) -> str:
    """What is said of a file with this line, which is the third; the second is blank."""
    path = tmp_path / "bad.jsonl"
    good = json.dumps({"segments": [{"text": "x", "action": False}, {"text": "y", "action": True}]})
    text = line if isinstance(line, bytes) else json.dumps(line).encode()
    path.write_bytes(good.encode() + b"\n\n" + text + b"\n")
    tokenizer = load_tokenizer(make_text_model(tmp_path / "model") / "tokenizer.json")
    with pytest.raises(InputError) as error:
        read_traces(path, tokenizer, 0.3, render=render)
    assert "bad.jsonl" in str(error.value)
    assert "line 3" in str(error.value)
    return str(error.value)


CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"segments": [{"text": None, "action": True}]}, "'segments[0].text' must be a text"),
        ({"segments": [{"text": 3, "action": True}]}, "'segments[0].text' must be a text, got 3"),
        ({"segments": [{"text": "x", "action": "false"}]}, "'segments[0].action' must be true or"),
        ({"segments": [{"text": "x", "action": 1}]}, "'segments[0].action' must be true or false"),
        ({"segments": [{"text": "x"}]}, "field 'segments[0].action' is missing"),
        ({"segments": {"text": "x"}}, "field 'segments' must be a list of objects"),
        ({"segments": ["x"]}, "field 'segments[0]' must be an object, got 'x'"),
        ({"segments": []}, "it has no text"),
        ({"segments": [{"text": "x", "action": True, "weight": -1}]}, "weight' must be a number"),
        ({"segments": [{"text": "x", "action": True, "weight": True}]}, "weight' must be a number"),
        ({"segments": [{"text": "x", "action": True, "weight": "1"}]}, "weight' must be a number"),
        ({"segments": [], "messages": []}, 'expected {"segments"'),
        ({"messages": [USER_A, {"role": "assistant", "content": None}]}, "'messages[1].content'"),
        ({"messages": [USER_A, {"role": "assistant"}]}, "'messages[1].content' must be a text"),
        ({"messages": [{"role": "user", "content": 7}, SAYS_A]}, "'messages[0].content' must be"),
        ({"messages": [{"role": None, "content": "x"}]}, "'messages[0].role' must be a text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, SAYS_A]},
            "'messages[0].content[0]' must be",
        ),
        ({"messages": [USER_A, SAYS_A | {"weight": -0.5}]}, "'messages[1].weight' must be a"),
        ({"messages": [USER_A, SAYS_A], "tools": "all"}, "'tools' must be a list of objects"),
        ({"messages": [USER_A, SAYS_A], "tools": [{"name": "f"}]}, "writes nothing of 'tools'"),
        (b'{"segments": [{"text": "\\ud83d", "action": true}]}', "segments[0].text"),
        ("Zürich".encode("latin-1"), "is not UTF-8"),
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"segments": [{"text": "x", "action": true, "weight": NaN}]}', "NaN"),
        (b'{"segments": [{"text": "x", "action": true, "weight": 1e999}]}', "too large"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_file_line_and_path(
    tmp_path: Path, line: Any, said: str
) -> None:
    assert said in refusal(tmp_path, line, render=with_tools if "tools" in str(line) else chatml)


def with_tools(messages: Any, answering: bool, tools: Any = None) -> str:
    """A template that has heard of tools, but does not write them."""
    return chatml(messages, answering)


def test_a_byte_order_mark_blank_lines_and_other_line_ends_change_nothing(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_text_model(tmp_path / "model") / "tokenizer.json")
    line = json.dumps({"segments": [{"text": "a\u2028b", "action": False}, {"text": "é", "action":
                       True}]}, ensure_ascii=False).encode()  # fmt: skip
    (tmp_path / "plain.jsonl").write_bytes(line + b"\n" + line)
    (tmp_path / "odd.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n  \n" + line + b"\r\n")

    plain, odd = (
        [e.token_ids.tolist() for e in read_traces(tmp_path / f"{name}.jsonl", tokenizer, 0.3)]
        for name in ("plain", "odd")
    )

    assert plain == odd
    assert len(plain) == 2


def test_a_call_of_a_tool_has_no_text_and_parts_of_text_are_one(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_text_model(tmp_path / "model") / "tokenizer.json")
    parts = [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}]
    messages = [{"role": "user", "content": parts}, CALL]
    (tmp_path / "t.jsonl").write_text(json.dumps({"messages": messages}))

    (example,) = read_traces(tmp_path / "t.jsonl", tokenizer, 0.3, render=chatml)

    text = tokenizer.decode(example.token_ids.tolist(), skip_special_tokens=False)
    assert text == "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"


def test_the_template_is_told_of_the_tools_of_a_conversation(tmp_path: Path) -> None:
    template = "{% if tools %}[{{ tools[0].name }}]{% endif %}" + CHAT_TEMPLATE
    folder = make_text_model(tmp_path / "model", template=template)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    line = {"messages": [USER_A, SAYS_A], "tools": [{"name": "look_up"}]}
    (tmp_path / "t.jsonl").write_text(json.dumps(line))

    (example,) = read_traces(tmp_path / "t.jsonl", tokenizer, 0.3, render=chat_template(folder))

    text = tokenizer.decode(example.token_ids.tolist(), skip_special_tokens=False)
    assert text.startswith("[look_up]<|im_start|>user\n")


@pytest.mark.parametrize(
    "segments",
    [
        [{"text": "abc", "action": False}],
        [{"text": "abc", "action": True, "weight": 0}],
        [{"text": "a", "action": True}],
    ],
)
def test_a_file_without_anything_to_learn_is_refused(tmp_path: Path, segments: Any) -> None:
    tokenizer = load_tokenizer(make_text_model(tmp_path / "model") / "tokenizer.json")
    (tmp_path / "t.jsonl").write_text(json.dumps({"segments": segments}))

    with pytest.raises(InputError, match=r"t\.jsonl' holds nothing to learn"):
        read_traces(tmp_path / "t.jsonl", tokenizer, 0.0)


def test_a_tokenizer_that_cuts_and_fills_up_texts_does_neither_in_training(tmp_path: Path) -> None:
    path = make_text_model(tmp_path / "model") / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(path))
    (tmp_path / "t.jsonl").write_text(
        json.dumps(
            {"segments": [{"text": "a" * 20, "action": False}, {"text": "b", "action": True}]}
        )
    )

    (example,) = read_traces(tmp_path / "t.jsonl", load_tokenizer(path), 0.3)

    assert len(example) == 21
