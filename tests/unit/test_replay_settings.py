"""Which settings a replay may change, and what it calls a difference."""

import dataclasses
import json
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest

from common.config import Apg, Config, Objective
from common.errors import ConfigError, InputError
from common.json_output import json_text
from common.telemetry.step_record import StepRecord
from launch.replay.comparison import COUNTED, OF_A_LIVE_RUN, Recorded, differences
from launch.replay.outcome import ReplayOutcome, VariantOutcome
from launch.replay.variants import CHANGEABLE, at_ranks, variant_of
from launch.run.continuation import FIXED, FREE, names
from learner.replay.task import LastLogprobs, ReplayResult, TensorsCompared, TrialResult
from tests.step_records import make_record

OWN = Config(objective=Objective(apg=Apg(kappa=7.0)))


def result(*records: StepRecord, kept: TensorsCompared | None = None) -> ReplayResult:
    trial = TrialResult(
        records=records, weights=TensorsCompared(step=1, tensors=3),
        logprobs=LastLogprobs(tokens=2, mean=-1.0, difference=0.0),
    )  # fmt: skip
    batches = tuple((f"g{record.step}-0", f"g{record.step}-1") for record in records)
    return ReplayResult(ranks=1, batches=batches, trials=(trial,), kept=(kept,) if kept else ())


def recorded(*records: StepRecord) -> Recorded:
    """As a run left it in its files."""
    lines: dict[int, Any] = {
        record.step: json.loads(json_text(dataclasses.asdict(record))) for record in records
    }
    return Recorded(metrics=lines, batches={n: [f"g{n}-0", f"g{n}-1"] for n in lines})


def test_settings_of_the_step_make_a_variant() -> None:
    variant = variant_of(OWN, ["learner.learning_rate=0.5", "objective.discount=0.5"])

    assert variant.name == "learner.learning_rate=0.5 objective.discount=0.5"
    assert (variant.config.learner.learning_rate, variant.config.objective.discount) == (0.5, 0.5)
    assert variant.config.objective.apg == OWN.objective.apg


def test_another_objective_leaves_the_constants_of_the_first_behind() -> None:
    variant = variant_of(OWN, ["objective.name=gspo", "objective.gspo.clip=[0.1, 0.2]"])

    assert variant.config.objective.apg == Apg()
    assert variant.config.objective.gspo.clip == (0.1, 0.2)
    assert variant_of(OWN, ["objective.name=apg"]).config == OWN


@pytest.mark.parametrize(
    ("setting", "error", "reason"),
    [
        ("learner.groups=3", InputError, "--set learner.groups: a replay may change only what the"),
        ("run.steps=3", InputError, "--set run.steps: a replay may change only what the learner's"),
        ("learner.ranks=2", InputError, "--set learner.ranks: a replay may change only"),
        ("agent.temperature=0.5", InputError, "--set agent.temperature: a replay may change only"),
        ("objective.nam=gspo", ConfigError, "did you mean 'objective.name'"),
        ("objective", ConfigError, "must look like section.key=value"),
        ("objective.name=ppo", ConfigError, "must be one of 'apg', 'topr'"),
        ("objective.gspo.clip=[0.1, 0.2]", ConfigError, "is of objective.name = 'gspo'"),
        ("learner.pack_tokens=20", ConfigError, "must be at least model.max_context"),
    ],
)
def test_any_other_setting_is_refused_by_name(
    setting: str, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        variant_of(OWN, [setting])


def test_an_advantage_that_the_batches_cannot_have_is_refused() -> None:
    alone = replace(OWN, learner=replace(OWN.learner, group_size=1),
                    objective=Objective(advantage="reinforce_pp"))  # fmt: skip

    with pytest.raises(ConfigError, match="group_size must be at least 2"):
        variant_of(alone, ["objective.advantage=group_loo"])


def test_whatever_a_replay_may_change_a_resume_may_but_for_the_advantage() -> None:
    assert CHANGEABLE - names(FREE) == {"objective.advantage"} <= names(FIXED)


def test_another_number_of_ranks_has_no_replicas() -> None:
    own = replace(OWN, learner=replace(OWN.learner, ranks=4, replicas=2, first_gpu=3))

    same, other = at_ranks(own, 4).learner, at_ranks(own, 1).learner

    assert (same.ranks, same.replicas, same.first_gpu) == (4, 2, 0)
    assert (other.ranks, other.replicas, other.first_gpu) == (1, 1, 0)


def test_every_field_of_a_record_is_compared_or_tells_of_a_live_run() -> None:
    fields = {field.name for field in dataclasses.fields(StepRecord)}

    assert fields >= COUNTED | OF_A_LIVE_RUN
    for name in fields - {"step"}:
        now = make_record(1)
        value = getattr(now, name)
        other = {"x": 9} if isinstance(value, dict) else 9
        then = replace(now, **{name: other})
        same = replace(now, **{name: {"x": 8}}) if isinstance(value, dict) else now
        found = [one.what for one in differences(recorded(then), result(same), same_ranks=True)]
        assert found == ([] if name in OF_A_LIVE_RUN else [f"{name}.x"] if isinstance(value, dict)
                         else [name]), name  # fmt: skip


def test_numbers_are_the_same_to_the_last_bit_or_differ() -> None:
    then = make_record(1, loss=0.1, k3=nan)
    off = replace(then, loss=0.1 + 2**-56)

    assert differences(recorded(then), result(then), same_ranks=True) == []
    (found,) = differences(recorded(then), result(off), same_ranks=True)
    assert str(found) == "step 1: loss was 0.1 and is 0.10000000000000002"


def test_with_other_ranks_only_what_is_counted_and_the_order_can_differ() -> None:
    then = [make_record(1), make_record(2)]
    now = [replace(then[0], loss=5.0), replace(then[1], action_tokens=5)]
    was = recorded(*then)
    kept = TensorsCompared(step=2, tensors=3, differing=("model.a",))

    (found,) = differences(was, result(*now, kept=kept), same_ranks=False)
    assert (found.step, found.what) == (2, "action_tokens")
    was.batches[1].reverse()  # type: ignore[attr-defined]
    first, _ = differences(was, result(*now, kept=kept), same_ranks=False)
    assert str(first) == "step 1: trajectory 0 of the batch was g1-1 and is g1-0"


def test_tensors_that_differ_are_named_after_their_step() -> None:
    kept = TensorsCompared(step=2, tensors=3, differing=("model.a", "model.b"))

    (found,) = differences(recorded(), result(make_record(1), kept=kept), same_ranks=True)

    assert str(found).startswith("step 2: tensor model.a (and 1 more of 3) was ")


def outcome(*differing: tuple[str, ...], damage: str = "", off: bool = False) -> ReplayOutcome:
    """Of variants whose weights differ in these tensors; ``off``: the run's own settings do."""
    trial = result(make_record(1)).trials[0]
    variants = [
        VariantOutcome(
            "", "", replace(trial, weights=replace(trial.weights, differing=names))
        ) for names in ((), *differing)
    ]  # fmt: skip
    found = differences(recorded(make_record(1)), result(make_record(1, loss=9.0)), same_ranks=True)
    return ReplayOutcome(
        run=Path("r"), damage=damage, variants=tuple(variants), differences=tuple(found * off)
    )


def test_what_is_expected_is_turned_round_as_a_whole() -> None:
    same, other = (), ("model.a",)
    expected = [
        (outcome(), True, False),
        (outcome(off=True), False, True),
        (outcome(damage="x"), False, True),
        (outcome(same), True, False),
        (outcome(other), False, True),
        (outcome(other, same), False, False),
        (outcome(other, damage="x"), False, True),
    ]

    for found, identical, different in expected:
        assert found.is_as_expected(different=False) == identical
        assert found.is_as_expected(different=True) == different
