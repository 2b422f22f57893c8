"""Adapters travel alone, and a policy server ends up with what the learner would have merged."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from actors.inference.adapters import whole_tensors
from actors.inference.mapped import StagedWeights, map_weights
from actors.inference.staging import StagingReceiver
from common.config import Lora
from common.errors import PolicyServerError, ProtocolError
from common.places import Address, ServerPlace
from learner.coordination.membership import Membership
from learner.engine.lora import adapted_layers, add_adapters, reset_adapters
from learner.engine.model import load_model
from learner.engine.sharding import full_state_dict
from learner.weights.channel import Snapshot, StagingChannel, take_snapshot
from learner.weights.contents import weights_to_publish
from learner.weights.publisher import WeightPublisher
from tests.tiny_policy import make_model
from tests.wires import WORKER_LIMITS, Place, a_place

SERVER = "s0"
LORA = Lora(rank=2, alpha=6.0, targets=("q_proj", "up_proj"))


@pytest.fixture
def model(tmp_path: Path) -> nn.Module:
    make_model(tmp_path, "qwen2")
    model = add_adapters(load_model(tmp_path, dtype=torch.bfloat16), LORA)
    reset_adapters(model, seed=0)
    return model


@pytest.fixture
def place() -> Iterator[Place]:
    with a_place([SERVER], limits=WORKER_LIMITS) as place:
        yield place


@pytest.fixture
def channel(place: Place) -> Iterator[StagingChannel]:
    channel = StagingChannel(place.door)
    channel.expect(SERVER, 2)
    channel.start()
    yield channel
    channel.stop()


@pytest.fixture
def receivers(place: Place, channel: StagingChannel) -> Iterator[list[StagingReceiver]]:
    receivers = [
        StagingReceiver(channel.address, server=SERVER, rank=rank, keys=place.keys[SERVER])
        for rank in range(2)
    ]
    receivers[0].start()
    yield receivers
    for receiver in receivers:
        receiver.stop()


def change(model: nn.Module, seed: int) -> None:
    """As an optimizer step would: adapters move, the rest does not."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for _, layer in adapted_layers(model):
            layer.lora_A.weight.normal_(std=0.3)
            layer.lora_B.weight.normal_(std=0.3)


def snapshots(model: nn.Module) -> tuple[Snapshot, Snapshot, dict[str, Tensor]]:
    """Version 0 with everything, version 1 with adapters only, and what 1 amounts to."""
    first = take_snapshot(0, weights_to_publish(model, complete=True))
    change(model, 1)
    factors = weights_to_publish(model, complete=False)
    second = take_snapshot(1, factors, base=first.manifest.checksum)
    return first, second, full_state_dict(model)


def staged_tensors(receiver: StagingReceiver, version: int) -> dict[str, Tensor]:
    return dict(whole_tensors(mapped(receiver, version), torch.device("cpu")))


def mapped(receiver: StagingReceiver, version: int) -> StagedWeights:
    """What a worker of vLLM makes of what its host received."""
    staged = receiver.take(version)
    base = Path(staged.base.path) if staged.base else None
    return map_weights(Path(staged.own.path), base=base)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        # Factors are scaled before the product here and after it there: one rounding apart.
        torch.testing.assert_close(found[name], tensor, rtol=8e-3, atol=0)


def test_servers_hold_the_merged_weights_after_receiving_adapters_only(
    model: nn.Module, channel: StagingChannel, receivers: list[StagingReceiver]
) -> None:
    unchanged = full_state_dict(model)
    first, second, merged = snapshots(model)

    channel.offer(first)
    channel.wait_staged(SERVER, workers=1, version=0, timeout_s=10)
    before = staged_tensors(receivers[0], 0)
    channel.offer(second)
    channel.wait_staged(SERVER, workers=1, version=1, timeout_s=10)

    assert_equal(before, unchanged)
    assert_equal(staged_tensors(receivers[0], 1), merged)
    moved = {name for name in merged if not torch.equal(merged[name], unchanged[name])}
    assert len(moved) == 4
    assert second.nbytes * 4 < first.nbytes


def test_worker_that_comes_late_gets_the_model_and_then_its_adapters(
    model: nn.Module, channel: StagingChannel, receivers: list[StagingReceiver]
) -> None:
    first, second, merged = snapshots(model)
    channel.offer(first)
    channel.wait_staged(SERVER, workers=1, version=0, timeout_s=10)
    channel.offer(second)

    receivers[1].start()

    channel.wait_staged(SERVER, workers=2, version=1, timeout_s=10)
    assert_equal(staged_tensors(receivers[1], 1), merged)


def test_adapters_of_weights_that_a_worker_does_not_hold_are_refused(
    model: nn.Module, channel: StagingChannel, receivers: list[StagingReceiver]
) -> None:
    first, second, _ = snapshots(model)
    channel.offer(first)
    channel.wait_staged(SERVER, workers=1, version=0, timeout_s=10)
    other = take_snapshot(1, weights_to_publish(model, complete=False), base="0" * 32)

    channel.offer(other)

    with pytest.raises(PolicyServerError, match=r"worker 0 refused .*belong to weights with check"):
        channel.wait_staged(SERVER, workers=1, version=1, timeout_s=10)
    assert receivers[0].take(0).own.manifest.checksum == second.manifest.base


def test_half_an_adapter_is_refused_before_a_weight_is_given(
    model: nn.Module, channel: StagingChannel, receivers: list[StagingReceiver]
) -> None:
    state = weights_to_publish(model, complete=True)
    state.pop("model.layers.1.self_attn.q_proj.lora_A.weight")
    channel.offer(take_snapshot(3, state))
    channel.wait_staged(SERVER, workers=1, version=3, timeout_s=10)

    with pytest.raises(ProtocolError, match=r"version 3: 'model\.layers\.1.*q_proj' needs A, B"):
        whole_tensors(mapped(receivers[0], 3), torch.device("cpu"))


def test_without_adapters_the_whole_model_is_published(tmp_path: Path) -> None:
    make_model(tmp_path)
    model = load_model(tmp_path)

    state = weights_to_publish(model, complete=False, dtype=torch.bfloat16)

    assert state.keys() == full_state_dict(model).keys()
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}


def test_adapters_cannot_be_published_first(model: nn.Module, place: Place) -> None:
    nobody = ServerPlace(name=SERVER, address=Address(bind="/nobody"))
    publisher = WeightPublisher(Membership([nobody]), place.door, place.wire)
    publisher.start()
    try:
        with pytest.raises(ValueError, match="published before the weights they belong to"):
            publisher.publish(1, weights_to_publish(model, complete=False))
    finally:
        publisher.stop()
