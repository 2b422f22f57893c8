"""Direct mode: how a short answer is asked for, and how it is read out of free text."""

import asyncio
import time

import pytest

from actors.agent.direct.reading import NOT_SCORED, direct_answer
from actors.agent.direct.wording import AskWithPages, ask_directly
from actors.rewards.squad import squad_exact_match
from actors.tools.tool import FunctionTool
from common.errors import PluginError
from common.wire.records import Task

TASK = Task(task_id="t", question="Where was she born?", answers=("Port Alden",))

PROSE = "She moved as a child. Her parents lived by the sea.\n\n"


@pytest.mark.parametrize(
    "text",
    [
        "Port Alden",
        f"{PROSE}Answer: Port Alden",
        f"{PROSE}answer: Port Alden.",
        f"{PROSE}**Answer:** Port Alden",
        f"{PROSE}**Answer: Port Alden**",
        f"{PROSE}**Final Answer**: Port Alden",
        f"{PROSE}### Final answer:\nPort Alden",
        f"{PROSE}> The answer is: Port Alden",
        f"{PROSE}So the final answer is Port Alden.",
        f"{PROSE}The answer to this question is: Port Alden",
        f"{PROSE}<answer> Port Alden </answer> I hope that helps.",
        f"{PROSE}\\boxed{{Port Alden}}",
        f"{PROSE}Answer: $\\boxed{{Port Alden}}$",
        f"Answer: Leeds\nNo, wait.\n{PROSE}Answer: Port Alden\n",
        "The answer is Leeds? She left it.\nAnswer: Port Alden",
        "<think>Answer: Leeds</think>Answer: Port Alden<|im_end|>",
        "<think>Answer: Leeds</think>Port Alden",
    ],
)
def test_the_short_answer_is_found_wherever_it_is_marked(text: str) -> None:
    assert squad_exact_match(direct_answer(text, "qa"), TASK.answers) == 1.0, text


def test_without_a_mark_the_whole_text_is_the_answer() -> None:
    text = "She was born in Port Alden, as far as I know."

    assert direct_answer(text, "qa") == text
    assert direct_answer("There is no answer.", "qa") == "There is no answer."


def test_thoughts_that_never_end_are_no_answer() -> None:
    assert direct_answer("<think>Perhaps Port Alden, perhaps", "qa") == ""


def test_a_question_that_nobody_scores_is_answered_by_the_whole_message() -> None:
    letter = "Dear Anna,\nthe answer is yes.\nYours"

    assert direct_answer(letter, NOT_SCORED) == letter


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Answer: 18", "18"),
        ("Answer: $18.", "$18"),
        ("Answer: 1,234.5 dollars", "1,234.5"),
        ("Answer: 3 + 4 = 7 eggs", "7"),
        ("Answer: -5", "-5"),
        ("Answer: \\boxed{-5}", "-5"),
        ("Answer: \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("Natalia sold 48/2 = 24 clips.\n#### 72", "72"),
        ("She sold 24 in May. In total she sold 48 + 24 = 72 clips.", "72"),
        ("It takes 10-15 minutes.", "15"),
        ("He is 50% right", "50%"),
        ("Answer: none of these, though 7 was close", "7"),
        ("I do not know.", "I do not know."),
        ("The answer is unclear. There were 3.", "3"),
    ],
)
def test_a_number_is_read_where_it_is_marked_else_the_last_one_counts(
    text: str, number: str
) -> None:
    assert direct_answer(text, "number") == number


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("So \\boxed{\\frac{3}{4}} it is, not \\frac{1}{2}.", "\\frac{3}{4}"),
        ("First \\boxed{1}.\nThen \\boxed{x^{2}+1}.", "x^{2}+1"),
        (
            "Answer: \\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}",
            "\\left( 3, \\frac{\\pi}{2} \\right)",
        ),
        ("The answer is **p - q**.", "p - q"),
        ("Answer: `3/4`.", "3/4"),
        ("**Answer:**\n$$\n\\frac{3}{4}\n$$", "\\frac{3}{4}"),
        ("Answer: \\[\nx = 3\n\\]", "x = 3"),
        ("Answer: \\[x = 3\\]", "\\[x = 3\\]"),
        ("cut off: \\boxed{\\frac{1}{2}", "\\frac{1}{2}"),
    ],
)
def test_the_last_box_is_read_with_its_braces_in_balance(text: str, result: str) -> None:
    assert direct_answer(text, "math") == result


def test_of_code_the_last_python_block_counts() -> None:
    text = (
        "Like this:\n```python\ndef f(): ...\n```\nor better\n```py\ndef f():\n    return 1\n```\n"
        "Output:\n```text\n1\n```\n"
    )

    assert direct_answer(text, "code").strip() == "def f():\n    return 1"
    assert direct_answer("def f():\n    return 1", "code") == "def f():\n    return 1"
    assert direct_answer("```python\ndef f():\n    return 2", "code").strip().endswith("return 2")


def test_tags_are_paired_in_their_order() -> None:
    text = "</answer><answer>Leeds</answer> or <answer>Port Alden</answer> or <answer>"

    assert direct_answer(text, "qa") == "Port Alden"
    assert direct_answer("<answer>Port Alden", "qa") == "<answer>Port Alden"


@pytest.mark.parametrize(
    ("text", "kind"),
    [("<answer>" * 50_000, "qa"), ("```python\nx\n```\n" * 15_000, "code")],
)
def test_reading_takes_time_linear_in_the_message(text: str, kind: str) -> None:
    began = time.thread_time()

    direct_answer(text, kind)

    assert time.thread_time() - began < 2.0


@pytest.mark.parametrize("kind", ["qa", "number", "math", "code", "judged", "my.types:Own"])
def test_each_kind_says_how_to_end_and_an_answer_in_that_form_is_read(kind: str) -> None:
    task = Task(task_id="t", question="?", answers=("7",), kind=kind)
    asked = asyncio.run(ask_directly(task, "How many?"))
    form = {"math": "Answer: \\boxed{7}", "code": "```python\n7\n```"}.get(kind, "Answer: 7")

    assert asked.startswith("How many?\n\n")
    assert form.replace("7", "...") in asked or kind == "code"
    assert direct_answer(f"Let me see.\n{form}", kind).strip() == "7"


def test_pages_stand_before_the_question_and_the_task_tells_the_search_its_corpus() -> None:
    asked: list[tuple[str, str]] = []

    def search(query: str, task: Task) -> str:
        asked.append((query, task.corpus))
        return "Anna Keller, born in Port Alden."

    question = asyncio.run(AskWithPages(FunctionTool(search))(TASK, TASK.question))

    assert asked == [("Where was she born?", "train")]
    assert question.index("Port Alden") < question.index("Question: Where was she born?")
    assert "Answer: ..." in question


def test_a_search_that_fails_is_named() -> None:
    def search(query: str) -> str:
        raise OSError("no such index")

    with pytest.raises(PluginError, match="search failed: OSError: no such index"):
        asyncio.run(AskWithPages(FunctionTool(search))(TASK, TASK.question))
