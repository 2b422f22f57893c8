"""Task types: what is asked for a task, and what a submitted answer to it is worth.

``Task.kind`` names the type: ``qa``, ``number``, ``date``, or ``package.module:name`` for a user's
own.
"""

import difflib
from abc import abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Protocol, cast

from actors.rewards.blame import place_of_function, told
from actors.rewards.means import Means
from actors.rewards.returned import checked_number
from common.errors import ConfigError, InputError, PluginError
from common.json_input import surrogate_in
from common.plugins import is_plugin, load_plugin
from common.wire.records import Task

_MAX_QUESTION = 1_000_000


class TaskType(Protocol):
    """Asks and scores the tasks of one kind. A type of your own may inherit the defaults."""

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of what ``measure`` returns; ``exact_match`` must be one of them.

        All are 0 in an episode whose answer does not count. ``exact_match`` decides whether a task
        counts as solved; ``f1`` and ``contains`` take its value where a type does not have them.
        """
        ...

    def question(self, task: Task) -> str:
        """What the policy is asked; the task's question unless a type says otherwise."""
        return task.question

    def check(self, task: Task) -> None:
        """Look at a task when its file is read.

        Raises:
            ValueError: it cannot be asked or scored; the text says what is missing.
        """

    def can_match(self, gold: str) -> bool:
        """Whether an answer could match this gold answer; asked of built-in types, for warnings."""
        return True

    def measure(self, task: Task, answer: str) -> Mapping[str, float]:
        """Measure a submitted answer: a finite number for each name in ``measures``.

        True and False are numbers. It runs on the host, in a process of its own beside the actor,
        for at most ``rewards.timeout_s``.
        """
        ...


class MeasuredWithMeans(TaskType):
    """A built-in type whose measuring needs sandboxes or a model, which the actor has.

    ``measure_with`` is awaited in the actor, where no code of the user's or the policy's may run.
    """

    most_characters: int
    """Of an answer, which is cut before anything is done with it."""

    @abstractmethod
    async def measure_with(self, task: Task, answer: str, means: Means) -> Mapping[str, float]:
        """Measure a submitted answer: a number for each name in ``measures``.

        Raises:
            LZeroError: it could not be measured, through no fault of the answer.
        """

    def measure(self, task: Task, answer: str) -> Mapping[str, float]:
        """Not without means.

        Raises:
            PluginError: always; whoever measures has to ask ``measure_with``.
        """
        raise PluginError(
            f"{kind_name(task.kind)} of task {task.task_id!r} needs sandboxes or a model to be "
            "measured, which only the actor has; use measure_with"
        )


_BUILT_IN = {
    "qa": "actors.rewards.kinds.question_answering:QuestionAnswering",
    "number": "actors.rewards.kinds.number:Number",
    "date": "actors.rewards.kinds.date:Date",
    "math": "actors.rewards.kinds.mathematics:Mathematics",
    "judged": "actors.rewards.kinds.judged:Judged",
    "code": "actors.rewards.kinds.program:Code",
}
"""Where the built-in types are: each is imported when a task of its kind is met."""


def unmatchable_answers(task: Task) -> list[str]:
    """Gold answers of a built-in kind that no answer could match, beside others that one can."""
    if task.kind not in _BUILT_IN:
        return []
    kind = task_type(task.kind)
    return [answer for answer in task.answers if not kind.can_match(answer)]


@cache
def task_type(kind: str) -> TaskType:
    """The task type called ``kind``.

    Raises:
        ConfigError: there is none, or the object of that name is no task type.
    """
    if kind in _BUILT_IN:
        return cast(TaskType, load_plugin(_BUILT_IN[kind], key="kind")())
    if not is_plugin(kind):
        close = difflib.get_close_matches(kind, _BUILT_IN, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known kinds: {', '.join(_BUILT_IN)}."
        raise ConfigError(
            f"kind: unknown task type {kind!r}; {hint} One of your own is written "
            "package.module:name"
        )
    return _plugin_type(kind)


def check_task(task: Task) -> None:
    """Check one task as its type wants it; for ``common.tasks.read_tasks``.

    Raises:
        ConfigError: its kind does not exist.
        InputError: its type refuses it.
    """
    kind = task_type(task.kind)
    try:
        kind.check(task)
    except Exception as error:  # a user's type may raise anything
        said = str(error) if isinstance(error, ValueError) else told(error)
        raise InputError(f"task {task.task_id!r} of kind {task.kind!r}: {said}") from error


def asked_question(task: Task) -> str:
    """What the policy is asked for ``task``.

    Raises:
        ConfigError: its kind does not exist.
        PluginError: its type failed, or did not give a text.
    """
    kind = task_type(task.kind)
    try:
        question: object = kind.question(task)
    except Exception as error:  # a user's type may raise anything
        raise _fault(task, f"question raised {told(error)}") from error
    if not isinstance(question, str) or not question.strip():
        place = place_of_function(kind.question)
        raise _fault(
            task, f"question must return a text that is not empty, got {question!r:.80}{place}"
        )
    if len(question) > _MAX_QUESTION or surrogate_in(question) is not None:
        raise _fault(
            task,
            f"question must return at most {_MAX_QUESTION} characters of Unicode text, got "
            f"{len(question)}{place_of_function(kind.question)}",
        )
    return question


def measure_answer(
    task: Task, answer: str | None, measured_with_means: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The measurements of an answer; all 0 where there is none that counts.

    Args:
        task: what was asked.
        answer: what counts of it.
        measured_with_means: what was measured already; None where the type measures it here.

    Raises:
        ConfigError: the task's kind does not exist.
        PluginError: its type failed, or returned something other than its measures.
    """
    kind = task_type(task.kind)
    if answer is None:
        measured = dict.fromkeys(kind.measures, 0.0)
    else:
        try:
            given: object = measured_with_means
            if given is None:
                given = kind.measure(task, answer)
        except Exception as error:  # a user's type may raise anything
            raise _fault(task, f"measure raised {told(error)}") from error
        measured = _measured(task, kind, given)
    exact = measured["exact_match"]
    return {"exact_match": exact, "f1": exact, "contains": exact} | measured


def _measured(task: Task, kind: TaskType, given: object) -> dict[str, float]:
    """What ``measure`` returned, as floats."""
    place = place_of_function(kind.measure)
    names = sorted(kind.measures)
    if not isinstance(given, Mapping):
        raise _fault(task, f"measure must return a dict of {names}, got {given!r:.80}{place}")
    if set(given) != set(names):
        raise _fault(task, f"measure must return {names}, got {sorted(map(str, given))}{place}")
    measured: dict[str, float] = {}
    for name in names:
        try:
            measured[name] = checked_number(given[name])
        except ValueError as error:
            raise _fault(
                task, f"measure must return a finite number for {name!r}, got {error}{place}"
            ) from error
    if not 0.0 <= measured["exact_match"] <= 1.0:
        raise _fault(
            task,
            f"measure must return exact_match in [0, 1], got {measured['exact_match']!r}{place}",
        )
    return measured


def kind_name(kind: str) -> str:
    """A task type as errors call it."""
    return f"kind {kind!r}"


def _fault(task: Task, what: str) -> PluginError:
    return PluginError(f"{kind_name(task.kind)} of task {task.task_id!r}: {what}")


def _plugin_type(kind: str) -> TaskType:
    found = load_plugin(kind, key="tasks.kinds")
    if isinstance(found, type):
        try:
            found = found()
        except Exception as error:  # a user's class may raise anything
            raise ConfigError(
                f"tasks.kinds: {kind!r} cannot be made without arguments: {told(error)}"
            ) from error
    for method in ("question", "check", "measure"):
        if not callable(getattr(found, method, None)):
            raise ConfigError(
                f"tasks.kinds: {kind!r} has no method {method!r}; a task type has question, check "
                "and measure (inherit from actors.rewards.task_types.TaskType)"
            )
    measures: object = getattr(found, "measures", None)
    names = measures if isinstance(measures, tuple) else ()
    if "exact_match" not in names or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"tasks.kinds: {kind!r} needs measures, a tuple of names with 'exact_match' among "
            f"them, got {measures!r}"
        )
    return cast(TaskType, found)
