"""From episodes to scores, comparisons and settings: pure parts of ``lzero eval``."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.episode_record import EvaluationRecord
from common.errors import InputError
from common.wire.records import Outcome, Task
from launch.evaluate.comparison import compare_results
from launch.evaluate.folder import AskedSet, EvalFolder, EvalSettings, opened
from launch.evaluate.published import published, tables_beside
from launch.evaluate.request import Prices
from launch.evaluate.results import score, score_group
from launch.evaluate.show import told_failures

FREE = Prices()


def episode(
    number: int,
    right: float,
    *,
    question_set: str = "towns",
    sample: int = 0,
    family: str = "all",
    kind: str = "qa",
    outcome: Outcome = Outcome.SUBMITTED,
    f1: float | None = None,
) -> EvaluationRecord:
    task = Task(
        task_id=f"{question_set}-{number}",
        question=f"Which {number}?",
        answers=("1",),
        kind=kind,
        labels={"family": family},
    )
    scores = dict.fromkeys(("exact_match", "squad_exact_match", "contains"), right)
    return EvaluationRecord(
        outcome=outcome.value,
        answer="x",
        scores=scores | dict.fromkeys(("f1", "squad_f1"), right if f1 is None else f1),
        steps=(),
        tokens_generated=10,
        prompt_tokens=100,
        task=task,
        weight_version=0,
        question_set=question_set,
        sample=sample,
        seconds=2.0,
    )


def settings(*names: str) -> EvalSettings:
    sets = tuple(AskedSet(name=name, tasks=f"{name}.jsonl", digest="d") for name in names)
    return EvalSettings(
        model="m", sets=sets, mode="direct", samples=1, limit=0, temperature=0.0, config={"a": 1}
    )


def test_a_task_counts_once_however_many_samples_it_has() -> None:
    records = [episode(0, 1.0, sample=s) for s in range(6)] + [episode(1, 0.0), episode(2, 0.0)]

    group = score_group(records, FREE)

    assert group.scores["exact_match"].mean == pytest.approx(1 / 3)
    assert (group.tasks, group.episodes) == (3, 8)
    assert group.pass_at == {}


def test_an_episode_that_failed_through_us_is_no_observation() -> None:
    records = [episode(0, 1.0), episode(1, 0.0, outcome=Outcome.INFRASTRUCTURE)]

    group = score_group(records, FREE)

    assert (group.scores["exact_match"].mean, group.tasks, group.failed) == (1.0, 1, 1)


def test_a_time_out_of_the_models_own_is_one() -> None:
    assert score_group([episode(0, 0.0, outcome=Outcome.TIMED_OUT)], FREE).tasks == 1


def test_shares_have_the_interval_of_wilson_and_other_means_that_of_resampling() -> None:
    records = [episode(n, 1.0, f1=1.0 if n else 0.5) for n in range(10)]

    scores = score_group(records, FREE).scores

    assert scores["exact_match"].low == pytest.approx(0.722, abs=1e-3)
    assert scores["f1"].mean == pytest.approx(0.95)
    assert 0.8 <= scores["f1"].low < scores["f1"].high == 1.0


def test_only_what_all_kinds_measure_is_averaged_over_them() -> None:
    records = [episode(0, 1.0), episode(0, 1.0, question_set="sums", kind="number")]

    results = score(settings("towns", "sums"), records, FREE)

    assert "f1" in results.sets["towns"].scores
    assert results.overall is not None
    assert set(results.overall.scores) == {"exact_match"}
    assert results.mean_of_sets == {"exact_match": 1.0}


def test_the_mean_of_sets_counts_each_set_once() -> None:
    records = [episode(n, 1.0) for n in range(9)] + [episode(0, 0.0, question_set="other")]

    results = score(settings("towns", "other"), records, FREE)

    assert results.mean_of_sets["exact_match"] == 0.5
    assert results.overall is not None
    assert results.overall.scores["exact_match"].mean == 0.9


def test_families_are_shown_where_a_set_has_several() -> None:
    records = [episode(0, 1.0, family="a"), episode(1, 0.0, family="b")]

    assert set(score(settings("towns"), records, FREE).families["towns"]) == {"a", "b"}
    assert score(settings("towns"), records[:1], FREE).families == {}


def test_a_set_without_episodes_knows_nothing() -> None:
    lost = episode(0, 0.0, question_set="other", outcome=Outcome.INFRASTRUCTURE)

    results = score(settings("towns", "other"), [episode(0, 1.0), lost], FREE)

    assert (results.sets["other"].tasks, results.sets["other"].scores) == (0, {})
    assert results.mean_of_sets == {}


def test_why_episodes_failed_is_told_with_the_most_common_reason_first() -> None:
    records = [
        replace(episode(n, 0.0, outcome=Outcome.INFRASTRUCTURE), failure=f"reason {n // 3 or n}")
        for n in range(6)
    ]

    results = score(settings("towns"), [*records, episode(9, 1.0)], FREE)

    assert next(iter(results.failures.items())) == ("reason 1", 4)
    one_cause = [replace(one, failure=f"no letter of task {one.task.task_id!r}") for one in records]
    assert score(settings("towns"), one_cause, FREE).failures == {"no letter": 6}
    assert told_failures(results)[1:] == ["  4 x reason 1", "  1 x reason 0", "  1 x reason 2"]
    assert told_failures(score(settings("towns"), [], FREE)) == []


def test_cost_is_that_of_an_episode_and_absent_without_prices() -> None:
    prices = Prices(prompt=3.0, generated=6.0)

    assert score_group([episode(0, 1.0)], prices).cost == pytest.approx(100 * 3e-6 + 10 * 6e-6)
    assert score_group([episode(0, 1.0)], FREE).cost is None
    assert Prices(generated=1.0).cost(5, 1_000_000) == 1.0


def test_results_are_compared_over_the_same_questions_only() -> None:
    first = [episode(n, 1.0) for n in range(4)]
    second = [episode(n, float(n == 0)) for n in range(1, 3)] + [episode(9, 1.0)]
    changed = replace(episode(3, 1.0), task=replace(episode(3, 1.0).task, question="Other?"))

    comparison = compare_results(first, [*second, changed], "b", ["towns"])

    difference = comparison.sets["towns"]["exact_match"]
    assert (comparison.common, comparison.changed) == (2, 1)
    assert (difference.mean, difference.n) == (1.0, 2)
    assert list(comparison.sets) == ["towns"]


def test_several_sets_are_compared_one_by_one_and_together() -> None:
    first = [episode(0, 1.0), episode(0, 1.0, question_set="other")]
    second = [episode(0, 0.0), episode(0, 1.0, question_set="other")]

    comparison = compare_results(first, second, "b", ["other", "towns"])

    assert {name: one["exact_match"].mean for name, one in comparison.sets.items()} == {
        "towns": 1.0,
        "other": 0.0,
    }
    assert list(comparison.sets) == ["other", "towns"]
    assert comparison.overall["exact_match"].mean == 0.5


def test_sets_that_share_questions_are_compared_each_with_its_own_episodes() -> None:
    def asked(right: float, name: str) -> EvaluationRecord:
        return replace(episode(0, right), question_set=name)

    first = [asked(1.0, "all"), asked(0.0, "part")]
    comparison = compare_results(
        first, [asked(0.0, "all"), asked(1.0, "part")], "b", ["all", "part"]
    )

    assert {name: one["exact_match"].mean for name, one in comparison.sets.items()} == {
        "all": 1.0,
        "part": -1.0,
    }
    assert comparison.common == 2
    renamed = compare_results(first, [asked(0.0, "another")], "b", ["all", "part"])
    assert renamed.sets["all"]["exact_match"].mean == 1.0
    assert renamed.common == 2


def test_questions_of_another_kind_are_compared_by_what_both_measure() -> None:
    judged = replace(episode(0, 1.0), task=replace(episode(0, 1.0).task, kind="judged"))

    comparison = compare_results([episode(0, 0.0)], [judged], "b", ["towns"])

    assert set(comparison.sets["towns"]) == {"exact_match"}


def test_results_without_a_common_task_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="--against there: no task that was"):
        compare_results([episode(0, 1.0)], [episode(1, 1.0)], "there", ["towns"])


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()

    with (
        pytest.raises(InputError, match=r"holds no result of lzero eval \(but thesis.tex\)"),
        opened(EvalFolder(tmp_path), settings("towns")),
    ):
        pass

    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_settings_may_change_as_long_as_nothing_was_asked(tmp_path: Path) -> None:
    folder = EvalFolder(tmp_path / "out")
    with opened(folder, settings("towns")):
        folder.episodes.touch()

    with opened(folder, settings("others")):
        folder.episodes.write_text("{}")

    assert folder.read_settings().names == ("others",)
    with pytest.raises(InputError, match="other settings"), opened(folder, settings("towns")):
        pass


def test_two_commands_never_write_to_one_folder(tmp_path: Path) -> None:
    folder = EvalFolder(tmp_path / "out")

    with (
        opened(folder, settings("towns")),
        pytest.raises(InputError, match="another lzero command is at work"),
        opened(folder, settings("towns")),
    ):
        pass

    assert folder.path.stat().st_mode & 0o077 == 0


MEANS = {
    ("Search-R1", "7B Search-R1-base PPO"): 0.431,
    ("Search-R1", "7B Search-R1-instruct PPO"): 0.385,
    ("Search-R1", "7B RAG"): 0.304,
    ("Search-R1", "3B Search-R1-instruct GRPO"): 0.336,
    ("Search-R1", "14B Search-R1-base PPO"): 0.479,
    ("ZeroSearch", "7B ZeroSearch base"): 0.4093,
    ("ZeroSearch", "Qwen2.5-3B direct"): 0.1500,
    ("ZeroSearch", "Llama-3.2-3B ZeroSearch instruct"): 0.3098,
}


def test_the_means_of_published_rows_are_those_that_were_published() -> None:
    means = {(t.name, row.name): row.mean(t.sets) for t in published().tables for row in t.rows}

    assert {name: means[name] for name in MEANS} == pytest.approx(MEANS, abs=6e-4)


def test_every_set_of_a_suite_has_a_title_and_a_home() -> None:
    names = {name for sets in published().suites.values() for name in sets}

    assert names == set(published().titles) == set(published().homes)
    assert len(published().suites["qa"]) == 8
    assert tables_beside(("gsm8k",)) == ()
