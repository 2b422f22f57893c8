"""Task type ``qa``."""

from collections.abc import Mapping

from actors.rewards.answers import MAX_CHARACTERS, can_be_matched, contains, exact_match, f1
from actors.rewards.squad import squad_exact_match, squad_f1
from actors.rewards.task_types import TaskType
from common.wire.records import Task


class QuestionAnswering(TaskType):
    """``qa``: a short answer compared with gold answers."""

    measures = ("exact_match", "f1", "contains", "squad_exact_match", "squad_f1")

    def check(self, task: Task) -> None:
        """Refuse a task none of whose gold answers could be matched; one that can is enough."""
        if not any(map(self.can_match, task.answers)):
            raise ValueError(
                f"no answer could match any of its gold answers, the first of which is "
                f"{task.answers[0][:60]!r}: they hold nothing but punctuation, or "
                f"more than {MAX_CHARACTERS} characters"
            )

    def can_match(self, gold: str) -> bool:
        """Whether anything is left of a gold answer once it is normalised."""
        return can_be_matched(gold)

    def measure(self, task: Task, answer: str) -> Mapping[str, float]:
        """Compare with every gold answer; the best one counts."""
        return {
            "exact_match": exact_match(answer, task.answers),
            "f1": f1(answer, task.answers),
            "contains": contains(answer, task.answers),
            "squad_exact_match": squad_exact_match(answer, task.answers),
            "squad_f1": squad_f1(answer, task.answers),
        }
