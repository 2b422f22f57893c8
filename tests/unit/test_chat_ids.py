"""Ordinary text keeps the very token ids that the shipped warm start was trained on."""

import hashlib
import json
from collections.abc import Iterator

from common.chat import ChatRenderer
from launch.data.world.traces import traces
from tests.scripted_agent import TOKENIZER

ASKED = [1, 321, 207, 719, 313, 229, 1014, 1065, 326, 39, 2, 207, 1, 322, 207]
SEEN = [
    *(7, 60, 90, 646, 74, 347, 83, 229, 16, 85, 87, 279, 229, 341, 75, 532, 513, 296, 84, 229, 84),
    *(448, 17, 34, 207, 229, 229, 46, 81, 299, 229, 10, 36, 279, 76, 268, 38, 10, 20, 229, 84, 631),
    *(229, 25, 20, 289, 229, 36, 85, 87, 76, 93, 299, 38, 207, 809, 93, 77, 967, 792, 34, 455, 229),
    *(36, 291, 229, 180, 130, 259, 229, 136, 129, 229, 170, 247, 244, 8),
]
DIGEST = "c6e7ec4fb8428c7c8909bfc8bcecf18b527332a399d0c111ca00ea8b0b95445e"


def _ids(renderer: ChatRenderer) -> Iterator[list[int]]:
    """Ids of every prompt and observation of some demonstrations."""
    for spans in traces(11, 24):
        for span in spans:
            if span.action:
                continue
            question, is_prompt, _ = span.text.partition("<|im_end|>")
            if is_prompt:
                yield renderer.prompt(question.removeprefix("<|im_start|>user\n"))
            else:
                output = span.text.removeprefix("<output>").removesuffix("</output>")
                yield renderer.observation(output)


def test_prompts_and_observations_have_the_ids_that_they_were_recorded_with() -> None:
    renderer = ChatRenderer(TOKENIZER)
    digest = hashlib.sha256()
    for ids in _ids(renderer):
        digest.update(json.dumps(ids).encode())

    assert digest.hexdigest() == DIGEST
    assert renderer.prompt("Where was Anna Keller born?") == ASKED
    error = 'Traceback (most recent call last):\n  File "<stdin>", line 1, in <module>\n'
    assert renderer.observation(f"{error}ValueError: a < b ｜ ü 名\n") == SEEN
