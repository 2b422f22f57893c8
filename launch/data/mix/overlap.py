"""Which questions are the same, and which overlap with those of evaluation sets; pure."""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from actors.rewards.answers import normalise
from common.wire.records import Task

_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\w+")
_CLOSED = frozenset({"yes", "no", "true", "false"})
"""Answers that many questions share."""

Ngram = tuple[str, ...]


def question_key(question: str) -> Ngram:
    """What two questions have in common that are the same but for case, spaces and final marks.

    Signs inside count: "1 + 1" is not "1 - 1".
    """
    found = _TOKEN.findall(_plain(question))
    while found and found[-1] in ".?!":
        found.pop()
    return tuple(found)


def entities(task: Task, titles: Iterable[str]) -> Iterator[str]:
    """What a task is about: its supporting pages, and gold answers that are names, alike.

    Yes, no and numbers are no names: they would tie everything together.
    """
    yield from (normalise(title) or title.casefold() for title in titles)
    yield from names_among(task.answers) if task.kind == "qa" else ()


def names_among(answers: Iterable[str]) -> list[str]:
    """Gold answers in their canonical form, without closed ones and those without letters."""
    plain = (normalise(answer) for answer in answers)
    return [text for text in plain if text not in _CLOSED and any(c.isalpha() for c in text)]


class EvaluationIndex:
    """The questions of evaluation sets, to be asked whether another overlaps with one.

    Overlap: the same question; ``ngram`` words in a row (Brown et al. 2020, arXiv:2005.14165,
    appendix C, takes 13); or half as many together with the same answer, if that is a name.
    """

    def __init__(self, sets: Iterable[tuple[str, Iterable[Task]]], *, ngram: int) -> None:
        """Index the tasks of each set under its name."""
        self._ngram, self._half = ngram, max(2, ngram // 2)
        self._questions: dict[Ngram, str] = {}
        self._runs: dict[Ngram, str] = {}
        self._answered: dict[tuple[str, Ngram], str] = {}
        for name, tasks in sets:
            for task in tasks:
                self._add(name, task)

    def overlap(self, task: Task) -> tuple[str, str] | None:
        """The set that a task overlaps with and how, or None."""
        if (name := self._questions.get(question_key(task.question))) is not None:
            return name, "same question"
        for run in _runs(task.question, self._ngram):
            if run in self._runs:
                return self._runs[run], "words of the question"
        for key in self._answered_runs(task):
            if key in self._answered:
                return self._answered[key], "answer and words of the question"
        return None

    def _add(self, name: str, task: Task) -> None:
        self._questions.setdefault(question_key(task.question), name)
        for run in _runs(task.question, self._ngram):
            self._runs.setdefault(run, name)
        for key in self._answered_runs(task):
            self._answered.setdefault(key, name)

    def _answered_runs(self, task: Task) -> Iterator[tuple[str, Ngram]]:
        names = names_among(task.answers) if task.kind == "qa" else []
        for run in _runs(task.question, self._half) if names else ():
            yield from ((name, run) for name in names)


def _runs(question: str, length: int) -> Iterator[Ngram]:
    words = _WORD.findall(_plain(question))
    return (tuple(words[n : n + length]) for n in range(len(words) - length + 1))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
