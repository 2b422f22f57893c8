"""A recipe makes the same training set each time, without what evaluation sets ask."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError, InputError
from common.tasks import read_tasks, write_tasks
from common.wire.records import Task
from launch.cli import main
from launch.data.mix.choice import components, quotas, script_share, set_aside, shuffled
from launch.data.mix.mixing import mix
from launch.data.mix.overlap import EvaluationIndex, entities, question_key
from launch.data.mix.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]


def task(task_id: str, question: str, *answers: str, kind: str = "qa") -> Task:
    return Task(task_id=task_id, question=question, answers=answers or ("Bo",), kind=kind)


def numbered(name: str, count: int) -> list[Task]:
    return [task(f"{name}-{n}", f"Who is {name} number {n}?", f"{name} {n}") for n in range(count)]


def recipe(folder: Path, text: str, **sources: list[Task]) -> Path:
    for name, tasks in sources.items():
        write_tasks(tasks, folder / f"{name}.jsonl")
    file = folder / "recipe.toml"
    file.write_text(text.replace("DIR", str(folder)))
    return file


def source(name: str, more: str = "") -> str:
    return f'\n[[sources]]\nname = "{name}"\npath = "DIR/{name}.jsonl"\n{more}\n'


def test_weights_seed_and_split_make_the_same_bytes_every_time(tmp_path: Path) -> None:
    text = "[mix]\ntasks = 40\nheldout = 10\n" + source("a", "weight = 3") + source("b")
    file = recipe(tmp_path, text, a=numbered("a", 100), b=numbered("b", 100))

    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        mix(file, out)

    for name in ("train.jsonl", "heldout.jsonl", "manifest.json"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
    train, heldout = (read_tasks(outs[0] / name) for name in ("train.jsonl", "heldout.jsonl"))
    assert (len(train), len(heldout)) == (40, 10)
    taken = Counter(found.task_id[0] for found in (*train, *heldout))
    assert abs(taken["a"] - 37.5) <= 0.5


def test_the_order_of_lines_makes_no_difference_also_among_duplicates(tmp_path: Path) -> None:
    text = "[mix]\ntasks = 40\nheldout = 10\n" + source("a")
    twice = [*numbered("a", 20), *(task(f"b-{n}", f"who is a number {n}?") for n in range(20))]

    made = []
    for order in (twice, twice[::-1]):
        mix(recipe(tmp_path, text, a=order), tmp_path / "out")
        made.append(
            [read_tasks(tmp_path / "out" / name) for name in ("train.jsonl", "heldout.jsonl")]
        )

    assert made[0] == made[1]
    assert {found.task_id[0] for tasks in made[0] for found in tasks} == {"a"}


@pytest.mark.parametrize("name", ["train", "heldout"])
def test_a_file_that_is_read_is_never_written_over(tmp_path: Path, name: str) -> None:
    file = recipe(tmp_path, "[mix]\ntasks = 4\n" + source(name), **{name: numbered("a", 9)})
    before = (tmp_path / f"{name}.jsonl").read_bytes()

    with pytest.raises(InputError, match=f"{name}.jsonl is read, and --out"):
        mix(file, tmp_path)

    assert (tmp_path / f"{name}.jsonl").read_bytes() == before


def test_the_manifest_counts_every_task_of_every_source(tmp_path: Path) -> None:
    rows = [
        task("a-0", "Who wrote the book?"),
        task("a-1", "who wrote  the book ?"),
        task("a-2", "Кто написал эту книгу?"),
        task("a-3", "What?"),
        task("a-4", "What is 1 + 1 in words, please?", "2", kind="number"),
        task("a-5", "Which river flows through the old town of Bären-Stadt?", "Aller"),
        task("a-6", "Who is easy to find here?"),
        task("a-7", "Who was never measured here?"),
        task("a-8", "Who is neither easy nor hard to find?"),
    ]
    text = (
        '[mix]\ntasks = 9\nngram = 8\nevaluation = ["DIR/eval.jsonl"]\n'
        '[filters]\nmin_characters = 10\nkinds = ["qa"]\nscripts = ["latin"]\n'
        '[difficulty]\nresults = "DIR/results.jsonl"\nmax = 0.8\n'
    ) + source("a", 'licence = "CC0"')
    asked = task("e", "Tell me which river flows through the old town of Bären-Stadt, in Saxony.")
    file = recipe(tmp_path, text, a=rows, eval=[asked])
    rates: list[dict[str, Any]] = [
        {"task_id": "a-0", "scores": {"exact_match": 0}},
        {"task_id": "a-0", "exact_match": 1.0},
        {"task_id": "a-8", "pass_rate": 0.5},
        {"task_id": "a-6", "pass_rate": 1},
    ]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, rates)))

    mix(file, tmp_path / "out")

    (row,) = json.loads((tmp_path / "out" / "manifest.json").read_text())["sources"]
    assert row["left_out"] == {
        "duplicate": 1,
        "filter: length of question": 1,
        "filter: kind": 1,
        "filter: script": 1,
        f"evaluation: {tmp_path}/eval.jsonl: words of the question": 1,
        "difficulty: too easy": 1,
        "difficulty: without a pass rate": 1,
    }
    assert row["read"] == sum(row["left_out"].values()) + row["usable"] == 9
    assert (row["train"], row["licence"]) == (2, "CC0")


def test_passages_are_joined_and_files_of_an_earlier_mix_do_not_stay(tmp_path: Path) -> None:
    text = "[mix]\ntasks = 4\n" + source("a", 'corpus = "DIR/c.jsonl"') + source("b")
    file = recipe(tmp_path, text, a=numbered("a", 2), b=numbered("b", 2))
    page = json.dumps({"title": "Moon", "text": "Far."})
    (tmp_path / "c.jsonl").write_text(f"{page}\n{page}\n")
    mix(file, tmp_path / "out")
    (tmp_path / "out" / "heldout.jsonl").write_text("of an earlier mix")

    done = mix(file, tmp_path / "out")

    assert done.written == {"train.jsonl": 4, "corpus.jsonl": 1}
    assert not (tmp_path / "out" / "heldout.jsonl").exists()


@pytest.mark.parametrize("name", ["heldout.jsonl", "train.jsonl"])
def test_a_mix_never_writes_over_what_it_reads_or_what_it_did_not_make(
    tmp_path: Path, name: str
) -> None:
    text = '[mix]\ntasks = 4\nevaluation = ["DIR/heldout.jsonl"]\n' + source("train")
    file = recipe(tmp_path, text, train=numbered("a", 2), heldout=numbered("e", 2))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_text("mine")

    with pytest.raises(InputError, match=r"is read, and --out .* would write over it"):
        mix(file, tmp_path)
    with pytest.raises(InputError, match=rf"{name} would be replaced, and is not from an earlier"):
        mix(file, tmp_path / "other")

    assert len(read_tasks(tmp_path / "heldout.jsonl")) == 2
    assert (tmp_path / "other" / name).read_text() == "mine"


def test_missing_files_are_listed_with_where_they_are_published(tmp_path: Path) -> None:
    text = '[mix]\ntasks = 4\nevaluation = ["DIR/e.jsonl"]\n' + source("a", 'published = "a.org"')
    file = recipe(tmp_path, text)

    with pytest.raises(InputError, match=r"a.jsonl \(published at a.org\); .*e.jsonl\. Fetch"):
        mix(file, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (source("a"), r"mix is missing"),
        ("sources = []\n[mix]\ntasks = 4\n", r"there is no source"),
        ("[mix]\ntasks = 0\n" + source("a"), r"mix.tasks .*at least 1"),
        ("[mix]\ntasks = 1\nweigth = 1\n" + source("a"), r"weigth"),
        ("[mix]\ntasks = 1\n" + source("a") + source("a"), r"two sources are called 'a'"),
        ("[mix]\ntasks = 1\n[filters]\nscripts = ['runic']\n" + source("a"), r"scripts"),
        ("[mix]\ntasks = 1\n[difficulty]\nmin = 0.5\nmax = 0.1\n" + source("a"), r"min \(0.5\)"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = recipe(tmp_path, text, a=numbered("a", 3))

    with pytest.raises(ConfigError, match=message):
        mix(file, tmp_path / "out")


@pytest.mark.parametrize(
    "line", ['{"task_id": "a-0"}', '{"pass_rate": 1}', '{"task_id": "a", "pass_rate": 2}', "[]"]
)
def test_results_without_a_share_are_refused_with_their_line(tmp_path: Path, line: str) -> None:
    text = '[mix]\ntasks = 1\n[difficulty]\nresults = "DIR/r.jsonl"\n' + source("a")
    file = recipe(tmp_path, text, a=numbered("a", 3))
    (tmp_path / "r.jsonl").write_text(line)

    with pytest.raises(InputError, match=r"r.jsonl, line 1: expected 'task_id' and a share"):
        mix(file, tmp_path / "out")


def test_the_command_says_what_was_written_and_what_is_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recipe(tmp_path, "[mix]\ntasks = 9\n" + source("mine"), mine=numbered("mine", 3))

    assert main(["tasks", "mix", str(file), "--out", str(tmp_path / "out")]) == 0

    said = capsys.readouterr().out
    assert "train.jsonl 3" in said
    assert "warning: there are 3 training tasks, not 9: mine: 3 read" in said
    assert "warning: source 'mine': its licence is not known" in said


def test_a_question_is_the_same_but_for_case_spaces_and_last_marks() -> None:
    assert question_key("Who is  IT?") == question_key("who is it ?!")
    assert question_key("What is 1 + 1?") != question_key("What is 1 - 1?")


@pytest.mark.parametrize(
    ("question", "answer", "how"),
    [
        ("WHO WROTE IT", "Ann", "same question"),
        ("and one two three four five six seven eight it was", "Ann", "words of the question"),
        ("so one two three four yes", "the Bo Lee!", "answer and words of the question"),
        ("so one two three four yes", "Ann", None),
        ("one two three four five six seven and eight", "Ann", None),
        ("“Who” wrote IT, then?", "Ann", None),
        ("Who wrote “it”?", "Ann", "same question"),
        ("Answer in a word: is it the long one?", "Ann", "words of the question"),
        ("谁写了红楼梦又写了什么呢", "Ann", "words of the question"),
    ],
)
def test_overlap_with_an_evaluation_set_is_seen(
    question: str, answer: str, how: str | None
) -> None:
    asked = [task("e", "one two three four five six seven eight nine", "Bo Lee")]
    asked += [task("f", "Who wrote it?"), task("g", "Is it the long one?", "yes")]
    asked.append(task("h", "谁写了红楼梦又写了什么"))
    index = EvaluationIndex([("set", asked)], ngram=8)

    found = index.overlap(task("t", question, answer))

    assert found == (("set", how) if how else None)


def test_signs_make_another_question_of_a_calculation() -> None:
    index = EvaluationIndex([("set", [task("e", "5 * 3 = ?", "15", kind="number")])], ngram=13)

    assert index.overlap(task("t", "5 / 3 = ?", "1.67", kind="number")) is None


def test_titles_and_names_are_one_kind_of_entity_and_numbers_none() -> None:
    found = task("a", "?", "Anna Keller", "1958", "yes")

    assert set(entities(found, ["Silent Harbor", "anna keller"])) == {
        "silent harbor", "anna keller",
    }  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.integers(0, 30), st.lists(st.sampled_from("abcdefghij"), max_size=3)),
    st.integers(0, 20),
)
def test_what_is_set_aside_shares_no_entity_with_the_rest(
    about: dict[int, list[str]], count: int
) -> None:
    groups = components(about)
    aside = set_aside(groups, count)

    assert sorted(key for group in groups for key in group) == sorted(about)
    assert len(aside) <= count
    own = {name for key in aside for name in about[key]}
    assert not own & {name for key in about.keys() - aside for name in about[key]}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 50)), min_size=1, max_size=6),
    st.integers(1, 200),
)
def test_sources_give_their_part_and_what_others_lack(
    sources: list[tuple[float, int]], total: int
) -> None:
    weights = {str(n): weight for n, (weight, _) in enumerate(sources)}
    available = {str(n): count for n, (_, count) in enumerate(sources)}

    taken = quotas(weights, available, total)

    assert sum(taken.values()) == min(total, sum(available.values()))
    assert all(0 <= taken[name] <= available[name] for name in weights)
    whole = sum(weights.values())
    for name, weight in weights.items():
        assert taken[name] >= min(available[name], int(total * weight / whole) - 1)


def test_another_task_moves_no_other_in_the_order() -> None:
    tasks = numbered("a", 30)

    order, fewer = shuffled(tasks, 1), shuffled(tasks[:20], 1)

    assert [found for found in order if found in fewer] == fewer
    assert order != shuffled(tasks, 2)


def test_scripts_are_counted_by_letter() -> None:
    assert script_share("Who is Ångström? 12", ["latin"]) == 1
    assert script_share("東京 Tokyo", ["cjk"]) == pytest.approx(2 / 7)
    assert script_share("1 + 1", ["latin"]) == 1


def test_the_shipped_recipe_says_where_its_sets_are_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError, match=r"data/hotpotqa/tasks.jsonl \(published at hotpotqa"):
        read_recipe(ROOT / "launch" / "presets" / "mixes" / "mix-20k.toml")
