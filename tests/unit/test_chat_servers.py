"""Chat servers say the same things in many forms; all that are known are understood."""

import json
from types import SimpleNamespace

import pytest

from actors.agent.chat_answer import AnswerStream
from actors.agent.chat_conversation import ChatConversation
from actors.agent.chat_models import read_models
from actors.agent.conversation import ContextTooLong
from common.errors import PolicyServerError
from tests.chat_server import ChatServer, replies
from tests.chat_talk import ACTION, sampled, talk

NOISE: tuple[object, ...] = (
    *(None, {}, [], 3, {"choices": None}, {"choices": []}, {"choices": [None]}),
    *({"choices": [{"index": 0}]}, {"choices": [{"index": 0, "delta": None}]}),
    *({"choices": [], "usage": []}, {"choices": [{"delta": {"content": None}}]}),
)


@pytest.mark.parametrize("parts", [True, False], ids=["parts", "text"])
def test_pieces_of_a_stream_that_say_nothing_are_skipped(parts: bool) -> None:
    with ChatServer(replies(ACTION), noise=NOISE, parts=parts) as server:
        text, pieces = sampled(server)

    assert text == ACTION
    assert "".join(pieces) == ACTION.removesuffix("</code>")
    assert len(server.requests) == 1


def test_a_content_may_come_in_parts_with_thoughts_among_them() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "so <code>"}]}
    stream = AnswerStream("</code>")
    stream.take(SimpleNamespace(content=[thinking, "x", {"type": "text", "text": "<code>1"}]))

    assert stream.text == "<think>so < code></think>x<code>1"


@pytest.mark.parametrize(
    "listing",
    [
        [{"id": "m"}],
        ["m"],
        {"models": [{"name": "m"}, {"size": 3}]},
        {"object": "list", "data": [None, {"id": "m", "max_model_len": 4096}]},
    ],
    ids=["list", "names", "models", "null"],
)
def test_models_are_read_in_any_form_of_list(listing: object) -> None:
    (model,) = read_models(json.dumps(listing))

    assert model.name == "m"
    with ChatServer(replies(ACTION), models=("m",), listing=listing) as server:
        assert sampled(server)[0] == ACTION


@pytest.mark.parametrize("body", ["null", "{}", "3", '{"data": null}', "[" * 100_000, "<html>"])
def test_an_answer_without_a_list_of_models_is_refused(body: str) -> None:
    with pytest.raises(ValueError, match=r"list of models|too deep|Expecting value"):
        read_models(body)


def test_halves_of_characters_are_joined_and_lone_ones_are_question_marks() -> None:
    stream = AnswerStream("")
    for piece in ("a\ud83d", "\ude00b", "\udc00", "\ud83d"):
        stream.take(SimpleNamespace(content=piece))

    assert stream.text == "a\U0001f600b??"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "Input is odd", "error_type": "validation"}, "Input is odd"),
        ({"detail": "no such thing"}, "no such thing"),
        ({"detail": [{"loc": ["body", "n"], "msg": "Field required"}]}, r"required \(at body.n\)"),
        ({"error": {"message": {"detail": "deep"}}}, "deep"),
        ({"message": "", "errors": ["one", {"reason": "two"}]}, "one; two"),
        ("just text", "just text"),
        ({"unknown": 1}, "Error code: 422"),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_the_servers_own_words_are_told(body: object, said: str, streamed: bool) -> None:
    async def work(conversation: ChatConversation) -> None:
        on_delta = print if streamed else None
        await conversation.sample(0, max_tokens=50, on_delta=on_delta)

    with (
        ChatServer(replies(ACTION), faults=[(422, body)]) as server,
        pytest.raises(PolicyServerError, match=rf"answered 422: .*{said}"),
    ):
        talk(server, work)


@pytest.mark.parametrize(
    "fault",
    [
        (413, {"error": "Request Entity Too Large"}),
        (422, {"error": "`inputs` must have less than 4096 tokens. Given: 9000"}),
        (422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 9000"}),
        (400, {"message": "The prompt is too long"}),
    ],
)
def test_a_context_that_is_too_long_is_known_from_any_server(fault: tuple[int, object]) -> None:
    with (
        ChatServer(replies(ACTION), faults=[fault, fault]) as server,
        pytest.raises(ContextTooLong),
    ):
        sampled(server)
