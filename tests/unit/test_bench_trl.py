"""The benchmark beside TRL gives both sides the same work, and compares what it says."""

from dataclasses import replace
from pathlib import Path

import pytest

from actors.rewards.task_types import check_task
from benchmarks.trl.comparison import OURS, TRL, compare
from benchmarks.trl.curve import Point, SideRun, common_level, seconds_to, smooth_success
from benchmarks.trl.ours import our_settings
from benchmarks.trl.prompts import check_same_prompts, written_prompt
from benchmarks.trl.questions import addition_tasks, digit_tasks
from benchmarks.trl.work import Work, answer_reward, read_work, write_work
from common.errors import InputError
from common.wire.records import Task
from launch.run.config_pairs import check_pairs

WORK = Work(
    model="model", tasks="tasks.jsonl", steps=6, groups=2, group_size=4, action_tokens=32,
    learning_rate=1e-5, max_staleness=2, cores=2,
)  # fmt: skip
SUM = Task(task_id="t", question="What is 2 + 3?", answers=("5",), kind="number")


def side(step_s: float, success: list[float], cpu_s: float = 10.0) -> SideRun:
    points = [Point(seconds=step_s * (n + 1), success=s) for n, s in enumerate(success)]
    return SideRun(points=tuple(points), start_s=1.0, cpu_s=cpu_s, processes=3)


def test_success_is_averaged_over_the_last_steps() -> None:
    points = side(2.0, [0.0, 0.5, 1.0, 0.5]).points

    assert smooth_success(points, 2) == [0.25, 0.75, 0.75]
    assert seconds_to(0.75, points, 2) == 6.0
    assert seconds_to(0.8, points, 2) is None


def test_equal_success_is_what_the_slowest_learner_still_reached() -> None:
    good, bad = side(1.0, [0.0, 0.9, 0.9]), side(1.0, [0.0, 0.4, 0.2])

    assert common_level([good, bad], 1) == 0.4
    assert common_level([good, side(1.0, [0.5])], 2) is None


def test_ratios_say_how_many_times_faster_ours_is_in_the_median_round() -> None:
    ours = [side(step_s, [0.0, 0.6, 0.6, 0.8]) for step_s in (1.0, 2.0, 9.0)]
    trl = [side(step_s, [0.0, 0.0, 0.3, 0.6], cpu_s=15.0) for step_s in (5.0, 5.0, 1.0)]

    figures, ratios = compare({OURS: ours, TRL: trl}, batch=8, window=1)

    assert figures["ours_trajectories_per_s"] == 4.0
    assert figures["trl_trajectories_per_s"] == pytest.approx(1.6)
    assert figures["equal_success"] == 0.6
    assert (figures["ours_s_to_equal_success"], figures["trl_s_to_equal_success"]) == (4.0, 20.0)
    assert ratios == {
        "vs_trl": pytest.approx(2.5),
        "s_to_equal_success_vs_trl": 5.0,
        "cpu_time_vs_trl": 1.5,
    }


def test_staleness_and_processes_stand_beside_the_rates() -> None:
    ours = replace(side(1.0, [0.5]), staleness_mean=1.5, staleness_max=2, processes=7)

    figures, _ = compare({OURS: [ours], TRL: [side(1.0, [0.5])]}, batch=8, window=1)

    assert (figures["ours_staleness_mean"], figures["ours_staleness_max"]) == (1.5, 2)
    assert (figures["ours_processes"], figures["trl_processes"]) == (7, 3)
    assert figures["trl_staleness_max"] == 0


def test_prompts_in_other_tokens_are_refused_and_the_task_is_named() -> None:
    check_same_prompts([SUM], [[1, 2, 3]], [[1, 2, 3]])

    with pytest.raises(InputError, match=r"task 't' has other token ids .* from token 3 on"):
        check_same_prompts([SUM], [[1, 2, 3]], [[1, 2, 4]])
    with pytest.raises(InputError, match="from token 4 on"):
        check_same_prompts([SUM], [[1, 2, 3]], [[1, 2, 3, 4]])


def test_trl_is_given_the_context_of_direct_mode() -> None:
    assert written_prompt(SUM) == (
        "<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("text", "reward"),
    [("2 and 3 is 5.\nAnswer: 5<|im_end|>", 1), ("5", 1), ("Answer: 6", 0), ("", 0), ("five", 0)],
)
def test_a_message_is_rewarded_as_by_an_actor(text: str, reward: float) -> None:
    assert answer_reward(SUM, text) == reward


@pytest.mark.parametrize("tasks", [addition_tasks(400), digit_tasks(400)])
def test_questions_can_be_checked_and_none_is_asked_twice(tasks: list[Task]) -> None:
    for task in tasks:
        check_task(task)
        assert answer_reward(task, f"Answer: {task.answers[0]}") == 1
        assert answer_reward(task, "Answer: 1000") == 0
    assert len({task.question for task in tasks}) == len({task.task_id for task in tasks}) == 400


def test_the_work_is_read_back_by_the_process_that_does_it(tmp_path: Path) -> None:
    write_work(WORK, tmp_path / "work.json")

    assert read_work(tmp_path / "work.json") == WORK


def test_our_side_is_a_run_in_direct_mode_with_the_same_batch_and_lengths() -> None:
    config = our_settings(WORK, runs=Path("runs"), prompt_tokens=20)

    check_pairs(config)
    assert (config.agent.mode, config.agent.max_action_tokens) == ("direct", 32)
    assert config.model.max_context == 52
    assert config.learner.groups * config.learner.group_size == WORK.batch == 8
    assert (config.learner.learning_rate, config.learner.max_staleness) == (1e-5, 2)
    assert config.rewards.terms == {"exact_match": 1.0}
