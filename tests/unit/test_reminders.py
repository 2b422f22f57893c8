"""A message that is no action is answered by the form, filled with what the message held."""

import pytest

from actors.agent.reminders import format_reminder
from common.chat import escape_tags, parse_action


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("I add.\n<code>print(1 + 1)</output>", "print(1 + 1)"),
        ("```\nx = 2\n```\n<think>", "x = 2"),
        ("So I call submit_final_answer(24) now.", "submit_final_answer(24)"),
        ("48 + 24 clips.\nThe answer is: 72.<|im_end|>", "submit_final_answer(72)"),
        ("#### 1,234", "submit_final_answer(1234)"),
        ("It is \\boxed{3.5}", "submit_final_answer(3.5)"),
        ("so the answer is **Paris**.", "submit_final_answer('Paris')"),
        ('Answer: it\'s "x" <code>', "submit_final_answer('it\\'s \"x')"),
        ("<output>12</output>", "submit_final_answer(12)"),
        ("The answer is 3. No, the answer is 4.", "submit_final_answer(4)"),
    ],
)
def test_the_form_is_filled_with_the_models_own_code_or_answer(written: str, code: str) -> None:
    shown = parse_action(last_line_on(format_reminder(written)))

    assert shown is not None
    assert shown.code == code


def test_the_thought_is_the_beginning_of_the_models_own_words() -> None:
    shown = parse_action(last_line_on(format_reminder("<think>\nI add them.\nThen what?")))

    assert shown is not None
    assert shown.think == "I add them."


def test_an_output_that_was_echoed_is_neither_a_thought_nor_an_answer() -> None:
    reminder = format_reminder("<output>Cell In[1], line 1</output>")

    assert "Cell In" not in reminder
    assert "submit_final_answer('" not in reminder


@pytest.mark.parametrize("written", ["", "Hello.", "<think>", "<|im_end|>", "```\n```"])
def test_without_code_or_answer_the_form_is_still_whole(written: str) -> None:
    assert parse_action(last_line_on(format_reminder(written))) is not None


def test_of_a_message_that_was_cut_off_no_code_is_repeated() -> None:
    reminder = format_reminder("```python\n" + "x = 1\n" * 50, cut_off=True)

    assert "too long" in reminder
    assert "x = 1" not in reminder


@pytest.mark.parametrize("written", ["<code>print('<think>')", "is <|im_start|>x?\nAnswer: <|a|>"])
def test_tags_of_the_model_are_broken_and_those_of_the_form_are_not(written: str) -> None:
    reminder = format_reminder(written, escape=escape_tags)

    assert reminder.count("<think>") == reminder.count("</code>") == 1
    assert "<|" not in reminder


def last_line_on(reminder: str) -> str:
    return reminder[reminder.index("<think>") :]
