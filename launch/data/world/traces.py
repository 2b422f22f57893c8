"""Demonstrations as training text, in the very grammar of the rollouts."""

import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.tools.search.index import SearchIndex, build_index
from common.chat import ParsedAction, action_text, observation_text, prompt_text
from common.config import Search
from launch.data.world.demonstrator import PERFECT, WARM_START, Demonstration, Demonstrator, Mix
from launch.data.world.encyclopedia import Encyclopedia
from launch.data.world.names import EntityType
from launch.data.world.questions import KINDS, Question, Wording, draw

TRACES_PER_WORLD = 512
"""Demonstrations before a new training world is drawn; a fixed world would be memorised."""

SEARCH = Search(match="all", results=1, title_weight=1.0)
"""How the policy of launch/presets/quickstart.toml searches, and so what it has to be shown."""

_BEFORE_CODE = "</think>"


@dataclass(frozen=True, kw_only=True, slots=True)
class TracePiece:
    """A piece of a trace; ``action`` marks what the policy itself would have sampled.

    ``weight`` is its loss weight; None leaves that to the trainer.
    """

    text: str
    action: bool
    weight: float | None = None


def render(question: Question, demonstration: Demonstration) -> tuple[TracePiece, ...]:
    """The spans of a demonstration, in order; the last one is an action."""
    spans = [TracePiece(text=prompt_text(question.text), action=False)]
    for number, move in enumerate(demonstration.moves, start=1):
        action = ParsedAction(think=move.think, code=move.code)
        spans.append(TracePiece(text=action_text(action), action=True))
        if number < len(demonstration.moves):
            spans.append(TracePiece(text=observation_text(move.output), action=False))
    return tuple(spans)


def render_practice(question: Question, demonstration: Demonstration) -> tuple[TracePiece, ...]:
    """The same with no weight on what was thought, only on the code that followed from it.

    Such traces train the skill of copying names and years into code, without making the strategy
    they show more likely: a strategy is chosen by its thought.
    """
    spans: list[TracePiece] = []
    for span in render(question, demonstration):
        if span.action:
            think, code = span.text.split(_BEFORE_CODE)
            spans.append(TracePiece(text=think + _BEFORE_CODE, action=True, weight=0.0))
            spans.append(TracePiece(text=code, action=True))
        else:
            spans.append(span)
    return tuple(spans)


def traces(
    seed: int,
    count: int,
    mix: Mix = WARM_START,
    *,
    practice: float = 0.0,
    practice_kinds: Sequence[str] = (),
    wording: Wording = "train",
    per_world: int = TRACES_PER_WORLD,
) -> Iterator[tuple[TracePiece, ...]]:
    """Demonstrations on random training worlds; a pure function of the arguments.

    Args:
        seed: of worlds, questions and decisions.
        count: how many.
        mix: the demonstrator's probabilities.
        practice: share of traces that are ``render_practice`` of the perfect strategy.
        practice_kinds: kinds that are practised, repeated by how often; all alike if empty.
        wording: in which the questions are asked.
        per_world: traces before a new world is drawn.
    """
    rng = random.Random(f"traces:{seed}")
    for start in range(0, count, per_world):
        world = Encyclopedia(rng.randrange(2**31))
        guesses: dict[EntityType, list[str]] = {
            "person": list(world.people),
            "town": list(world.towns),
        }
        with tempfile.TemporaryDirectory(prefix="lzero-world-") as folder:
            index = open_index(world, Path(folder))
            mixed = Demonstrator(index.search, guesses, rng, mix)
            perfect = Demonstrator(index.search, guesses, rng, PERFECT)
            for _ in range(min(per_world, count - start)):
                question = draw(world, list(KINDS), rng, wording)
                if practice and rng.random() < practice:
                    if practice_kinds:
                        question = draw(world, list(practice_kinds), rng, wording)
                    yield render_practice(question, perfect.demonstrate(question))
                else:
                    yield render(question, mixed.demonstrate(question))
            index.close()


def write_traces(
    path: Path,
    seed: int,
    count: int,
    mix: Mix = WARM_START,
    *,
    practice: float = 0.0,
    practice_kinds: Sequence[str] = (),
    wording: Wording = "train",
) -> None:
    """Write traces as JSON lines.

    Each is ``{"segments": [{"text": ..., "action": ...}, ...]}``; a segment may have a ``weight``.
    """
    with path.open("w", encoding="utf-8") as lines:
        for spans in traces(
            seed,
            count,
            mix,
            practice=practice,
            practice_kinds=practice_kinds,
            wording=wording,
        ):
            segments = [_record(span) for span in spans]
            lines.write(json.dumps({"segments": segments}, ensure_ascii=False) + "\n")


def _record(span: TracePiece) -> dict[str, str | bool | float]:
    record: dict[str, str | bool | float] = {"text": span.text, "action": span.action}
    return record if span.weight is None else record | {"weight": span.weight}


def write_corpus(world: Encyclopedia, path: Path) -> None:
    """Write the pages as JSON lines: ``{"title": ..., "text": ...}``."""
    with path.open("w", encoding="utf-8") as lines:
        for page in world.pages:
            lines.write(json.dumps({"title": page.title, "text": page.text}) + "\n")


def open_index(world: Encyclopedia, folder: Path) -> SearchIndex:
    """Index a world in ``folder`` and open it as the actors do."""
    write_corpus(world, folder / "corpus.jsonl")
    build_index(folder / "corpus.jsonl", folder / "index.sqlite")
    return SearchIndex(folder / "index.sqlite", SEARCH)
