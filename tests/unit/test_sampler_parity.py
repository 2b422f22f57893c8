"""Scores of packed actions are those under which a sampler with a cache drew them."""

from pathlib import Path

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel

from learner.engine.model import load_model, token_logprobs
from learner.packs.packing import pack_segments, segment_of_actions
from tests.sampled_episodes import TURNS, Sampler, run_episode
from tests.tiny_policy import VOCABULARY, make_model

EPISODES, MOST_TOKENS, STOP = 25, 12, 7


def token_by_token(model: PreTrainedModel, temperature: float) -> Sampler:
    """The stock model with its own attention and a key-value cache, one token at a time."""

    @torch.no_grad()
    def sample(context: list[int], seed: int) -> tuple[list[int], list[float]]:
        generator = torch.Generator().manual_seed(seed)
        cache, new = DynamicCache(), list(context)
        ids: list[int] = []
        scores: list[float] = []
        while len(ids) < MOST_TOKENS and STOP not in ids:
            logits = model(torch.tensor([new]), past_key_values=cache).logits[0, -1]
            logprobs = (logits / temperature).log_softmax(-1)
            (word,) = torch.multinomial(logprobs.exp(), 1, generator=generator).tolist()
            ids.append(word)
            scores.append(float(logprobs[word]))
            new = [word]
        return ids, scores

    return sample


@pytest.mark.parametrize(
    ("family", "temperature"),
    [("qwen3", 0.7), pytest.param("llama", 1.0, marks=pytest.mark.nightly)],
)
def test_v25_a_hundred_actions_have_the_scores_they_were_sampled_with(
    family: str, temperature: float, tmp_path: Path
) -> None:
    stock = make_model(tmp_path, family).eval()
    sampler = token_by_token(stock, temperature)
    episodes = [run_episode(sampler, number=n, vocabulary=VOCABULARY) for n in range(EPISODES)]
    segments = [
        segment_of_actions(segment, name="x", first_action_id=TURNS * number)
        for number, episode in enumerate(episodes)
        for segment in episode.segments
    ]
    packs = pack_segments(segments, budget=512)
    model = load_model(tmp_path)

    with torch.no_grad():
        found = [token_logprobs(model, pack, temperature=temperature) for pack in packs]

    gaps = torch.cat(
        [own - pack.behaviour_logprobs for own, pack in zip(found, packs, strict=True)]
    )
    owners = torch.cat([pack.action_ids for pack in packs])
    actions = [action for episode in episodes for action in episode.actions]
    stopped = sum(action[-1] == STOP for action in actions)
    assert len(owners.unique()) == len(actions) == 100
    assert len(owners) == sum(map(len, actions))
    assert 5 < stopped < 100, "some end with the stop token, some with the limit"
    assert len(packs) > 1
    assert gaps.abs().max().item() < 1e-4
    assert gaps.abs().mean().item() < 1e-5
