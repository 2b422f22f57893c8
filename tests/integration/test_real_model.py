"""A real pretrained model, all the way: checked, warm-started, at work, trained, written, checked.

It knows nothing of notebooks, so ``lzero sft`` shows it the form of an action first.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from actors.agent.notebook_agent import NotebookAgent
from common.config_file import load_config
from tests.policy_server import chat_server_of
from tests.real_model import UnreachableError, bring_real_model

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.vllm, pytest.mark.sandbox]

QUESTIONS = (
    ("Mira has 3 boxes with 4 pencils each and gives 5 away. How many are left?", "3 * 4 - 5"),
    ("A bus starts with 12 people; 4 get on at each of 3 stops. How many are in it?", "12 + 3 * 4"),
    ("Jonas reads 15 of 100 pages a day, for 6 days. How many are left?", "100 - 6 * 15"),
    ("A farmer sells 8 baskets for $6 each and buys seed for $20. What is left?", "8 * 6 - 20"),
    ("Lena walks 2 km to school and back on 5 days. How many km is that?", "5 * 2 * 2"),
    ("A baker packs 48 rolls in bags of 6 and sells 5. How many bags are left?", "48 // 6 - 5"),
    ("Tom is 4 years older than Eva, and she twice as old as Ben, 5. How old is Tom?", "2 * 5 + 4"),
    ("A tank holds 90 litres. A third is used. How many litres are left?", "90 - 90 // 3"),
    ("Nine friends share 72 nuts. How many does each get?", "72 // 9"),
    ("A hall has 14 rows of 20 seats, 35 of them broken. How many are whole?", "14 * 20 - 35"),
    ("Ida saves $7 a week for 8 weeks and spends $16. How many has she left?", "7 * 8 - 16"),
    ("A wall needs 250 bricks; 3 pallets of 60 came. How many are missing?", "250 - 3 * 60"),
)
"""Questions of our own, in the shape of GSM8K, with the calculation that answers each."""

SETTINGS = """
[run]
name = "real"
steps = 2

[model]
path = "warm"
max_context = 1024

[tasks]
train = "data/tasks.jsonl"

[agent]
tools = ["submit_final_answer"]
max_action_tokens = 48
max_steps = 2

[rewards.terms]
length = -1.0            # so that episodes differ whatever they answer

[policy_server]
max_sequences = 8
memory_gib = 0.5

[actors]
episodes = 8

[learner]
groups = 2
group_size = 4
pack_tokens = 1024
learning_rate = 1e-5
warmup_steps = 1
max_staleness = 1

[kernel]
idle = 2
"""


IMPORTED = "imported.txt"
"""What was printed when the model was imported and checked."""

LIMIT_S = 600


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder: ``model``, and ``warm``, the same after a few traces of actions.

    It is removed at the end: pytest would keep some GiB of checkpoints.
    """
    folder = tmp_path_factory.mktemp("real")
    try:
        file = bring_real_model(folder)
    except UnreachableError as error:
        pytest.skip(f"no pretrained model: {error}")
    (folder / IMPORTED).write_text(lzero(folder, "import-gguf", file.name, "--out", "model"))
    write_questions(folder)
    (folder / "real.toml").write_text(SETTINGS)
    lzero(folder, "tasks", "convert", "gsm8k.jsonl", "--out", "data")
    lzero(folder, "sft", *FINE_TUNING)
    yield folder
    shutil.rmtree(folder)


def lzero(folder: Path, *words: str) -> str:
    """What the command prints, run in ``folder``; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "launch.cli", *words],
        cwd=folder, capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


FINE_TUNING = (
    "--model=model", "--traces=traces.jsonl", "--output=warm", "--epochs=2", "--batch=3",
    "--optimizer=adamw", "--adamw-learning-rate=3e-4", "--warmup-steps=1", "--normaliser=30",
    "--threads=2",
)  # fmt: skip


def write_questions(folder: Path) -> None:
    """``gsm8k.jsonl`` in the published shape, and ``traces.jsonl``: one right action for each."""
    rows, traces = [], []
    for question, sum_ in QUESTIONS:
        result = eval(sum_)
        rows.append({"question": question, "answer": f"{sum_} = {result}\n#### {result}"})
        action = f"<think>That is {sum_}.</think><code>submit_final_answer({sum_})</code>"
        said = ("user", question), ("assistant", action)
        traces.append({"messages": [{"role": role, "content": text} for role, text in said]})
    for name, lines in (("gsm8k.jsonl", rows), ("traces.jsonl", traces)):
        (folder / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_the_imported_folder_can_be_trained_served_and_written_again(place: Path) -> None:
    printed = (place / IMPORTED).read_text()

    assert "family llama, 272 tensors" in printed
    assert "ok   config: family llama, 30 layers of width 576" in printed
    assert "134,515,008 parameters" in printed
    assert "ok   vllm: its loader filled all" in printed


def test_it_works_in_a_notebook_and_submits_answers(place: Path) -> None:
    settings = [f"model.path={place / 'warm'}", "agent.temperature=0"]
    config = load_config(place / "real.toml", settings)

    with chat_server_of(config, place) as url, NotebookAgent(base_url=url, config=config) as agent:
        episodes = [agent.run(question) for question, _ in QUESTIONS[:3]]

    assert not any(episode.failure for episode in episodes)
    assert sum(episode.cells_executed > 0 for episode in episodes) >= 2
    assert any(episode.answer is not None for episode in episodes)


def test_two_asynchronous_steps_train_it_and_the_export_is_a_sound_model(place: Path) -> None:
    lzero(place, "train", "real.toml")

    check_the_run(place / "runs" / "real")
    lzero(place, "export", "runs/real", "--out", "trained")
    assert "ok   round trip" in lzero(place, "import-check", "trained", "--no-vllm")
    before, after = (load_file(place / name / "model.safetensors") for name in ("warm", "trained"))
    assert set(before) == set(after)
    changed = [name for name in before if not torch.equal(before[name].float(), after[name])]
    assert len(changed) > len(before) // 2


def check_the_run(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["weight_versions"]) == ("finished", 3)
    assert summary["trajectories"]["trained"] == 16
    assert summary["sandbox"]["cells_executed"] > 0
    assert summary["logprob_mismatch"]["tokens"] > 0
    assert summary["logprob_mismatch"]["mean_abs"] < 1e-3
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(step["signal_share"] > 0 and step["grad_norm"] > 0 for step in steps)
