"""What must hold for every objective on every batch of actions, whatever their numbers."""

from dataclasses import replace
from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.config import Apg, Gspo, Objective, TokenTis, Topr
from learner.advantages import group_loo, reinforce_pp
from learner.objectives.penalties import entropy_bonus, kl_estimate, kl_penalty
from tests.drawn_actions import VERSION, Actions, actions, numbers, run

OBJECTIVES = {
    "apg": Objective(),
    "apg by actions": Objective(loss_norm="actions"),
    "apg tempered": Objective(apg=Apg(t_ref=2.0, kappa=0.5)),
    "topr": Objective(name="topr"),
    "token_tis": Objective(name="token_tis", token_tis=TokenTis(cap=1.5)),
    "token_tis with band": Objective(name="token_tis", token_tis=TokenTis(band=(0.5, 2.0))),
    "gspo": Objective(name="gspo"),
    "decoupled_ppo": Objective(name="decoupled_ppo"),
}
every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
properties = settings(max_examples=15, deadline=None, derandomize=True)


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(
        torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-4, atol=1e-5
    )


@every_objective
@properties
@given(st.data())
def test_order_of_actions_does_not_matter(objective: Objective, data: st.DataObject) -> None:
    batch = data.draw(actions())
    order = data.draw(st.permutations(range(len(batch.lengths))))

    straight, mixed = run(batch, objective), run(batch.of(order), objective)

    close(mixed.loss, straight.loss)
    for place, action in enumerate(order):
        close(mixed.gradient[mixed.owner == place], straight.gradient[straight.owner == action])
    assert torch.equal(mixed.result.verdicts.masked, straight.result.verdicts.masked[list(order)])


@every_objective
@properties
@given(st.data())
def test_a_masked_action_changes_only_what_is_divided_by(
    objective: Objective, data: st.DataObject
) -> None:
    batch = data.draw(actions())
    reason = data.draw(st.sampled_from(["stale", "veto", "not finite"]))
    length = data.draw(st.integers(1, 4))
    outcast = Actions(
        behaviour=[[nan if reason == "not finite" else -1.0] * length],
        deltas=[[20.0 if reason == "veto" else 0.1] * length],
        proximal=[[0.0] * length],
        versions=[[0 if reason == "stale" else VERSION] * length],
        advantages=[3.0],
    )
    alone = run(batch, objective)

    joined = run(batch.with_one(outcast), objective)
    same = run(batch.with_one(outcast), objective, normalisers=batch.normalisers)

    before, after = batch.normalisers, batch.with_one(outcast).normalisers
    by_actions = objective.loss_norm == "actions" or objective.name == "gspo"
    shrunk = before.actions / after.actions if by_actions else before.tokens / after.tokens
    close(same.loss, alone.loss)
    close(joined.loss, shrunk * alone.loss)
    close(same.gradient[:-length], alone.gradient)
    assert bool((same.gradient[-length:] == 0).all())
    assert bool(same.result.verdicts.masked[-1])


@every_objective
@properties
@given(actions(), st.floats(0.01, 100))
def test_loss_and_gradient_grow_with_the_advantages(
    objective: Objective, batch: Actions, factor: float
) -> None:
    grown = replace(batch, advantages=[factor * a for a in batch.advantages])

    once, more = run(batch, objective), run(grown, objective)

    torch.testing.assert_close(more.gradient, factor * once.gradient, rtol=1e-4, atol=1e-4)
    assert more.loss == pytest.approx(factor * once.loss, rel=1e-3, abs=1e-3)
    assert torch.equal(more.result.verdicts.masked, once.result.verdicts.masked)


@every_objective
@properties
@given(actions())
def test_the_gradient_is_zero_exactly_where_something_was_taken_away(
    objective: Objective, batch: Actions
) -> None:
    found = run(batch, objective)
    verdicts, owner = found.result.verdicts, found.owner
    advantages = torch.tensor(batch.advantages)

    zero = found.gradient == 0
    masked = verdicts.masked[owner]
    silent = (advantages == 0)[owner]
    assert bool(zero[masked | silent].all())
    assert bool((found.result.token_weights[masked] == 0).all())
    for action in range(len(batch.lengths)):
        own = owner == action
        if bool(verdicts.masked[action]) or abs(batch.advantages[action]) < 1e-6:
            continue
        assert int(zero[own].sum()) == int(verdicts.clipped_tokens[action])


@every_objective
@properties
@given(actions())
def test_weights_keep_their_limits(objective: Objective, batch: Actions) -> None:
    found = run(batch, objective)
    weights = found.result.token_weights

    assert bool(weights.isfinite().all())
    assert bool((weights >= 0).all())
    positive = torch.tensor(batch.advantages)[found.owner] >= 0
    if objective.name == "apg":
        assert bool((weights[positive] <= objective.apg.weight_limits_positive[1]).all())
        assert bool((weights[~positive] <= objective.apg.weight_limits_negative[1]).all())
    if objective.name == "topr":
        kept = weights[positive][weights[positive] != 0]
        assert bool((kept == 1).all())
        assert bool((weights[~positive] <= 1).all())
    if objective.name == "token_tis":
        assert bool((weights <= objective.token_tis.cap).all())


@every_objective
@properties
@given(st.data())
def test_losses_gradients_and_verdicts_of_packs_add_up(
    objective: Objective, data: st.DataObject
) -> None:
    batch = data.draw(actions())
    count = len(batch.lengths)
    packs = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    whole = run(batch, objective)

    total, clipped, masked = 0.0, 0, 0
    for pack in sorted(set(packs)):
        members = [i for i in range(count) if packs[i] == pack]
        part = run(
            batch.of(members), objective,
            normalisers=batch.normalisers, places=members, count=count,
        )  # fmt: skip
        total += part.loss
        clipped += int(part.result.verdicts.clipped_tokens.sum())
        masked += int(part.result.verdicts.masked.sum())
        for member in members:
            close(part.gradient[part.owner == member], whole.gradient[whole.owner == member])

    close(total, whole.loss)
    assert clipped == int(whole.result.verdicts.clipped_tokens.sum())
    assert masked == int(whole.result.verdicts.masked.sum())


@properties
@given(actions(), st.sampled_from([(0.0, 2.0), (0.5, 1.0)]), st.sampled_from([(0.0, 1.0)]))
def test_apg_mirrors_when_advantages_and_limits_change_sides(
    batch: Actions, first: tuple[float, float], second: tuple[float, float]
) -> None:
    mirrored = replace(batch, advantages=[-a for a in batch.advantages])
    free = {"kappa": inf, "t_ref": 3.0}

    one = run(
        batch,
        Objective(apg=Apg(weight_limits_positive=first, weight_limits_negative=second, **free)),
    )
    other = run(
        mirrored,
        Objective(apg=Apg(weight_limits_positive=second, weight_limits_negative=first, **free)),
    )

    close(other.loss, -one.loss)
    close(other.gradient, -one.gradient)


@properties
@given(actions())
def test_topr_is_apg_with_its_limits_and_mirrors_likewise(batch: Actions) -> None:
    mirrored = replace(batch, advantages=[-a for a in batch.advantages])
    limits = {"weight_limits_positive": (0.0, 1.0), "weight_limits_negative": (1.0, 1.0)}

    one = run(batch, Objective(name="topr", topr=Topr(kappa=inf)))
    other = run(mirrored, Objective(apg=Apg(t_ref=inf, kappa=inf, **limits)))  # type: ignore[arg-type]

    close(other.loss, -one.loss)
    close(other.gradient, -one.gradient)


@properties
@given(actions())
def test_token_weights_do_not_know_the_sign_of_the_advantage(batch: Actions) -> None:
    mirrored = replace(batch, advantages=[-a for a in batch.advantages])

    one, other = (run(b, OBJECTIVES["token_tis with band"]) for b in (batch, mirrored))

    close(other.loss, -one.loss)
    close(other.gradient, -one.gradient)


@pytest.mark.parametrize("name", ["apg", "topr"])
@properties
@given(actions())
def test_the_trust_region_mirrors_with_ratio_and_advantage(name: Any, batch: Actions) -> None:
    mirrored = replace(
        batch,
        advantages=[-a for a in batch.advantages],
        deltas=[[-d for d in own] for own in batch.deltas],
        # A difference of float32 numbers mirrors exactly around 0 only.
        behaviour=[[0.0] * len(own) for own in batch.behaviour],
    )
    straight = replace(batch, behaviour=mirrored.behaviour)

    outside = [
        run(b, Objective(name=name)).result.verdicts.outside_trust_region
        for b in (straight, mirrored)
    ]

    assert torch.equal(*outside)


@properties
@given(numbers(0.25, 1.75), numbers(-2, 2), numbers(0, 0.5), numbers(0, 0.5))
def test_a_clip_mirrors_around_a_ratio_of_one(
    ratio: float, advantage: float, low: float, high: float
) -> None:
    near = min(abs(ratio - 1 - high), abs(1 - low - ratio)) < 1e-4

    def is_clipped(value: float, sign: int, clip: tuple[float, float]) -> bool:
        one = Actions(
            behaviour=[[0.0]], deltas=[[float(np.log(value))]], proximal=[[0.0]],
            versions=[[VERSION]], advantages=[sign * advantage],
        )  # fmt: skip
        found = run(one, Objective(name="gspo", gspo=Gspo(clip=clip)))
        return bool(found.result.verdicts.clipped_tokens[0])

    assert near or is_clipped(ratio, 1, (low, high)) == is_clipped(2 - ratio, -1, (high, low))


@every_objective
@properties
@given(st.data())
def test_nothing_is_infinite_however_far_apart_the_policies_are(
    objective: Objective, data: st.DataObject
) -> None:
    batch = data.draw(actions(spread=1e4))
    broken = data.draw(st.sampled_from([nan, inf, -inf, -9999.0]))
    place = data.draw(st.integers(0, len(batch.lengths) - 1))
    rows = [list(own) for own in batch.behaviour]
    rows[place][0] = broken

    found = run(replace(batch, behaviour=rows), objective)

    assert np.isfinite(found.loss)
    assert bool(found.gradient.isfinite().all())
    assert bool(found.result.token_weights.isfinite().all())


@properties
@given(
    st.lists(st.tuples(numbers(-8, 0), numbers(-8, 0), numbers(0, 2)), min_size=1, max_size=8),
    st.sampled_from(["k1", "k2", "k3"]),
    st.integers(0, 8),
)
def test_penalties_of_packs_add_up_and_divergences_are_not_negative(
    rows: list[tuple[float, float, float]], estimator: Any, cut: int
) -> None:
    own, other, weights = (torch.tensor(column) for column in zip(*rows, strict=True))
    parts = [slice(0, cut), slice(cut, None)]

    def penalty(part: slice) -> Tensor:
        return kl_penalty(
            own[part], other[part], weights[part], estimator=estimator, num_action_tokens=len(rows)
        )

    def bonus(part: slice) -> Tensor:
        return entropy_bonus(-own[part], weights[part], num_action_tokens=len(rows))

    close(sum(penalty(part) for part in parts), penalty(slice(None)))
    close(sum(bonus(part) for part in parts), bonus(slice(None)))
    assert estimator == "k1" or bool((kl_estimate(own, other, estimator) >= -1e-6).all())


returns_of_a_group = st.lists(
    st.lists(numbers(-2, 2), min_size=1, max_size=4).map(np.array), min_size=2, max_size=5
)


@properties
@given(st.lists(returns_of_a_group, min_size=1, max_size=3), st.data())
def test_group_advantages_ignore_order_offset_and_scale(
    groups: list[list[Any]], data: st.DataObject
) -> None:
    flat = [own for group in groups for own in group]
    names = [str(number) for number, group in enumerate(groups) for _ in group]
    order = data.draw(st.permutations(range(len(flat))))
    offset = data.draw(numbers(-1, 1))
    moved = [3.0 * own + offset * (name == "0") for own, name in zip(flat, names, strict=True)]

    expected = group_loo(flat, names, clip=5.0)
    mixed = group_loo([flat[i] for i in order], [names[i] for i in order], clip=5.0)

    for place, index in enumerate(order):
        np.testing.assert_allclose(mixed[place], expected[index], rtol=1e-6, atol=1e-9)
    spread = np.concatenate([own - np.mean(own) for own in group_loo(flat, names, clip=inf)]).std()
    if spread > 1e-3:
        for found, own in zip(group_loo(moved, names, clip=5.0), expected, strict=True):
            np.testing.assert_allclose(found, own, rtol=1e-2, atol=1e-2)


thousandths = st.integers(-2000, 2000).map(lambda number: number / 1000)


@properties
@given(st.lists(st.lists(thousandths, min_size=0, max_size=4).map(np.array), max_size=6))
def test_whitened_returns_have_mean_zero_and_unit_spread_or_are_all_zero(
    returns: list[Any],
) -> None:
    every = np.concatenate([np.zeros(0), *reinforce_pp(returns, clip=inf)])

    assert not every.any() or abs(every.mean()) < 1e-5
    assert not every.any() or every.std(ddof=1) == pytest.approx(1.0, abs=1e-3)
    assert bool(every.any()) == (len(set(np.concatenate([np.zeros(0), *returns]).tolist())) > 1)
