"""TRL's side: ``python -m benchmarks.trl.peer --work FILE --out FILE``, a process of its own.

GRPOTrainer at its defaults, generation by transformers, but for batch, group size, lengths,
learning rate and its schedule; and but for two defaults that would cost it time here: it computes
in float32, since bfloat16 is slower on processors without units for it, and keeps activations
instead of computing them twice.
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback

from benchmarks.trl.prompts import check_same_prompts, our_prompts, written_prompt
from benchmarks.trl.work import Work, answer_reward, read_work
from common.errors import LZeroError
from common.json_output import json_text
from common.tasks import read_tasks
from common.wire.records import Task

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # It says that it does not know this version of vLLM.
    from trl import GRPOConfig, GRPOTrainer


class Recorder(TrainerCallback):
    """Rewards answers, and notes the success of each batch and when its step ended."""

    def __init__(self, tasks: list[Task]) -> None:
        self._tasks = {task.task_id: task for task in tasks}
        self._success: list[float] = []
        self._began = 0.0
        self.points: list[tuple[float, float]] = []

    def exact_match(self, *, completions: list[str], task_id: list[str], **_: Any) -> list[float]:
        """TRL's reward function: one number per answer."""
        pairs = zip(task_id, completions, strict=True)
        rewards = [answer_reward(self._tasks[name], text) for name, text in pairs]
        self._success.append(fmean(rewards))
        return rewards

    def begin(self) -> None:
        """Training begins."""
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """An optimizer step ended."""
        self.points.append((time.perf_counter() - self._began, self._success[-1]))


def trl_settings(work: Work, output: Path) -> dict[str, Any]:
    """What is not TRL's default."""
    return {
        "output_dir": str(output),
        "max_steps": work.steps,
        "per_device_train_batch_size": work.batch,
        "num_generations": work.group_size,
        "max_completion_length": work.action_tokens,
        "learning_rate": work.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": work.warmup_steps,
        "temperature": work.temperature,
        "seed": work.seed,
        "bf16": False,
        "gradient_checkpointing": False,
        "model_init_kwargs": {"dtype": "float32"},
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def train(work: Work) -> list[tuple[float, float]]:
    """Seconds and success of each step.

    Raises:
        InputError: the prompts are not ours, or a file cannot be used.
    """
    tasks = read_tasks(Path(work.tasks))
    recorder = Recorder(tasks)
    with tempfile.TemporaryDirectory() as output:
        trainer = GRPOTrainer(
            model=work.model,
            reward_funcs=recorder.exact_match,
            args=GRPOConfig(**trl_settings(work, Path(output))),
            train_dataset=Dataset.from_list(
                [{"prompt": written_prompt(task), "task_id": task.task_id} for task in tasks]
            ),
            callbacks=[recorder],
        )
        theirs, *_ = trainer._tokenize_prompts([written_prompt(task) for task in tasks])
        check_same_prompts(tasks, our_prompts(tasks, Path(work.model)), theirs)
        recorder.begin()
        trainer.train()
    return recorder.points


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    work = read_work(options.work)
    torch.set_num_threads(work.cores)
    try:
        points = train(work)
    except LZeroError as error:
        print(error, file=sys.stderr)
        return 2
    options.out.write_text(json_text(points) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
