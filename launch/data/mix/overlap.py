"""Which questions are the same, and which overlap with those of evaluation sets; pure."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from actors.rewards.answers import normalise
from common.text_tokens import word_tokens
from common.wire.records import Task

_TOKEN = re.compile(r"\w+|[^\w\s]")
_CLOSED = frozenset({"yes", "no", "true", "false"})
"""Answers that many questions share."""
_IN_WORDS = frozenset({"qa", "date", "judged"})
"""Kinds whose questions are the same where their words are; signs count in all others."""

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
    appendix C, takes 13), or all of a question that has fewer, but half as many; or half as many
    together with the same answer, if that is a name. A character of a script without spaces is a
    word.
    """

    def __init__(self, sets: Iterable[tuple[str, Iterable[Task]]], *, ngram: int) -> None:
        """Index the tasks of each set under its name."""
        self._ngram, self._half = ngram, max(2, ngram // 2)
        self._questions: dict[Ngram, str] = {}
        self._runs: dict[Ngram, str] = {}
        self._lengths = {ngram}
        self._answered: dict[tuple[str, Ngram], str] = {}
        for name, tasks in sets:
            for task in tasks:
                self._add(name, task)

    def overlap(self, task: Task) -> tuple[str, str] | None:
        """The set that a task overlaps with and how, or None."""
        for asked in _keys(task):
            if asked in self._questions:
                return self._questions[asked], "same question"
        words = word_tokens(task.question)
        for run in (run for length in sorted(self._lengths) for run in _runs(words, length)):
            if run in self._runs:
                return self._runs[run], "words of the question"
        for key in self._answered_runs(task):
            if key in self._answered:
                return self._answered[key], "answer and words of the question"
        return None

    def _add(self, name: str, task: Task) -> None:
        for asked in _keys(task):
            self._questions.setdefault(asked, name)
        words = word_tokens(task.question)
        length = max(self._half, min(self._ngram, len(words)))
        self._lengths.add(length)
        for run in _runs(words, length):
            self._runs.setdefault(run, name)
        for key in self._answered_runs(task):
            self._answered.setdefault(key, name)

    def _answered_runs(self, task: Task) -> Iterator[tuple[str, Ngram]]:
        names = names_among(task.answers) if task.kind == "qa" else []
        for run in _runs(word_tokens(task.question), self._half) if names else ():
            yield from ((name, run) for name in names)


def _keys(task: Task) -> Iterator[Ngram]:
    """What the same question has in common with a task's: its text, and its words if they do."""
    yield question_key(task.question)
    if task.kind in _IN_WORDS and (words := normalise(task.question)):
        yield "words", *words.split()


def _runs(words: Sequence[str], length: int) -> Iterator[Ngram]:
    return (tuple(words[n : n + length]) for n in range(len(words) - length + 1))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
