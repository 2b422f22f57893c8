"""The parity check, by one rank and by several: a server without an answer leaves the rotation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from common.config import Config, Learner, Model
from common.errors import PolicyMismatchError, PolicyServerError
from learner.coordination.membership import Membership
from learner.engine.mesh import Rank, training_processes
from learner.engine.model import load_model
from learner.engine.policy import load_sharded
from learner.engine.sharding import shard
from learner.weights.verifier import ParityVerifier, random_prompts
from tests.tiny_policy import VOCABULARY, make_model
from tests.weight_server import WeightServer, learners_wire, weight_servers

TOLERANCE = 1e-4
PROMPTS = random_prompts(VOCABULARY, seed=0, max_context=64)


def holding(servers: Sequence[WeightServer], version: int) -> Membership:
    """Servers that have taken ``version`` and wait for their check."""
    membership = Membership([server.place for server in servers])
    with membership.roster() as roster:
        for server in roster.servers:
            roster.updated(server.name, server.life, version)
        roster.published(version)
    return membership


def serve_stock_model(
    server: WeightServer, folder: str, dtype: torch.dtype = torch.float32
) -> None:
    """Let the server sample greedily from transformers' own model."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()

    @torch.no_grad()
    def generate(prompt: list[int], most: int) -> tuple[list[int], list[float]]:
        ids, scores = list(prompt), []
        for _ in range(most):
            logprobs = model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
            ids.append(int(logprobs.argmax()))
            scores.append(float(logprobs.max()))
        return ids[len(prompt) :], scores

    server.version, server.generate = "3", generate


def verify(rank: Rank, folder: str) -> dict[str, Any]:
    """Rank 0 has two servers, of which the first fails."""
    model = shard(load_model(folder), rank, compute_dtype=torch.float32)
    verifier = ParityVerifier(model, rank, tolerance=TOLERANCE)
    if not rank.is_first:
        verifier.take_part()
        return {}
    with weight_servers(2) as (failing, sound), learners_wire() as wire:
        failing.failing["generate"] = "the decoder prompt is too long"
        serve_stock_model(sound, folder)
        membership = holding((failing, sound), 3)
        (parity,) = verifier.run(PROMPTS, membership, wire, version=3)
        assert parity.version == 3
        assert parity.tokens == 16 * len(PROMPTS)
        assert parity.mean_difference < TOLERANCE
        assert [one.server for one in membership.rotation.asked] == [sound.place.name]
        assert membership.rotation.lost == (failing.place.name,)
        assert "the decoder prompt is too long" in membership.describe()
    return {}


def test_one_rank_goes_on_with_the_servers_that_answer(tmp_path: Path) -> None:
    make_model(tmp_path)
    with training_processes() as rank:
        verify(rank, str(tmp_path))


@pytest.mark.distributed
@pytest.mark.nightly
def test_two_ranks_go_on_with_the_servers_that_answer(
    tmp_path: Path, run_ranks: Callable[..., list[Any]]
) -> None:
    make_model(tmp_path)

    run_ranks(verify, 2, str(tmp_path))


def test_rounding_of_bfloat16_is_within_what_it_is_allowed_and_above_what_float32_is(
    tmp_path: Path,
) -> None:
    make_model(tmp_path, "llama", width=64)
    allowed = Config(model=Model(dtype="bfloat16")).mismatch_tolerance
    with training_processes() as rank, weight_servers(1) as (server,), learners_wire() as wire:
        model = load_sharded(tmp_path, rank, compute_dtype=torch.bfloat16)
        serve_stock_model(server, str(tmp_path), torch.bfloat16)
        membership = holding((server,), 3)

        lenient = ParityVerifier(model, rank, tolerance=allowed)
        (parity,) = lenient.run(PROMPTS, membership, wire, version=3)

        assert Config().mismatch_tolerance < parity.mean_difference < allowed
        strict = ParityVerifier(model, rank, tolerance=Config().mismatch_tolerance)
        with pytest.raises(
            PolicyMismatchError,
            match=r"after 4 prompts of random ids differ by .*"
            r"learner.mismatch_tolerance.*model.dtype = \"float32\"",
        ):
            strict.run(PROMPTS, membership, wire, version=3, origin="prompts of random ids")


def test_what_is_allowed_follows_the_compute_type_unless_it_is_given() -> None:
    assert Config().mismatch_tolerance == 1e-3
    assert Config(model=Model(dtype="bfloat16")).mismatch_tolerance == 0.1
    given = Config(model=Model(dtype="bfloat16"), learner=Learner(mismatch_tolerance=0.3))
    assert given.mismatch_tolerance == 0.3


def test_a_server_that_disagrees_is_dead_and_the_others_go_on(tmp_path: Path) -> None:
    make_model(tmp_path)
    with training_processes() as rank, weight_servers(2) as (wrong, sound), learners_wire() as wire:
        serve_stock_model(sound, str(tmp_path))
        wrong.version = "3"
        wrong.generate = lambda prompt, most: ([1] * most, [-9.0] * most)
        membership = holding((wrong, sound), 3)
        verifier = ParityVerifier(load_model(tmp_path), rank, tolerance=TOLERANCE)

        assert len(verifier.run(PROMPTS, membership, wire, version=3)) == 1

        assert [one.server for one in membership.rotation.asked] == [sound.place.name]
        assert "disagree at weight version 3" in membership.describe()


@pytest.mark.parametrize("count", [0, 1])
def test_a_check_that_no_server_answered_is_no_check(tmp_path: Path, count: int) -> None:
    make_model(tmp_path)
    with training_processes() as rank, weight_servers(1) as servers, learners_wire() as wire:
        membership = holding(servers[:count], 0)
        servers[0].failing["generate"] = "no"
        verifier = ParityVerifier(load_model(tmp_path), rank, tolerance=TOLERANCE)
        with pytest.raises(PolicyServerError, match="no policy server could be compared"):
            verifier.run(PROMPTS, membership, wire, version=0)
