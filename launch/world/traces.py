"""Demonstrations as training text, in the very grammar of the rollouts."""

import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.tools.search import SearchIndex, build_index
from common.chat import ParsedAction, action_text, observation_text, prompt_text
from launch.world.demonstrator import WARM_START, Demonstration, Demonstrator, Mix
from launch.world.encyclopedia import World
from launch.world.names import EntityType
from launch.world.questions import KINDS, Question, draw

TRACES_PER_WORLD = 512
"""Demonstrations before a new training world is drawn; a fixed world would be memorised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A piece of a trace; ``action`` marks what the policy itself would have sampled."""

    text: str
    action: bool


def render(question: Question, demonstration: Demonstration) -> tuple[Span, ...]:
    """The spans of a demonstration, in order; the last one is an action."""
    spans = [Span(text=prompt_text(question.text), action=False)]
    for number, move in enumerate(demonstration.moves, start=1):
        action = ParsedAction(think=move.think, code=move.code)
        spans.append(Span(text=action_text(action), action=True))
        if number < len(demonstration.moves):
            spans.append(Span(text=observation_text(move.output), action=False))
    return tuple(spans)


def traces(
    seed: int, count: int, mix: Mix = WARM_START, per_world: int = TRACES_PER_WORLD
) -> Iterator[tuple[Span, ...]]:
    """Demonstrations on random training worlds; a pure function of the arguments."""
    rng = random.Random(f"traces:{seed}")
    for start in range(0, count, per_world):
        world = World(rng.randrange(2**31))
        guesses: dict[EntityType, list[str]] = {
            "person": list(world.people),
            "town": list(world.towns),
        }
        with tempfile.TemporaryDirectory(prefix="lzero-world-") as folder:
            index = open_index(world, Path(folder))
            demonstrator = Demonstrator(index.search, guesses, rng, mix)
            for _ in range(min(per_world, count - start)):
                question = draw(world, list(KINDS), rng)
                yield render(question, demonstrator.demonstrate(question))
            index.close()


def write_traces(
    path: Path, seed: int, count: int, mix: Mix = WARM_START, per_world: int = TRACES_PER_WORLD
) -> None:
    """Write traces as JSON lines: ``{"segments": [{"text": ..., "action": ...}, ...]}``."""
    with path.open("w", encoding="utf-8") as lines:
        for spans in traces(seed, count, mix, per_world):
            segments = [{"text": span.text, "action": span.action} for span in spans]
            lines.write(json.dumps({"segments": segments}, ensure_ascii=False) + "\n")


def write_corpus(world: World, path: Path) -> None:
    """Write the pages as JSON lines: ``{"title": ..., "text": ...}``."""
    with path.open("w", encoding="utf-8") as lines:
        for page in world.pages:
            lines.write(json.dumps({"title": page.title, "text": page.text}) + "\n")


def open_index(world: World, folder: Path) -> SearchIndex:
    """Index a world in ``folder`` and open it as the actors do."""
    write_corpus(world, folder / "corpus.jsonl")
    build_index(folder / "corpus.jsonl", folder / "index.sqlite")
    return SearchIndex(folder / "index.sqlite")
