"""Chat servers say the same things in many forms; all that are known are understood."""

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from actors.agent.chat.answer import AnswerStream
from actors.agent.chat.conversation import ChatConversation
from actors.agent.chat.models import read_models
from actors.agent.chat.stream import read_chunks
from actors.agent.conversation import ContextTooLongError
from common.errors import PolicyServerError
from tests.chat_server import ChatServer, Raw, replies
from tests.chat_talk import ACTION, sampled, talk

NOISE: tuple[object, ...] = (
    *(None, {}, [], 3, {"choices": None}, {"choices": []}, {"choices": [None]}),
    *({"choices": [{"index": 0}]}, {"choices": [{"index": 0, "delta": None}]}),
    *({"choices": [], "usage": []}, {"choices": [{"delta": {"content": None}}]}),
)


MALFORMED = (b"{", b"[" * 100_000, b'"\xff', b"nonsense\ndata: more", b"1" * 5000)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_piece_of_a_stream_that_cannot_be_read_costs_that_piece(
    end: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    pieces = [piece for bad in MALFORMED for piece in (b'{"a": "\xe2\x80\xa8"}', bad)]
    body = b"".join(b"data: " + piece + b"\n\n" for piece in pieces) + b"data:2\n\ndata: [DONE]"
    body = body.replace(b"\n", end)

    async def received() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    async def read() -> list[object]:
        return [chunk async for chunk in read_chunks(received())]

    assert asyncio.run(read()) == [{"a": "\u2028"}] * len(MALFORMED) + [2]
    (warning,) = caplog.messages
    assert warning.startswith("piece of a stream left out reason=JSONDecodeError: ")


def test_a_stream_with_a_malformed_piece_is_no_broken_stream() -> None:
    with ChatServer(replies(ACTION), noise=(Raw("[" * 100_000), Raw("{"))) as server:
        text, pieces = sampled(server)

    assert text == ACTION
    assert "".join(pieces) == ACTION.removesuffix("</code>")
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", ["[" * 100_000, "{", "null"])
def test_a_whole_answer_that_cannot_be_read_is_no_traceback(body: str) -> None:
    with (
        ChatServer(replies(ACTION), faults=[(200, Raw(body))] * 3) as server,
        pytest.raises(PolicyServerError, match=server.url),
    ):
        sampled(server)


OVERLOADED = {"error": {"message": "model overloaded", "code": 503}}


@pytest.mark.parametrize("fault", [(200, OVERLOADED), "told"], ids=["body", "stream"])
def test_an_error_in_a_good_answer_is_tried_again_and_told(fault: object) -> None:
    with ChatServer(replies(ACTION), faults=[fault], told=OVERLOADED) as server:  # type: ignore[list-item]
        assert sampled(server)[0] == ACTION
    assert len(server.requests) == 2

    with (
        ChatServer(replies(ACTION), faults=[fault] * 2, told=OVERLOADED) as server,  # type: ignore[list-item]
        pytest.raises(PolicyServerError, match="answered 503 to 1 attempts: model overloaded"),
    ):
        sampled(server, attempts=1)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        ({"message": "no such role", "code": "400"}, PolicyServerError, "answered 400: no such"),
        (
            {"message": "no", "code": "context_length_exceeded"},
            ContextTooLongError,
            "answered 400: no",
        ),
        ("key", PolicyServerError, "answered 500 to 1 attempts: key"),
        ({"message": "who?", "status": 401}, PolicyServerError, "refuses the API key"),
    ],
)
def test_an_error_in_a_stream_that_stays_is_told_at_once(
    error: object, kind: type[Exception], said: str
) -> None:
    told = {"error": error}
    with (
        ChatServer(replies(ACTION), faults=["told"], told=told) as server,
        pytest.raises(kind, match=said),
    ):
        sampled(server, attempts=1)
    assert len(server.requests) == 1


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


def test_what_comes_after_the_end_of_an_answer_is_dropped() -> None:
    stream = AnswerStream("</code>")
    shown = [stream.take({"content": "<code>1</code> or"})]
    shown += [stream.take({"content": "more"}), stream.take({"reasoning": "so"})]

    assert stream.text == "<code>1</code>"
    assert shown == ["<code>1</code>", "", ""]


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
        pytest.raises(ContextTooLongError),
    ):
        sampled(server)
