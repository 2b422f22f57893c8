"""One real vLLM server on CPU with a tiny random model, from first weights to updates under load.

The tests run in order and share the server; each publishes the versions it needs.
"""

import asyncio
import dataclasses
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from actors.policy import PolicyStatistics
from common.config import Config, Lora, Model, PolicyServer
from common.errors import PolicyMismatchError, PolicyServerError
from common.wire.generation import Generation
from common.wire.sockets import Door, Wire
from learner.coordination.membership import Membership
from learner.engine.lora import adapted_layers, add_adapters, reset_adapters
from learner.weights.channel import Snapshot, take_snapshot
from learner.weights.contents import weights_to_publish
from learner.weights.control import ServerControl
from learner.weights.parity import Parity, compare_answers, sample_answers
from learner.weights.publisher import WeightPublisher
from tests.policy_server import Served, engine_of, policy_server

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

VOCABULARY = 320
TOLERANCE = 1e-4
LISTENING = "0A"
"""In /proc/net/tcp."""
YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128,
}  # fmt: skip
"""As model cards have it: max_context, 512, is longer than ``max_position_embeddings``."""
PROMPTS = [[random.Random(i).randrange(3, VOCABULARY) for _ in range(24)] for i in range(8)]


class LiveModel:
    """A tiny model with tied embeddings, and the publisher that brings it to the server."""

    def __init__(self, served: Served, wire: Wire, door: Door, model: Qwen3ForCausalLM) -> None:
        self.served = served
        self.name = served.place.name
        self.control = ServerControl(wire, self.name, served.place.address, timeout_s=60)
        self.pid = served.pid
        self.private = served.plan.private
        self.model = model
        self.version = -1
        self.membership = Membership([served.place])
        self.publisher = WeightPublisher(
            self.membership, door, wire, stage_timeout_s=20, watch_every_s=3600
        )
        self.publisher.start()

    def state(self) -> dict[str, torch.Tensor]:
        return {k: v for k, v in self.model.state_dict().items() if k != "lm_head.weight"}

    def perturb(self) -> None:
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)

    def publish(self):  # type: ignore[no-untyped-def]
        self.version += 1
        return self.publisher.publish(self.version, self.state())

    def logprobs(self, prompt: list[int], sampled: list[int]) -> list[float]:
        with torch.no_grad():
            logits = self.model(torch.tensor([prompt + sampled])).logits[0]
        scores = logits[len(prompt) - 1 : -1].log_softmax(-1)
        return scores[torch.arange(len(sampled)), torch.tensor(sampled)].tolist()

    def check(self, version: int | None = None) -> Parity:
        own = self.version if version is None else version
        answers = sample_answers(self.control, PROMPTS, version=own)
        return compare_answers(answers, self.logprobs, TOLERANCE)


def save_tiny_model(folder: Path) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, intermediate_size=128, max_position_embeddings=128,
        rope_parameters=YARN, tie_word_embeddings=True, initializer_range=0.08, eos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    words = models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w1")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="w2")
    tokenizer.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveModel]:
    folder = tmp_path_factory.mktemp("policy")
    model = save_tiny_model(folder / "model")
    config = Config(
        model=Model(path=str(folder / "model"), max_context=512),
        policy_server=PolicyServer(memory_gib=0.25, max_sequences=32),
    )
    with policy_server(config, folder) as served, served.learner() as (wire, door):
        live = LiveModel(served, wire, door, model)
        yield live
        live.publisher.stop()


def test_server_samples_with_the_model_folder_as_version_0_before_any_update(
    live: LiveModel,
) -> None:
    live.check(version=0)


def test_sampled_tokens_come_with_their_log_probabilities_and_version(live: LiveModel) -> None:
    live.publish()

    async def ask() -> tuple[Generation, Generation, Generation]:
        async with live.served.client(timeout_s=60, attempts=3) as client:
            sampled = await client.generate(PROMPTS[0], max_tokens=12, temperature=1.0)
            greedy = await client.generate(PROMPTS[0], max_tokens=1, temperature=0.0)
            stop = int(greedy.token_ids[0])
            stopped = await client.generate(
                PROMPTS[0], max_tokens=4, temperature=0.0, stop_token_ids=[stop]
            )
            return sampled, greedy, stopped

    sampled, greedy, stopped = asyncio.run(ask())

    expected = live.logprobs(PROMPTS[0], sampled.token_ids.tolist())
    assert np.abs(sampled.logprobs - expected).mean() < TOLERANCE
    assert set(sampled.versions.tolist()) == {0}
    assert sampled.finish_reason in {"length", "stop"}
    assert stopped.token_ids.tolist() == greedy.token_ids.tolist()
    assert stopped.finish_reason == "stop"


def test_nothing_of_the_server_listens_where_another_user_could_reach_it(
    live: LiveModel,
) -> None:
    """Neither itself, nor what its processes say to each other."""
    group = [
        process for process in Path("/proc").glob("[0-9]*") if process_group(process) == live.pid
    ]
    assert len(group) >= 2, "the server and its engine"
    held = {
        link.removeprefix("socket:[").removesuffix("]")
        for process in group
        for file in process.glob("fd/*")
        if (link := os.readlink(file)).startswith("socket:")
    }
    tables = {
        name: [line.split() for line in Path(table).read_text().splitlines()[1:]]
        for name, table in {
            "tcp": "/proc/net/tcp",
            "tcp6": "/proc/net/tcp6",
            "unix": f"/proc/{live.pid}/net/unix",
        }.items()
    }

    internet = [row for name in ("tcp", "tcp6") for row in tables[name] if row[9] in held]
    unix = [row[7] for row in tables["unix"] if row[6] in held and len(row) > 7]

    assert [row[1] for row in internet if row[3] == LISTENING] == []
    assert unix
    assert {str(Path(path).parent) for path in unix} == {str(live.private)}


def process_group(process: Path) -> int:
    try:
        return os.getpgid(int(process.name))
    except ProcessLookupError:
        return -1


def mean_difference(live: LiveModel, generations: list[Generation], version: int) -> float:
    """Mean absolute difference to the model, of the tokens that ``version`` sampled."""
    differences = [
        np.abs(g.logprobs - np.array(live.logprobs(prompt, g.token_ids.tolist())))[
            g.versions == version
        ]
        for g, prompt in zip(generations, PROMPTS * 2, strict=True)
    ]
    return float(np.concatenate(differences).mean())


def test_update_while_requests_are_in_flight_splits_them_into_versions(live: LiveModel) -> None:
    live.publish()
    old_version, old_state = live.version, {k: v.clone() for k, v in live.state().items()}
    live.check()
    live.perturb()

    async def ask_and_publish() -> list[Generation]:
        async with live.served.client(timeout_s=120, attempts=1) as client:
            requests = [
                asyncio.create_task(client.generate(p, max_tokens=400, temperature=1.0))
                for p in PROMPTS * 2
            ]
            # A short request behind them in the queue: once it is back, they are being sampled.
            await client.generate(PROMPTS[0], max_tokens=8, temperature=1.0)
            await asyncio.to_thread(live.publish)
            return list(await asyncio.gather(*requests))

    generations = asyncio.run(ask_and_publish())

    new_version = live.version
    split = [g for g in generations if set(g.versions.tolist()) == {old_version, new_version}]
    assert len(split) >= 8, [g.versions.tolist() for g in generations]
    assert all((np.diff(g.versions) >= 0).all() for g in generations)
    assert mean_difference(live, generations, new_version) < TOLERANCE
    load = live.control.state().load
    assert load.preemptions == 0, "a pause is no lack of room"
    assert load.sampled >= sum(len(g.token_ids) for g in generations)
    assert load.busy_s > 0
    live.check()
    live.model.load_state_dict(old_state, strict=False)
    live.model.tie_weights()
    assert mean_difference(live, generations, old_version) < TOLERANCE


def test_perturbed_learner_is_a_mismatch_that_says_how_large(live: LiveModel) -> None:
    live.publish()
    live.check()
    with torch.no_grad():
        live.model.model.embed_tokens.weight.add_(0.02)
        live.model.model.norm.weight.mul_(1.2)

    with pytest.raises(
        PolicyMismatchError, match=rf"weight version {live.version}: .* tied lm_head"
    ):
        live.check()
    with pytest.raises(PolicyMismatchError, match=r"the parity check needs version 999"):
        live.check(version=999)


def test_corrupted_weights_are_refused_and_the_old_ones_stay(
    live: LiveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.publish()
    live.check()
    held = live.version

    def corrupt(version: int, state: dict[str, torch.Tensor]) -> Snapshot:
        good = take_snapshot(version, state)
        return dataclasses.replace(
            good, frames=(bytes(memoryview(good.frames[0]).nbytes), *good.frames[1:])
        )

    with monkeypatch.context() as patch:
        patch.setattr("learner.weights.publisher.take_snapshot", corrupt)
        with pytest.raises(PolicyServerError, match=r"no policy server took .*checksum"):
            live.publish()

    assert live.membership.rotation.asked == ()
    assert live.membership.rotation.lost
    live.version = held
    live.check()
    live.version += 1
    live.perturb()
    result = live.publish()
    assert result.acknowledged == (live.name,)
    live.check()


def test_incomplete_weights_leave_no_server_that_samples_with_half_of_them(
    live: LiveModel,
) -> None:
    state = live.state()
    state.pop("model.norm.weight")
    live.version += 1

    with pytest.raises(PolicyServerError, match=r"lack 1 parameters .*model\.norm\.weight"):
        live.publisher.publish(live.version, state)
    with pytest.raises(PolicyServerError, match="the last weight update failed"):
        live.check()

    live.publish()
    live.check()


def test_killing_vllm_costs_its_requests_a_retry_and_nothing_else(live: LiveModel) -> None:
    live.publish()
    before = live.control.state()

    async def ask_and_kill() -> tuple[list[Generation], PolicyStatistics]:
        async with live.served.client(timeout_s=120, attempts=1) as client:
            requests = [  # greedy: of sampled ones some would end by themselves before
                asyncio.create_task(client.generate(p, max_tokens=400, temperature=0.0))
                for p in PROMPTS
            ]
            await client.generate(PROMPTS[0], max_tokens=8, temperature=1.0)
            os.kill(the_engine(live), signal.SIGKILL)
            with pytest.raises(PolicyServerError, match=r"vLLM (has ended|is starting)"):
                await asyncio.to_thread(live.publish)
            return list(await asyncio.gather(*requests)), client.statistics()

    generations, statistics = asyncio.run(ask_and_kill())

    assert before.version == str(live.version - 1)
    assert statistics.failures == 0
    assert statistics.retries >= len(PROMPTS)
    assert {int(v) for g in generations for v in g.versions} == {0}, "the model folder's"
    assert live.control.state().version == "default"
    live.publish()
    live.check()


def test_adapters_are_published_alone_and_the_server_samples_with_them(live: LiveModel) -> None:
    lora = Lora(rank=4, alpha=8.0, targets=("q_proj", "v_proj", "o_proj", "up_proj", "down_proj"))
    add_adapters(live.model, lora)
    reset_adapters(live.model, seed=0)
    sizes = []

    for complete in (True, False, False):
        with torch.no_grad():
            for _, layer in adapted_layers(live.model):
                layer.lora_B.weight.normal_(std=0.05)
        live.version += 1
        state = weights_to_publish(live.model, complete=complete)
        sizes.append(live.publisher.publish(live.version, state).nbytes)
        live.check()

    assert sizes[1] == sizes[2] < sizes[0] / 3


def the_engine(live: LiveModel) -> int:
    engine = engine_of(live.pid)
    assert engine is not None
    return engine
