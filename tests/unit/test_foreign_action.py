"""What plainly means an action is read as one; what stands in the thoughts is never run."""

import time

import pytest

from actors.agent.foreign_action import cut_after_end, rewrite
from common.chat import parse_action

DRAFT = "try:\n```python\ndraft()\n```"


@pytest.mark.parametrize(
    ("written", "think", "code"),
    [
        ("<think>a</think><code>x</code>", "a", "x"),
        ("<think>a</think>\n<code>x", "a", "x"),
        ("thoughts</think><code>x</code>", "thoughts", "x"),
        ("I will add.\n<code>x</code>", "I will add.", "x"),
        ("<code>x</code>", "", "x"),
        ("<think>a</think><code>\n```python\nx = 1\ny\n```\n</code>", "a", "x = 1\ny"),
        ("First:\n```python\nx = 1\n```\nwhich gives 1", "First:", "x = 1"),
        ("<think>a</think>\n```\nx\n```", "a", "x"),
        ("<think>a</think>```py\nx\n```", "a", "x"),
        ("<think>try:\n```python\ndraft()\n```\n</think>\n```python\nx\n```", DRAFT, "x"),
        ("try:\n```python\ndraft()\n```\n</think>\n```python\nx\n```", DRAFT, "x"),
        ("<think>I need <code> here</think><code>x</code>", "I need < code> here", "x"),
        ("<think>as <code>y</code> says</think><code>x</code>", "as < code>y< /code> says", "x"),
        ("<think>an <output></think>\n```python\nx\n```", "an < output>", "x"),
        ("<think>a</think>In <code> tags:\n```python\nx\n```", "a\nIn < code> tags:", "x"),
        ("<think>a</think><think>b</think><code>x</code>", "a\nb", "x"),
        ("<think>a\n<code>x</code>", "a", "x"),
        ("<thinking>try:\n```python\ndraft()\n```\n</thinking>\n```python\nx\n```", DRAFT, "x"),
        ("[THINK]try:\n```python\ndraft()\n```[/THINK]```python\nx\n```", DRAFT, "x"),
        ("```Python\nx\n```", "", "x"),
        ("```python3\nx\n```", "", "x"),
        ("``` python title=a.py\nx\n```", "", "x"),
        ("```{python}\nx\n```", "", "x"),
        ("a\r\n```python\r\nx = 1\r\ny\r\n```\r\n", "a", "x = 1\ny"),
        ("1. So:\n   ```python\n   if x:\n\n       y\n   ```", "1. So:", "if x:\n\n    y"),
        ("~~~python\nx\n~~~", "", "x"),
        ("````python\ns = '''\n```\n'''\n````", "", "s = '''\n```\n'''"),
        ("So:\n```python\nx = 1\n", "So:", "x = 1"),
        ("```bash\nls\n```\nthen\n```python\nx\n```", "```bash\nls\n```\nthen", "x"),
        ("<think>a</think><code>```python\nx</code>", "a", "x"),
        ("<think>a</think><code>\n~~~\nx\n~~~\n</code>", "a", "x"),
        ("<think>a</think><code>\ufeffx</code>", "a", "x"),
        ("```python\n\ufeffx\n```", "", "x"),
        ("submit_final_answer(24)", "", "submit_final_answer(24)"),
        ("<think>a</think>\nx = 1\nprint(x)", "a", "x = 1\nprint(x)"),
        ("So it is 24.\nsubmit_final_answer(24)", "So it is 24.", "submit_final_answer(24)"),
        ("So it is 24.\n`submit_final_answer(24)`", "So it is 24.", "submit_final_answer(24)"),
    ],
)
def test_what_plainly_means_an_action_is_read_as_one(written: str, think: str, code: str) -> None:
    action = parse_action(rewrite(written))

    assert action is not None
    assert (action.think, action.code) == (think, code)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "It is 2.",
        "<think>a</think><code></code>",
        "<think>a</think><code>x<code>y</code>",
        "<think>try:\n```python\ndraft()\n```\n</think>\nNot yet.",
        "<think>try:\n```python\ndraft()\n```\nbut that is wrong, so",
        "<think>a</think>\n```bash\nls\n```",
        "<think>a</think>\n```\n```",
        "inline ```x``` only",
        "Done",
        "x = 1",
        "I could call print(x) here.",
        "Call submit_final_answer(24) then.",
        "submit_final_answer(24)\nor should I?",
        "<think>maybe\nsubmit_final_answer(24)",
        "submit_final_answer(24",
    ],
)
def test_what_means_no_action_is_left_as_it_came(written: str) -> None:
    assert rewrite(written) == cut_after_end(written)
    assert parse_action(rewrite(written)) is None


def test_code_without_a_mark_that_was_cut_off_is_not_run() -> None:
    assert rewrite("import shutil\nprint(1)", stopped=False) == "import shutil\nprint(1)"


def test_a_fence_that_was_cut_off_is_not_run() -> None:
    written = "First:\n```python\nimport shutil\nshutil.rm"

    assert rewrite(written, stopped=False) == written


@pytest.mark.parametrize(
    "text",
    [
        "```" + "a" * 70_000 + "`",
        "<think></think>" * 80_000,
        "<think>" * 10_000,
        "```\n" * 17_000,
        "<think>a</think><code>" + "```\n" * 17_000 + "</code>",
        "<think>a</think>" + "<code>" * 10_000 + "x</code>",
        "\n" * 70_000 + " " * 10_000,
        "(" * 70_000,
        "f(" * 9_000,
    ],
)
def test_reading_takes_time_in_proportion_to_the_text(text: str) -> None:
    started = time.process_time()
    rewrite(text)

    assert time.process_time() - started < 0.5
