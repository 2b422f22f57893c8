"""How often an index finds the pages of its tasks is measured before a run, and a low one told."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from actors.tools.search.index import SearchIndex, build_index
from common.config import Config, Search, Tasks
from common.config.tools import Tools
from common.errors import InputError
from common.tasks import write_tasks
from common.wire.records import Task
from launch.cli import main
from launch.data.recall import Found, evenly, low_recall, measure

PAGES = (
    ("Silent Harbor", "A novel by Anna Keller."),
    ("Anna Keller", "Born in the town of Wren."),
    ("Wren", "A town with 1,200 inhabitants."),
    ("Fog", "Weather of harbors."),
)


def task(name: str, question: str, *answers: str, titles: str = "", kind: str = "qa") -> Task:
    labels = {"supporting_titles": titles} if titles else {}
    return Task(task_id=name, question=question, answers=answers, labels=labels, kind=kind)


HOPS = task(
    "hops", "Where was who wrote Silent Harbor born?", "Wren",
    titles='["SILENT HARBOR", "Anna Keller"]',
)  # fmt: skip
LOST = task("lost", "fog", "x", titles='["Nowhere"]')
HELD = task("held", "How many inhabitants has Wren?", "1200", kind="number")
UNHELD = task("unheld", "Who is Anna Keller?", "Bo")
CLOSED = task("closed", "Is there fog?", "yes")
CODE = task("code", "Fog?", "def fog(): ...", kind="code")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    lines = [json.dumps({"title": title, "text": text}) for title, text in PAGES]
    (tmp_path / "pages.jsonl").write_text("\n".join(lines))
    build_index(tmp_path / "pages.jsonl", tmp_path / "pages.sqlite")
    return tmp_path / "pages.sqlite"


def found(index: Path, *tasks: Task, **keys: int) -> tuple[Found, ...]:
    return measure(SearchIndex(index), Search(), tasks, **keys).found


def test_supporting_pages_are_found_at_the_rank_of_the_first_and_of_the_last(index: Path) -> None:
    titles = [page.title for page in SearchIndex(index).find(HOPS.question, 10)]
    ranks = sorted(1 + titles.index(title) for title in ("Silent Harbor", "Anna Keller"))

    assert ranks[0] < ranks[1]
    assert found(index, HOPS) == (Found(labelled=True, first=ranks[0], every=ranks[1]),)
    assert found(index, HOPS, deepest=1) == (Found(labelled=True, first=1, every=None),)
    assert found(index, LOST) == (Found(labelled=True, first=None, every=None),)


def test_without_titles_the_answer_is_looked_for_as_it_is_scored(index: Path) -> None:
    assert found(index, HELD) == (Found(labelled=False, first=1, every=1),)
    assert found(index, UNHELD)[0].first is None


def test_an_answer_counts_only_where_the_agent_would_be_shown_it(index: Path) -> None:
    short = measure(SearchIndex(index), Search(max_characters=12), [HELD])
    assert short.found[0].first is None


def test_what_no_page_could_hold_is_not_judged(index: Path) -> None:
    recall = measure(SearchIndex(index), Search(), [CLOSED, CODE, HELD])
    assert (len(recall.found), recall.unjudged) == (1, 2)


def test_a_label_that_is_no_list_of_titles_is_named(index: Path) -> None:
    with pytest.raises(InputError, match=r"task 't': label supporting_titles must be a JSON list"):
        found(index, task("t", "?", "x", titles='{"a": 1}'))


def test_a_sample_is_evenly_spaced() -> None:
    tasks = [task(str(n), "?", "x") for n in range(10)]
    assert [one.task_id for one in evenly(tasks, 4)] == ["0", "2", "5", "7"]
    assert evenly(tasks, 20) == tasks


def test_the_command_tells_recall_of_an_index_just_made_and_of_one_there_is(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tasks([HOPS, LOST, HELD], tmp_path / "tasks.jsonl")
    (tmp_path / "run.toml").write_text(
        f'[tools.search]\nmatch = "all"\n[tasks]\ntrain_corpus = "{index}"\n'
    )
    check = ["--check", str(tmp_path / "tasks.jsonl")]

    made = main(["index", str(tmp_path / "pages.jsonl"), "--out", str(tmp_path / "new"), *check])
    first = capsys.readouterr().out
    again = main(["index", "--out", str(index), *check])
    second = capsys.readouterr().out
    of_run = main(["index", "--config", str(tmp_path / "run.toml"), *check])
    third = capsys.readouterr().out

    assert (made, again, of_run) == (0, 0, 0)
    rows = [line.split() for line in first.splitlines()[-4:]]
    assert rows[0][-3:] == ["@1", "@5", "@10"]
    assert rows[1][:6] == ["any", "supporting", "page", "50.0%", "50.0%", "50.0%"]
    assert rows[2][:6] == ["all", "supporting", "pages", "0.0%", "50.0%", "50.0%"]
    assert rows[3][:5] == ["answer", "in", "a", "page", "100.0%"]
    assert second.splitlines()[-4:] == first.splitlines()[-4:]
    assert "match = 'all'" in third
    assert third.splitlines()[-3].split()[3:6] == ["0.0%", "0.0%", "0.0%"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--check TASKS"),
        (["pages.jsonl"], "--out is missing"),
        (["--check", "tasks.jsonl"], "name the index: --out INDEX, or --config RUN.toml"),
        (["--check", "tasks.jsonl", "--out", "none.sqlite"], "does not exist"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line_and_exit_status_two(
    arguments: list[str],
    message: str,
    index: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(index.parent)
    write_tasks([HOPS], index.parent / "tasks.jsonl")

    assert main(["index", *arguments]) == 2
    assert message in capsys.readouterr().err


def run_config(index: Path, *tasks: Task, **search: object) -> Config:
    write_tasks(tasks, index.parent / "train.jsonl")
    config = Config(
        tasks=Tasks(train=str(index.parent / "train.jsonl"), train_corpus=str(index)),
        tools=Tools(search=Search(**search)),  # type: ignore[arg-type]
    )
    return replace(config, world=replace(config.world, enabled=False))


def test_a_run_whose_search_finds_too_little_is_warned_with_what_to_do(index: Path) -> None:
    lost = [replace(LOST, task_id=f"lost-{n}") for n in range(2)]

    warning = low_recall(run_config(index, HOPS, *lost))

    assert "in its first 5 pages for only 33% of 3 training tasks" in warning
    assert "more tools.search.results than 5" in warning
    assert "tools.search.match" not in warning
    assert str(index) in warning
    assert "tools.search.match = 'any'" in low_recall(run_config(index, LOST, match="all"))


def test_no_run_is_warned_whose_search_finds_enough_or_cannot_be_judged(index: Path) -> None:
    heldout = replace(LOST, corpus="heldout")

    assert low_recall(run_config(index, HOPS, LOST)) == ""
    assert low_recall(run_config(index, HOPS, heldout, replace(heldout, task_id="h2"))) == ""
    assert low_recall(run_config(index, CLOSED, CODE)) == ""
    assert low_recall(run_config(index, LOST, provider="serper")) == ""
