"""Converts question sets into task and corpus files; see docs/data.md."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import InputError
from common.tasks import write_tasks
from launch.data.outputs import check_outputs
from launch.data.sources.entries import Entry, Passage, Unusable, known_source, source_name
from launch.data.sources.passages import read_passages, write_passages
from launch.data.sources.reading import FileRecord, Row, read_records
from launch.data.sources.shapes import (
    SHAPES,
    Shape,
    known_shapes,
    listed_fields,
    own_shape,
    shape_of,
)
from launch.data.sources.tasks import LeftOut, said_of, tasks_of

KINDS = ("qa", "number", "date", "math", "judged")
"""Task types of a short answer, which ``--kind`` may name."""

_TASKS, _CORPUS = "tasks.jsonl", "corpus.jsonl"
_TASK_FIELDS = {"task_id", "question", "answers"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a person says about a file; nothing has to be said of a published set.

    Attributes:
        shape: its records must be of this one.
        source: name of the set, for ids and labels, where records do not say it.
        kind: task type of all questions, instead of the one that goes with the shape.
        question, answer: fields of a shape that is none of the known ones; both or none.
    """

    shape: str | None = None
    source: str | None = None
    kind: str | None = None
    question: str | None = None
    answer: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What was made of a file, and what was not.

    Attributes:
        shape: of its records.
        sources: tasks of each set.
        pages: passages written; 0 where there are none.
        left_out: everything else, in file order.
        from_prompt: questions that were nowhere but in a prompt, with its instructions.
    """

    shape: str
    sources: dict[str, int]
    pages: int
    left_out: tuple[LeftOut, ...] = ()
    from_prompt: int = 0

    @property
    def tasks(self) -> int:
        """Tasks written."""
        return sum(self.sources.values())


NOTHING_SAID = Wanted()


def convert(
    file: Path, *, out: Path, corpus: Path | None = None, wanted: Wanted = NOTHING_SAID
) -> Converted:
    """Write ``tasks.jsonl`` to ``out``, and ``corpus.jsonl`` where there are passages.

    Gold answers that nothing can match are left out, and so is a question without any other, one
    that its set calls unanswerable, and the repeat of one. What is left out is in the result.

    Args:
        file: the questions, in any form that ``sources.reading`` reads.
        out: folder, made if missing.
        corpus: the passages; None takes those that come with the questions.
        wanted: what a person says about the file.

    Raises:
        InputError: a file is missing or broken, or would be written over; its shape is not known or
            not the wanted one (the text lists the fields), a record is not of that shape (named
            with its field), or no task is left.
    """
    inputs = [file, corpus] if corpus else [file]
    check_outputs(out, (_TASKS, _CORPUS), inputs=inputs, made_by=_TASKS, is_ours=_is_converted)
    records = read_records(file, what="file")
    if not records:
        raise InputError(f"{file} holds no questions")
    shape = _shape(file, [record.row for record in records], wanted)
    read = [(record.where, _read(shape, record)) for record in records]
    found = [(where, entry) for where, entry in read if isinstance(entry, Entry)]
    entries = [(where, _completed(entry, file, shape, wanted)) for where, entry in found]
    tasks, refused = tasks_of(entries)
    left_out = [LeftOut(where, e.reason) for where, e in read if isinstance(e, Unusable)] + refused
    if not tasks:
        raise InputError(f"{file}: no question is left: {said_of(left_out, golds=False)}")
    pages = read_passages(corpus) if corpus else _own_passages(entry for _, entry in entries)
    out.mkdir(parents=True, exist_ok=True)
    written = write_passages(pages, out / _CORPUS)
    write_tasks(tasks, out / _TASKS)
    return Converted(
        shape=shape.name,
        sources=dict(Counter(task.labels["source"] for task in tasks)),
        pages=written,
        left_out=tuple(left_out),
        from_prompt=sum("question_from" in task.labels for task in tasks),
    )


def _is_converted(tasks: Path) -> bool:
    """Whether a task file is one of ours: every task of such a one has its source as a label."""
    if not tasks.exists():
        return False
    try:
        first = read_records(tasks, what="task file")[0].row
    except (InputError, IndexError):
        return False
    labels = first.get("labels")
    return isinstance(labels, dict) and "source" in labels


def _shape(file: Path, rows: Sequence[Row], wanted: Wanted) -> Shape:
    _check_wanted(wanted)
    if wanted.question and wanted.answer:
        return own_shape(wanted.question, wanted.answer, wanted.kind or "qa")
    found = SHAPES[wanted.shape] if wanted.shape else shape_of(rows)
    if found is None:
        raise InputError(_of_no_known_shape(file, rows[0]))
    if not any(map(found.fits, rows)):
        other = shape_of(rows)
        raise InputError(
            f"{file} is not of the shape {found.name} ({found.fields}); the fields of its first "
            f"record are: {listed_fields(rows[0])}"
            + (f". It looks like {other.name}: leave --format out" if other else "")
        )
    return found


def _of_no_known_shape(file: Path, first: Row) -> str:
    """What a person can do with a file whose records are of none."""
    if set(first) >= _TASK_FIELDS:
        return (
            f"{file} is a task file already, there is nothing to convert; lzero tasks check {file} "
            "looks at it"
        )
    return (
        f"{file} is of no known shape; the fields of its first record are\n"
        f"  {listed_fields(first)}\n"
        "Name those of question and answer: --question FIELD --answer FIELD. Known shapes are\n"
        f"{known_shapes(SHAPES.values())}"
    )


def _check_wanted(wanted: Wanted) -> None:
    if bool(wanted.question) != bool(wanted.answer):
        raise InputError("--question and --answer go together; name both fields")
    if wanted.question and wanted.shape:
        raise InputError("--format names a known shape, --question and --answer one of your own")
    if wanted.shape is not None and wanted.shape not in SHAPES:
        raise InputError(f"--format must be one of {', '.join(SHAPES)}, got {wanted.shape!r}")
    if wanted.kind is not None and wanted.kind not in KINDS:
        raise InputError(f"--kind must be one of {', '.join(KINDS)}, got {wanted.kind!r}")


def _read(shape: Shape, record: FileRecord) -> Entry | Unusable:
    """What a record says; what is wrong with it becomes an error that says where."""
    try:
        return shape.read(record.row)
    except KeyError as error:
        raise InputError(
            f"{record.where}: field {error} is missing; most records are of the shape "
            f"{shape.name} ({shape.fields})"
        ) from error
    except (ValueError, AttributeError, TypeError, InputError) as error:
        raise InputError(f"{record.where}: {error}") from error


def _completed(entry: Entry, file: Path, shape: Shape, wanted: Wanted) -> Entry:
    """The entry with a source, and of the wanted kind."""
    if wanted.kind and entry.kind == "code":
        raise InputError(f"{file} holds programs, whose tests score them; leave --kind out")
    entry = replace(entry, kind=wanted.kind or entry.kind)
    if entry.source and not wanted.source:
        return entry
    place = file.absolute()
    named = wanted.source or known_source(place.name) or known_source(place.parent.name)
    if named:
        return replace(entry, source=source_name(named))
    # Ids such as test_0 are unique in their set only, and which set it is nobody said.
    return replace(entry, source=shape.name, original_id=None)


def _own_passages(entries: Iterable[Entry]) -> list[Passage]:
    """The passages around the questions, each once."""
    return list(dict.fromkeys(page for entry in entries for page in entry.passages))
