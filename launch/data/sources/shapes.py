"""The shapes of published records, and which one a record has: its fields say, and nothing else."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from launch.data.sources import mathematics, multihop, programs, rewarded_rows, short_answers
from launch.data.sources.entries import Entry, Unusable
from launch.data.sources.fields import golds, identity, string
from launch.data.sources.reading import Row

_LOOKED_AT = 1000
"""Records of a longer file, evenly spaced, that say of which shape it is."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One way in which records are written.

    Attributes:
        name: for ``--format``, errors and reports.
        fields: those that it is known by, for people.
        fits: whether a record is of it.
        read: what a record of it says; a ``ValueError`` names the field that is not as it must be.
    """

    name: str
    fields: str
    fits: Callable[[Row], bool]
    read: Callable[[Row], Entry | Unusable]


def _has(*fields: str) -> Callable[[Row], bool]:
    return lambda row: all(field in row for field in fields)


def _is_multihop(row: Row) -> bool:
    return all(field in row for field in ("question", "answer", "supporting_facts"))


def _is_trivia(row: Row) -> bool:
    hub = "question" in row and isinstance(row.get("answer"), dict)
    original = "Question" in row and isinstance(row.get("Answer"), dict)
    return hub or original


def _is_simple(row: Row) -> bool:
    table = "problem" in row and isinstance(row.get("metadata"), str)
    return "answer" in row and (table or all(f in row for f in ("problem", "topic", "answer_type")))


def _is_gsm8k(row: Row) -> bool:
    answer = row.get("answer")
    return "question" in row and isinstance(answer, str) and mathematics.GSM8K_MARK in answer


def _is_nq(row: Row) -> bool:
    return set(row) - {"id"} == {"question", "answer"} and isinstance(row["answer"], list)


def _is_competition(row: Row) -> bool:
    return "problem" in row and ("answer" in row or "solution" in row)


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape(
            "humaneval",
            "prompt, canonical_solution, test, entry_point",
            _has("prompt", "canonical_solution", "test", "entry_point"),
            programs.humaneval,
        ),
        Shape("mbpp", "code, test_list", _has("code", "test_list"), programs.mbpp),
        Shape(
            "rewarded",
            "reward_model with ground_truth (verl, Search-R1, L0)",
            _has("reward_model"),
            rewarded_rows.rewarded,
        ),
        Shape(
            "flashrag",
            "question, golden_answers",
            _has("question", "golden_answers"),
            short_answers.flashrag,
        ),
        Shape(
            "2wiki",
            "question, answer, supporting_facts, evidences",
            lambda row: _is_multihop(row) and "evidences" in row,
            multihop.two_wiki,
        ),
        Shape("hotpotqa", "question, answer, supporting_facts", _is_multihop, multihop.hotpotqa),
        Shape(
            "musique",
            "question, answer, paragraphs",
            _has("question", "answer", "paragraphs"),
            multihop.musique,
        ),
        Shape(
            "triviaqa",
            "question, answer (an object of value and aliases)",
            _is_trivia,
            short_answers.triviaqa,
        ),
        Shape(
            "popqa",
            "question, possible_answers",
            _has("question", "possible_answers"),
            short_answers.popqa,
        ),
        Shape("simpleqa", "metadata (a text), problem, answer", _is_simple, short_answers.simpleqa),
        Shape("gsm8k", "question, answer (with ####)", _is_gsm8k, mathematics.gsm8k),
        Shape(
            "deepmath",
            "question, final_answer",
            _has("question", "final_answer"),
            mathematics.deepmath,
        ),
        Shape(
            "aime",
            "problem, answer (up to 999), and year or url",
            mathematics.looks_like_aime,
            mathematics.aime,
        ),
        Shape(
            "math",
            "problem, answer or solution (MATH, MATH-500)",
            _is_competition,
            mathematics.competition,
        ),
        Shape("bamboogle", "Question, Answer", _has("Question", "Answer"), short_answers.bamboogle),
        Shape("nq", "question, answer (a list), nothing else", _is_nq, short_answers.nq_open),
    )
}
"""In the order in which they are tried: a record that has the fields of two is of the first."""


def shape_of(rows: Sequence[Row]) -> Shape | None:
    """The first shape that more than half of the records have, or else that of the first record."""
    some = rows[:: 1 + len(rows) // _LOOKED_AT]
    most = (one for one in SHAPES.values() if 2 * sum(map(one.fits, some)) > len(some))
    of_first = (one for one in SHAPES.values() if one.fits(rows[0]))
    return next(chain(most, of_first), None)


def own_shape(question: str, answer: str, kind: str) -> Shape:
    """A shape of the user's: fields of the question and of the answer, ``a.b`` for b inside a."""

    def read(row: Row) -> Entry:
        asked = {question: _inside(row, question)}
        return Entry(
            original_id=identity(row, "id", "_id", "task_id", "question_id"),
            question=string(asked, question),
            golds=golds(_inside(row, answer), answer),
            kind=kind,
        )

    return Shape("own", f"{question}, {answer}", lambda row: True, read)


def _inside(row: Row, path: str) -> object:
    """The value of a field; dots lead into objects, unless a field is called like the whole."""
    if path in row:
        return row[path]
    value: object = row
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            raise ValueError(f"field '{path}' is missing; there are: {listed_fields(row)}")
        value = value[name]
    return value


def listed_fields(row: Row) -> str:
    """The names of a record's fields, with what each holds, for an error."""
    return ", ".join(f"{name} ({_kind_of(value)})" for name, value in row.items()) or "none"


def known_shapes(shapes: Iterable[Shape]) -> str:
    """All shapes with their fields, a line each, for an error."""
    return "\n".join(f"  {shape.name:<10} {shape.fields}" for shape in shapes)


def _kind_of(value: object) -> str:
    if isinstance(value, dict):
        return "an object of " + (", ".join(map(str, list(value)[:6])) or "nothing")
    names = {str: "text", list: "list", bool: "true or false", int: "number", float: "number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)
