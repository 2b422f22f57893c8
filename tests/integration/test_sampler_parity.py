"""Scores of packed actions are those under which a real vLLM server drew them."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from common.config import Config, Model, PolicyServer
from learner.engine.model import load_model, token_logprobs
from learner.packs.packing import pack_segments, segment_of_actions
from tests.policy_server import Served, policy_server
from tests.sampled_episodes import TURNS, Sampler, run_episode

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.nightly]

VOCABULARY, EPISODES, STOP, TEMPERATURE = 64, 25, 7, 0.7


def save_model(folder: Path) -> None:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, intermediate_size=128, max_position_embeddings=256,
        tie_word_embeddings=True, initializer_range=0.2, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    words = models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w1")
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="w2").save_pretrained(
        folder
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    """A server that samples with the model in ``tmp_path / "model"``."""
    save_model(tmp_path / "model")
    config = Config(
        model=Model(path=str(tmp_path / "model"), max_context=256),
        policy_server=PolicyServer(memory_gib=0.25, max_sequences=32),
    )
    with policy_server(config, tmp_path) as served:
        yield served


def by_server(server: Served) -> Sampler:
    def sample(context: list[int], seed: int) -> tuple[list[int], list[float]]:
        async def ask() -> tuple[list[int], list[float]]:
            async with server.client(timeout_s=60, attempts=3) as client:
                generation = await client.generate(
                    context,
                    max_tokens=12,
                    temperature=TEMPERATURE,
                    stop_token_ids=[STOP],
                    seed=seed,
                )
                return generation.token_ids.tolist(), generation.logprobs.tolist()

        return asyncio.run(ask())

    return sample


def test_v25_a_hundred_actions_of_the_server_have_the_learners_scores(
    server: Served, tmp_path: Path
) -> None:
    episodes = [
        run_episode(by_server(server), number=n, vocabulary=VOCABULARY) for n in range(EPISODES)
    ]
    segments = [
        segment_of_actions(segment, name="x", first_action_id=TURNS * number)
        for number, episode in enumerate(episodes)
        for segment in episode.segments
    ]
    packs = pack_segments(segments, budget=512)
    model = load_model(tmp_path / "model")

    with torch.no_grad():
        found = [token_logprobs(model, pack, temperature=TEMPERATURE) for pack in packs]

    gaps = torch.cat(
        [own - pack.behaviour_logprobs for own, pack in zip(found, packs, strict=True)]
    )
    owners = torch.cat([pack.action_ids for pack in packs])
    actions = [action for episode in episodes for action in episode.actions]
    assert len(owners.unique()) == len(actions) == 100
    assert 0 < sum(action[-1] == STOP for action in actions) < 100
    assert gaps.abs().max().item() < 1e-3
