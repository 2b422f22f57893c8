"""How often the local search finds what answers a question that is asked of it as it is written.

An agent asks otherwise, and again: this is what an index and the settings of ``search`` give it to
begin with, and where it is low, little can be learnt by searching.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from actors.rewards.answers import contains
from actors.tools.search.corpus import blocks
from actors.tools.search.index import FoundPage, SearchIndex
from common.config import Config, Search
from common.errors import InputError
from common.task_rules import task_rules, training_files
from common.tasks import read_sources, read_tasks
from common.text_tokens import word_tokens
from common.wire.records import Task
from launch.data.sources.fields import titles_of_label

DEPTHS = (1, 5, 10)
"""Pages that are looked at, best first."""

MOST_CHECKED = 2000
"""Tasks that ``lzero index --check`` asks of a longer file, evenly spaced."""

SAMPLED = 200
"""Tasks that are asked before a run."""

LONGEST_S = 20.0
"""What asking them may take; then those asked so far say it."""

LOW = 0.5
"""A run whose search finds less than this is warned of."""

_ANSWERED_BY_PAGES = frozenset({"qa", "number", "date", "judged"})
"""Kinds whose gold answers may stand in a page as they are."""

_IN_ANY_PAGE = frozenset({"yes", "no"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """After how many pages a search had found what answers a task; None if not within the deepest.

    Attributes:
        labelled: the task names its supporting pages; if not, its answer is looked for, and
            ``first`` and ``every`` are the page that holds it.
        first: the first supporting page.
        every: the last of all supporting pages.
    """

    labelled: bool
    first: int | None
    every: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Recall:
    """What searches found, and what the tasks were that could not be judged."""

    found: tuple[Found, ...]
    unjudged: int = 0

    def of(self, *, labelled: bool) -> tuple[Found, ...]:
        """Of tasks with the label ``supporting_titles``, or of those without."""
        return tuple(found for found in self.found if found.labelled is labelled)


def share(ranks: Iterable[int | None], pages: int) -> float:
    """The part of ``ranks`` within the first ``pages``; at least one rank."""
    within = [rank is not None and rank <= pages for rank in ranks]
    return sum(within) / len(within)


def evenly(tasks: Sequence[Task], most: int) -> list[Task]:
    """At most ``most`` tasks, evenly spaced over the file."""
    if len(tasks) <= most:
        return list(tasks)
    return [tasks[at * len(tasks) // most] for at in range(most)]


def measure(
    index: SearchIndex,
    settings: Search,
    tasks: Iterable[Task],
    *,
    deepest: int = DEPTHS[-1],
    go_on: Callable[[], bool] = lambda: True,
) -> Recall:
    """Ask the question of each task.

    Args:
        index: where to search.
        settings: its settings: what of a page an agent is shown (``max_characters``).
        tasks: in any order.
        deepest: pages that are looked at.
        go_on: asked before each task but the first; false ends it.

    Raises:
        InputError: a label ``supporting_titles`` is no list of titles, or the index is damaged.
    """
    found: list[Found] = []
    unjudged = 0
    for number, task in enumerate(tasks):
        if number and not go_on():
            break
        try:
            one = _found(index, settings, task, deepest)
        except ValueError as error:
            raise InputError(f"task {task.task_id!r} cannot be looked up: {error}") from error
        found += [one] if one else []
        unjudged += one is None
    return Recall(found=tuple(found), unjudged=unjudged)


def recall_lines(recall: Recall) -> Iterator[str]:
    """A table of recall at each of ``DEPTHS``, line by line."""
    labelled, others = recall.of(labelled=True), recall.of(labelled=False)
    rows = (
        ("any supporting page", [one.first for one in labelled]),
        ("all supporting pages", [one.every for one in labelled]),
        ("answer in a page", [one.first for one in others]),
    )
    yield f"{'found within the first pages':<30}" + "".join(f"{f'@{k}':>9}" for k in DEPTHS)
    for name, ranks in rows:
        if ranks:
            shares = "".join(f"{share(ranks, pages):>9.1%}" for pages in DEPTHS)
            yield f"{name:<30}{shares}   of {len(ranks)} tasks"
    if recall.unjudged:
        yield f"{recall.unjudged} tasks name no pages, nor an answer that a page could hold"


def low_recall(config: Config) -> str:
    """A warning where the search of a run finds too little for its training tasks; empty if not.

    Raises:
        InputError: a file cannot be used.
    """
    is_local = config.tools.search.provider == "local" and "search" in config.agent.tools
    if not is_local or config.world.enabled:
        return ""
    results = config.tools.search.results
    tasks = _sampled(config)
    until = time.monotonic() + LONGEST_S
    with closing(SearchIndex(Path(config.tasks.train_corpus), config.tools.search)) as index:
        recall = measure(
            index,
            config.tools.search,
            tasks,
            deepest=results,
            go_on=lambda: time.monotonic() < until,
        )
    if not recall.found:
        return ""
    part = share((one.first for one in recall.found), results)
    return _warning(part, len(recall.found), config) if part < LOW else ""


def _sampled(config: Config) -> list[Task]:
    """Tasks that training asks of ``tasks.train_corpus``, so that any first ones are spread too."""
    read = partial(read_tasks, rules=task_rules(config))
    every = chain.from_iterable(read_sources(training_files(config), read).values())
    sampled = evenly([task for task in every if task.corpus == "train"], SAMPLED)
    random.Random(0).shuffle(sampled)
    return sampled


def _warning(part: float, asked: int, config: Config) -> str:
    search = config.tools.search
    any_word = "tools.search.match = 'any' (it is 'all'), " if search.match == "all" else ""
    return (
        f"search found a supporting page, or the answer, in its first {search.results} pages for "
        f"only {part:.0%} of {asked} training tasks, asked as they are written: there is little to "
        "learn from pages that are not found. Is tasks.train_corpus "
        f"({config.tasks.train_corpus}) the corpus of these tasks? Else this may help: {any_word}"
        f"more tools.search.results than {search.results}, tools.search.max_characters above "
        f"{search.max_characters}, or another retriever (docs/tools.md); lzero index --check TASKS "
        "--config RUN.toml measures it"
    )


def _found(index: SearchIndex, settings: Search, task: Task, deepest: int) -> Found | None:
    """What the search finds of a task; None if nothing says what it should find."""
    titles = {_key(title) for title in titles_of_label(task)}
    answers = _telling(task)
    if not titles and not answers:
        return None
    pages = index.find(task.question, deepest)
    if titles:
        return _supporting(pages, titles)
    shown = (page.text[: settings.max_characters] for page in pages)
    ranks = (rank for rank, text in enumerate(shown, start=1) if _holds(text, answers))
    rank = next(ranks, None)
    return Found(labelled=False, first=rank, every=rank)


def _supporting(pages: Sequence[FoundPage], titles: set[str]) -> Found:
    ranks: dict[str, int] = {}
    for rank, page in enumerate(pages, start=1):
        if (key := _key(page.title)) in titles:
            ranks.setdefault(key, rank)
    every = max(ranks.values()) if len(ranks) == len(titles) else None
    return Found(labelled=True, first=min(ranks.values(), default=None), every=every)


def _key(title: str) -> str:
    return " ".join(word_tokens(title)) or title


def _telling(task: Task) -> list[str]:
    """Gold answers that not every page holds."""
    answers = task.answers if task.kind in _ANSWERED_BY_PAGES else ()
    return [answer for answer in answers if answer.strip().casefold() not in _IN_ANY_PAGE]


def _holds(text: str, answers: Sequence[str]) -> bool:
    """Whether an answer stands in a text, as the lenient judge sees it."""
    return any(contains(block, answers) > 0 for block in blocks(text))
