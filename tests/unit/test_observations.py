"""What the policy sees of a long output: both ends of what a terminal would show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.agent.observations import cut

ERROR = """Traceback (most recent call last):
  Cell In[1], line 3
    table["missing"]
KeyError: 'missing'"""


@given(st.text(st.characters(exclude_characters="…"), max_size=60), st.integers(0, 60))
def test_a_cut_text_fits_and_has_both_ends(text, characters):
    shown = cut(text, characters)

    assert len(shown) <= characters
    if len(text.rstrip()) <= characters:
        assert shown == text.rstrip()
    elif characters > 5:
        head, tail = shown.split("\n…\n")
        assert text.startswith(head)
        assert text.rstrip().endswith(tail)
        assert head
        assert tail


@pytest.mark.parametrize("characters", [400, 8000])
def test_an_error_after_long_output_is_seen(characters):
    output = "".join(f"row {number}\n" for number in range(60_000)) + ERROR

    shown = cut(output, characters)

    assert shown.startswith("row 0\nrow 1\n")
    assert shown.endswith(ERROR)
    assert len(shown) == characters


def test_a_traceback_gets_the_room_that_it_needs_and_the_beginning_the_rest():
    frames = "".join(f"  Cell In[1], line {line} in f\n    f({line})\n" for line in range(8))
    error = f"Traceback (most recent call last):\n{frames}KeyError: 'missing'"

    shown = cut("row\n" * 1000 + error, 600)

    assert len(error) > 200
    assert shown.endswith(f"\n…\n{error}")
    assert len(shown) == 600
    assert len(cut("x" * 1000, 600).partition("\n…\n")[2]) == 199
