import json
import random
from itertools import pairwise
from pathlib import Path

import pytest

from actors.tools.search.index import SearchIndex, build_index
from common.chat import parse_action
from common.config import World as WorldConfig
from common.config_file import load_config
from launch.data.world import names
from launch.data.world.demonstrator import PERFECT, Demonstrator
from launch.data.world.encyclopedia import Encyclopedia
from launch.data.world.files import evaluation_tasks, training_tasks, write_world
from launch.data.world.names import Pool
from launch.data.world.questions import FAMILIES, KINDS, TOPICS, Question, Wording, distinct
from launch.data.world.traces import SEARCH, open_index, traces

SEEDS = (0, 1, 2)
POOLS: tuple[Pool, ...] = ("train", "heldout", "unseen")


def heldout_names() -> set[str]:
    return {name for kind in ("person", "book", "town") for name in names.names(kind, "heldout")}


def names_in(text: str, wanted: set[str]) -> set[str]:
    """Two-word names of ``wanted`` that stand in ``text``, found by its adjacent words."""
    words = "".join(c if c.isalnum() else " " for c in text).split()
    return {f"{a} {b}" for a, b in pairwise(words)} & wanted


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, WorldConfig(seed=3, train_tasks=300))
    return folder


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_name_belongs_to_one_pool_and_three_in_ten_are_held_out() -> None:
    for kind in ("person", "book", "town"):
        train, heldout = names.names(kind, "train"), names.names(kind, "heldout")
        assert not set(train) & set(heldout)
        assert not {*train, *heldout} & set(names.names(kind, "unseen"))
        assert 0.25 < len(heldout) / (len(train) + len(heldout)) < 0.35


@pytest.mark.parametrize("seed", SEEDS)
def test_no_heldout_name_occurs_in_a_training_page_question_answer_or_trace(seed: int) -> None:
    heldout = heldout_names()
    world = Encyclopedia(seed, "train")
    tasks = list(training_tasks(world, 2000))
    texts = [page.text for page in world.pages]
    texts += [f"{task.question} . {' '.join(task.answers)}" for task in tasks]
    texts += [span.text for trace in traces(seed, 600) for span in trace]
    assert not names_in(" . ".join(texts), heldout)


@pytest.mark.parametrize("seed", SEEDS)
def test_subject_bridge_and_answer_of_a_heldout_question_are_held_out(seed: int) -> None:
    heldout = heldout_names()
    for task in evaluation_tasks(Encyclopedia(seed, "heldout"), 1000):
        mentioned = [task.labels["subject"], task.labels["bridge"], *task.answers]
        for name in mentioned:
            assert not name or name.isdigit() or name in heldout


def test_no_unseen_word_occurs_in_a_world_of_the_other_pools() -> None:
    unseen = {word for kind in ("person", "book", "town") for name in names.names(kind, "unseen")
              for word in name.split()}  # fmt: skip
    for pool in ("train", "heldout"):
        text = " ".join(page.text for page in Encyclopedia(0, pool).pages)
        assert not unseen & set(text.replace(",", " ").split())


def test_no_heldout_wording_is_used_elsewhere_and_none_stands_twice() -> None:
    used = [text for kind in KINDS.values() for text in kind.templates("more")]
    assert len(set(used)) == len(used)
    assert not set(used) & {text for kind in KINDS.values() for text in kind.templates("heldout")}


def test_demonstrations_in_more_wordings_use_all_but_those_that_are_held_out() -> None:
    def beginnings(wording: Wording) -> set[str]:
        texts = ["".join(span.text for span in spans) for spans in traces(3, 300, wording=wording)]
        templates = [template for kind in KINDS.values() for which in ("more", "heldout")
                     for template in kind.templates(which)]  # fmt: skip
        starts = {template.partition("{x}")[0] for template in templates} - {""}
        return {start for start in starts for text in texts if f"\n{start}" in text}

    assert "Tell me when " in beginnings("more")
    assert "Tell me when " not in beginnings("train")
    assert "What is the year when " not in beginnings("more")


def test_training_asks_in_more_wordings_only_where_that_is_wanted(tmp_path: Path) -> None:
    def questions(name: str, *, more: bool) -> str:
        folder = tmp_path / str(more)
        write_world(folder, WorldConfig(seed=3, train_tasks=300, more_wordings=more))
        return (folder / f"{name}.jsonl").read_text()

    assert "Tell me when " in questions("train", more=True)
    assert "Tell me when " not in questions("train", more=False)
    assert questions("heldout", more=True) == questions("heldout", more=False)


@pytest.mark.parametrize("pool", POOLS)
def test_the_good_strategy_answers_every_question(pool: Pool, tmp_path: Path) -> None:
    world = Encyclopedia(5, pool)
    index = open_index(world, tmp_path)
    rng = random.Random(0)
    demonstrator = Demonstrator(index.search, {}, rng, PERFECT)
    asked = [q for wording in ("more", "heldout") for family in FAMILIES
             for q in distinct(world, family, 2000, rng, wording)]  # fmt: skip
    assert {question.kind for question in asked} == set(KINDS)
    for question in asked:
        assert demonstrator.demonstrate(question).answer == question.answer


def run_codes(question: Question, search: SearchIndex) -> list[str]:
    submitted: list[str] = []
    tools = {
        "search": search.search,
        "submit_final_answer": lambda answer: submitted.append(str(answer)),
        "print": lambda *_: None,
    }
    subtracts = question.spec.subtract is not None
    for hop in question.hops:
        exec(f'print(search("{hop.entity} {TOPICS[hop.relation]}"))', dict(tools))
    earlier = int(question.hops[-1].value) if subtracts else 0
    answer = (
        f"{earlier + int(question.answer)} - {earlier}" if subtracts else f'"{question.answer}"'
    )
    exec(f"submit_final_answer({answer})", dict(tools))
    return submitted


def test_the_scripted_cells_submit_the_answer(tmp_path: Path) -> None:
    world = Encyclopedia(6, "heldout")
    index = open_index(world, tmp_path)
    for family in FAMILIES:
        for question in distinct(world, family, 100, random.Random(1)):
            assert run_codes(question, index) == [question.answer]


def test_the_bare_name_mostly_finds_the_wrong_page(tmp_path: Path) -> None:
    world = Encyclopedia(7, "train")
    index = open_index(world, tmp_path)
    subjects = [name for kind in ("person", "book", "town") for name in world.entities(kind)]
    right = sum(index.search(name).startswith(f"{name},") for name in subjects)
    assert 0.1 < right / len(subjects) < 0.45


@pytest.mark.parametrize("pool", POOLS)
def test_no_answer_is_in_its_question(pool: Pool) -> None:
    for task in evaluation_tasks(Encyclopedia(8, pool), 1000):
        assert task.answers[0] not in task.question


def test_a_world_is_a_pure_function_of_seed_and_pool() -> None:
    again, other = Encyclopedia(1, "train"), Encyclopedia(2, "train")
    assert Encyclopedia(1, "train").pages == again.pages != other.pages
    assert list(training_tasks(again, 50)) == list(training_tasks(Encyclopedia(1, "train"), 50))
    assert list(traces(3, 30)) == list(traces(3, 30)) != list(traces(4, 30))


def test_the_written_files_hold_both_families_and_index(written: Path, tmp_path: Path) -> None:
    heldout = records(written / "heldout.jsonl")
    families = [record["labels"]["family"] for record in heldout]  # type: ignore[index]
    assert families == ["one_hop"] * 1000 + ["two_hop"] * 1000
    assert len({record["task_id"] for record in heldout}) == 2000
    assert len({record["question"] for record in heldout}) == 2000
    assert len(records(written / "train.jsonl")) == 300
    for name in POOLS:
        assert build_index(written / f"{name}_corpus.jsonl", tmp_path / f"{name}.sqlite") > 500


def test_heldout_wordings_are_used_by_no_training_question(written: Path) -> None:
    trained = {wording for kind in KINDS.values() for wording in kind.wordings}
    assert not trained & {w for kind in KINDS.values() for w in kind.heldout_wordings}
    seen = {record["question"] for record in records(written / "heldout.jsonl")}
    extra = {record["question"] for record in records(written / "heldout_wordings.jsonl")}
    assert not seen & extra


def test_every_action_of_a_trace_parses_as_the_agent_would_read_it() -> None:
    for trace in traces(9, 100):
        assert not trace[0].action
        assert trace[-1].action
        for span in trace:
            assert (parse_action(span.text) is not None) is span.action


def test_demonstrations_search_as_the_policy_will() -> None:
    preset = Path(__file__).parents[2] / "launch" / "presets" / "quickstart.toml"

    assert load_config(preset).tools.search == SEARCH


def test_practice_puts_no_weight_on_thoughts_and_changes_no_text() -> None:
    for trace in traces(10, 50, practice=1.0):
        thoughts = [span for span in trace if span.text.startswith("<think>")]
        codes = [span for span in trace if span.text.startswith("<code>")]
        assert len(thoughts) == len(codes) > 0
        assert {span.weight for span in thoughts} == {0.0}
        assert {span.weight for span in codes} == {None}
        for thought, code in zip(thoughts, codes, strict=True):
            assert parse_action(thought.text + code.text) is not None
