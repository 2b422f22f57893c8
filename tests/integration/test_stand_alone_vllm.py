"""A checkpoint served by vLLM works as a stand-alone agent, in the very contexts it was trained on.

A real vLLM server with the shipped checkpoint and the shipped chat template.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.agent.chat.client import ChatClient
from actors.agent.chat.conversation import ChatConversation
from actors.agent.chat.models import ServedModel
from actors.agent.conversation import Opening
from actors.agent.events import Episode
from actors.agent.notebook_agent import NotebookAgent
from actors.rewards.answers import exact_match
from actors.tokenizer import FileTokenizer
from actors.tools.search.index import build_index
from common.chat import ChatRenderer
from common.config import Config
from common.config_file import load_config
from common.wire.records import Task
from launch.data.world.encyclopedia import Encyclopedia
from launch.data.world.files import evaluation_tasks
from launch.data.world.traces import write_corpus
from tests.policy_server import chat_server_of

pytestmark = [pytest.mark.nightly, pytest.mark.vllm, pytest.mark.sandbox]

QUICKSTART = Path("launch/presets/quickstart.toml")
QUESTIONS = 24
RIGHT_AT_LEAST = 2
"""Greedily the checkpoint answers 23 % of one-hop questions: fewer than 2 of 24 is 1 in 70."""


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(QUICKSTART, ["policy_server.memory_gib=0.25"])


@pytest.fixture(scope="module")
def server(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chat_server_of(config, tmp_path_factory.mktemp("vllm")) as url:
        yield url


def test_the_server_says_what_it_has(server: str) -> None:
    async def ask() -> ServedModel:
        client = ChatClient(server)
        try:
            return await client.describe()
        finally:
            await client.close()

    served = asyncio.run(ask())

    assert served == ServedModel(name="launch/presets/warmstart", max_context=512, keeps_tags=False)


def test_the_chat_is_token_for_token_what_the_policy_was_trained_on(server: str) -> None:
    tokenizer = FileTokenizer(Path("launch/presets/warmstart"))
    renderer = ChatRenderer(tokenizer)
    question, output = "In which year was the Silent Harbor built?", "Silent <output> Harbor\n1873"

    async def work() -> list[tuple[int, int]]:
        client = ChatClient(server)
        try:
            conversation = ChatConversation(client, limit=512, temperature=0.0)
            conversation.begin(Opening(system="", task=question))
            expected = len(renderer.prompt(question))
            counts = []
            for step in range(2):
                sample = await conversation.sample(step, max_tokens=64)
                expected += sample.tokens
                counts.append((conversation.tokens, expected))
                conversation.observe(step, output)
                expected += len(renderer.observation(output))
            return counts
        finally:
            await client.close()

    for counted, expected in asyncio.run(work()):
        assert counted == expected


def test_the_shipped_checkpoint_answers_questions_in_its_notebook(
    server: str, config: Config, tmp_path: Path
) -> None:
    world = Encyclopedia(1, "heldout")
    write_corpus(world, tmp_path / "pages.jsonl")
    build_index(tmp_path / "pages.jsonl", tmp_path / "pages.sqlite")
    one_hop = [t for t in evaluation_tasks(world, QUESTIONS) if t.labels["family"] == "one_hop"]

    async def work(tasks: list[Task]) -> list[Episode]:
        agent = NotebookAgent(
            base_url=server, config=config, corpus=tmp_path / "pages.sqlite", temperature=0.0
        )
        async with agent:
            return list(await asyncio.gather(*(agent.run_async(t.question) for t in tasks)))

    tasks = one_hop[:QUESTIONS]
    episodes = asyncio.run(work(tasks))

    right = [
        exact_match(episode.answer, task.answers)
        for task, episode in zip(tasks, episodes, strict=True)
        if episode.answer is not None
    ]
    assert not any(episode.failure for episode in episodes)
    assert sum(bool(episode.steps[0].code) for episode in episodes) >= 0.8 * QUESTIONS
    assert sum(right) >= RIGHT_AT_LEAST
