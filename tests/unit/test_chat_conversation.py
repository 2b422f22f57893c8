"""A chat with any OpenAI-compatible server holds what the agent's loop decided, and survives it."""

import asyncio
import socket
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from actors.agent.chat.answer import ChatMessage
from actors.agent.chat.client import ChatClient
from actors.agent.chat.conversation import ChatConversation
from actors.agent.conversation import KeptStep, Opening
from actors.agent.prompt import load_template
from actors.kernels.tool_specs import ToolSpec
from common.chat import escape_tags, observation_text, parse_action, prompt_text, split_turns
from common.config import Agent
from common.errors import PolicyServerError
from tests.chat_server import ChatServer, Reply, replies, tokens_of
from tests.chat_talk import ACTION, OPENING, sampled, talk


def test_the_chat_takes_turns_and_holds_actions_and_observations_in_the_grammar() -> None:
    async def work(conversation: ChatConversation) -> None:
        await conversation.sample(0, max_tokens=50)
        conversation.observe(0, "2</output><code>\n")
        await conversation.sample(1, max_tokens=60)

    with ChatServer(replies(ACTION, ACTION)) as server:
        talk(server, work)

    first, second = server.requests
    assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "user"]
    assert second["messages"][:2] == first["messages"]
    assert [m["content"] for m in second["messages"][1:]] == [
        "How many are 1 and 1?",
        ACTION,
        "<output>2< /output>< code></output>",
    ]
    assert (first["stop"], first["max_tokens"], first["temperature"]) == (["</code>"], 50, 0.5)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("knows_stop", [True, False], ids=["stops", "overshoots"])
def test_an_action_ends_with_its_code_block(streamed: bool, knows_stop: bool) -> None:
    async def work(conversation: ChatConversation) -> str:
        pieces: list[str] = []
        sample = await conversation.sample(
            0, max_tokens=50, on_delta=pieces.append if streamed else None
        )
        if streamed:
            assert "".join(pieces).removesuffix("</code>") == ACTION.removesuffix("</code>")
        return sample.text

    overshoot = ACTION + "<output>3</output><think>so</think><code>no()</code>"
    with ChatServer(replies(overshoot), knows_stop=knows_stop) as server:
        assert talk(server, work) == ACTION


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_that_comes_apart_becomes_the_think_block(field: str) -> None:
    reply = Reply(text="Let me run it.\n<code>x = 1</code>", reasoning="I need <code> here")
    with ChatServer(replies(reply), reasoning_field=field) as server:
        text, pieces = sampled(server)

    assert text == "<think>I need < code> here\nLet me run it.</think><code>x = 1</code>"
    assert "".join(pieces).startswith("<think>I need <code> here</think>Let me run it.")


def test_a_code_block_that_was_cut_off_is_not_closed() -> None:
    reply = Reply(text="<think>a</think><code>x = ", finish_reason="length")
    with ChatServer(replies(reply)) as server:
        text, _ = sampled(server)

    assert text == "<think>a</think><code>x = "


@pytest.mark.parametrize("knows_stop", [True, False], ids=["stops", "overshoots"])
def test_an_end_that_thoughts_mention_is_not_the_end(knows_stop: bool) -> None:
    written = "<think>close it with </code> then</think><code>x</code><output>1"
    with ChatServer(replies(written), knows_stop=knows_stop) as server:
        text, pieces = sampled(server)

    if knows_stop:
        assert parse_action(text) is None
    else:
        assert text == "<think>close it with < /code> then</think><code>x</code>"
        assert "".join(pieces) == "<think>close it with </code> then</think><code>x</code>"


def test_a_direct_answer_is_plain_text_without_a_stop_string() -> None:
    answer = "Write <code>1 + 1</code> and see."
    with ChatServer(replies(answer)) as server:
        text, pieces = sampled(server, direct=True)

    assert text == "".join(pieces) == answer
    assert "stop" not in server.requests[0]


def test_a_new_segment_holds_the_notepad_and_the_steps_that_are_kept() -> None:
    async def work(conversation: ChatConversation) -> None:
        for step in range(3):
            await conversation.sample(step, max_tokens=50)
            conversation.observe(step, f"output {step}")
        opening = Opening(system="", task=OPENING.task, notepad="found: 2")
        kept = (KeptStep(step=1, replacement="short"), KeptStep(step=2))
        conversation.begin(opening, kept)
        await conversation.sample(3, max_tokens=50)

    texts = [f"<think>{n}</think><code>print({n})</code>" for n in range(3)]
    with ChatServer(lambda m: texts[len(m) // 2 - 1] if len(m) < 8 else ACTION) as server:
        talk(server, work)

    messages = server.requests[-1]["messages"]
    assert [(m["role"], m["content"]) for m in messages] == [
        ("user", "How many are 1 and 1?\n\nYour notepad:\nfound: 2"),
        ("assistant", texts[1]),
        ("user", "<output>short</output>"),
        ("assistant", texts[2]),
        ("user", "<output>output 2</output>"),
    ]


def test_an_observation_after_a_bare_opening_joins_the_users_turn() -> None:
    async def work(conversation: ChatConversation) -> None:
        await conversation.sample(0, max_tokens=50)
        conversation.begin(OPENING)
        conversation.observe(0, "2")
        await conversation.sample(1, max_tokens=50)

    with ChatServer(lambda messages: ACTION) as server:
        talk(server, work)

    messages = server.requests[-1]["messages"]
    assert [m["role"] for m in messages] == ["system", "user"]
    assert messages[1]["content"] == "How many are 1 and 1?\n\n<output>2</output>"


def test_tokens_are_the_servers_count_where_it_counts() -> None:
    async def work(conversation: ChatConversation) -> None:
        guessed = conversation.tokens
        sample = await conversation.sample(0, max_tokens=50)
        prompt = tokens_of(OPENING.system) + tokens_of(OPENING.task)
        assert 0.5 * prompt < guessed < 3 * prompt
        assert sample.tokens == tokens_of(ACTION)
        assert conversation.tokens == prompt + tokens_of(ACTION)
        before = conversation.tokens
        size = conversation.measure("x" * 400)
        conversation.observe(0, "x" * 400)
        assert conversation.tokens == before + size
        assert conversation.step_tokens(0) == (tokens_of(ACTION), size)

    with ChatServer(replies(ACTION)) as server:
        talk(server, work)


def test_tokens_are_estimated_where_the_server_does_not_count() -> None:
    async def work(conversation: ChatConversation) -> None:
        sample = await conversation.sample(0, max_tokens=50)
        assert 5 < sample.tokens < 40
        assert conversation.tokens > sample.tokens

    with ChatServer(replies(ACTION), tells_usage=False) as server:
        talk(server, work)


def test_estimates_learn_the_rate_of_the_servers_tokenizer() -> None:
    async def work(conversation: ChatConversation) -> None:
        conversation.begin(Opening(system="s" * 8000, task="t"))
        first = conversation.measure("x" * 4000)
        await conversation.sample(0, max_tokens=50)
        second = conversation.measure("x" * 4000)
        assert abs(second - 1000) < 20 < abs(first - 1000)

    with ChatServer(replies(ACTION)) as server:
        talk(server, work)


@pytest.mark.parametrize("fault", [500, 503, 429, "drop"])
def test_a_failure_that_passes_is_tried_again(fault: int | str) -> None:
    with ChatServer(replies(ACTION), faults=[fault]) as server:
        text, _ = sampled(server)

    assert text == ACTION
    assert len(server.requests) == 2


def test_a_stream_that_breaks_is_not_shown_twice() -> None:
    with ChatServer(replies(ACTION), faults=["drop"]) as server:
        _, pieces = sampled(server)

    assert ACTION.startswith("".join(pieces))
    assert "stream" not in server.requests[1]


def test_parameters_that_a_server_refuses_are_left_out_from_then_on() -> None:
    async def work(conversation: ChatConversation) -> None:
        for step in range(2):
            sample = await conversation.sample(step, max_tokens=50)
            assert sample.text == ACTION
            conversation.observe(step, "2")

    refuses = ("max_tokens", "stop", "temperature")
    with ChatServer(lambda messages: ACTION, refuses=refuses) as server:
        talk(server, work)

    assert len(server.requests) == len(refuses) + 2
    assert not set(refuses) & set(server.requests[-1])
    assert server.requests[-1]["max_completion_tokens"] == 50


def test_a_vllm_server_is_asked_not_to_drop_tags() -> None:
    with ChatServer(replies(ACTION), owned_by="vllm") as server:
        sampled(server)

    assert server.requests[0]["skip_special_tokens"] is False


@pytest.mark.parametrize(
    ("options", "asked", "message"),
    [
        ({}, {"model": "qwen"}, r"model 'qwen', answered 404.*it has these models: 'scripted'"),
        ({"models": ("a", "b")}, {}, r"has these models: 'a', 'b'; say which model to use"),
        ({"models": ()}, {}, r"has no models; say which"),
        ({"api_key": "right"}, {"api_key": "wrong"}, r"refuses the API key \(status 401"),
        ({"faults": [500, 502]}, {}, r"answered 502 to 2 attempts"),
        ({"faults": ["hang", "hang"]}, {"timeout_s": 0.1}, r"did not answer within 0.1 s \(2"),
        ({"faults": [400]}, {}, r"answered 400: .*something went wrong"),
    ],
)
def test_a_failure_that_stays_says_what_to_do(
    options: dict[str, object], asked: dict[str, object], message: str
) -> None:
    with (
        ChatServer(replies(ACTION), **options) as server,  # type: ignore[arg-type]
        pytest.raises(PolicyServerError, match=message) as failure,
    ):
        sampled(server, **asked)

    assert server.url in str(failure.value)


def test_a_server_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = ChatClient(f"http://127.0.0.1:{port}/v1", attempts=1)

    async def ask() -> None:
        try:
            await client.describe()
        finally:
            await client.close()

    with pytest.raises(PolicyServerError, match=rf"127.0.0.1:{port}/v1 cannot be reached"):
        asyncio.run(ask())


def test_an_address_without_v1_gets_a_hint() -> None:
    async def ask(url: str) -> None:
        client = ChatClient(url, attempts=1)
        try:
            await client.describe()
        finally:
            await client.close()

    with ChatServer(replies(ACTION)) as server:
        short = server.url.removesuffix("/v1")
        with pytest.raises(PolicyServerError, match=rf"usually end with /v1: {short}/v1"):
            asyncio.run(ask(short))


def test_the_key_of_the_environment_goes_to_no_other_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with ChatServer(replies(ACTION)) as server:
        sampled(server)

        assert "sk-secret" not in str(server.headers)

        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        client = ChatClient()
        try:
            assert client.url == server.url
        finally:
            asyncio.run(client.close())


def test_a_conversation_in_chat_messages_has_no_segments_to_train_on() -> None:
    async def work(conversation: ChatConversation) -> None:
        await conversation.sample(0, max_tokens=50)
        assert conversation.segments() == ()

    with ChatServer(replies(ACTION)) as server:
        talk(server, work)


def test_the_shipped_chat_template_renders_the_contexts_of_training() -> None:
    system, question, output = "Work in a notebook.", "How many <code>?", "2\n"
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": escape_tags(question)},
        {"role": "assistant", "content": ACTION},
        {"role": "user", "content": observation_text(output)},
    ]
    template = Path("launch/presets/chat_template.jinja").read_text()
    trained_on = prompt_text(question, system) + ACTION + observation_text(output)

    for chat, expected in (
        (messages, trained_on),
        (messages[1:], trained_on[trained_on.index("<|im_start|>user") :]),
    ):
        rendered, _ = render_jinja_template([chat], chat_template=template)
        assert rendered == [expected]


def test_worked_examples_of_a_prompt_are_the_turns_that_training_has() -> None:
    system = load_template("notebook").render(Agent(), [ToolSpec(name="search", doc="Look.")])
    messages = [{"role": role, "content": text} for role, text in split_turns(system)]
    messages += [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": ACTION}]
    template = Path("launch/presets/chat_template.jinja").read_text()

    rendered, _ = render_jinja_template([messages], chat_template=template)

    assert rendered == [prompt_text("Who?", system) + ACTION]


def test_a_reminder_takes_the_place_of_the_message_that_was_no_action() -> None:
    async def work(conversation: ChatConversation) -> None:
        conversation.begin(Opening(system="", task="How many?"))
        await conversation.sample(0, max_tokens=64)
        conversation.observe(0, "Write <think>", ours=True)
        assert conversation.messages == (
            ChatMessage(role="user", content="How many?\n\nWrite <think>"),
        )
        await conversation.sample(1, max_tokens=64)
        conversation.observe(1, "2")
        shown = conversation.messages
        conversation.begin(
            Opening(system="", task="How many?"), [KeptStep(step=0), KeptStep(step=1)]
        )
        assert conversation.messages == shown

    with ChatServer(replies("It is two.", ACTION)) as server:
        talk(server, work)


def test_an_output_before_a_reminder_loses_the_tags_that_were_echoed() -> None:
    async def work(conversation: ChatConversation) -> None:
        conversation.begin(Opening(system="", task="How many?"))
        for step, output, ours in ((0, "2", False), (1, "Write <think>", True)):
            await conversation.sample(step, max_tokens=64)
            conversation.observe(step, output, ours=ours)
        assert conversation.messages[-1].content == "Your code printed:\n2\n\nWrite <think>"

    with ChatServer(replies(ACTION, "<output>2</output>")) as server:
        talk(server, work)
