"""A mathematical answer equals a gold one however it is written, and nothing else does."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.rewards.maths.equality import equal_answers, same_text
from actors.rewards.maths.exact import based, number
from actors.rewards.maths.structure import collection
from actors.rewards.maths.symbolic import equal_formulas
from actors.rewards.maths.written import MAX_CHARACTERS, read
from common.config import Config, Rewards
from common.errors import ConfigError
from common.wire.records import Task
from launch.run.preflight import check_scoring

SAME = r"""
3/7                          == \frac{3}{7}
\dfrac37                     == \frac{3}{7}
-\tfrac{3}{7}                == \frac{-3}{7}
1 2/7                        == 1\frac{2}{7}
1\frac27                     == \frac{9}{7}
.25                          == \frac14
$0.250$                      == \frac14
0.4285714286                 == \frac37
\boxed{17}                   == 17
$\boxed{17}$                 == 17
The answer is $17$.          == 17
**17**                       == 17
Answer: 17                   == 17
x = 17                       == 17
17                           == x=17
x = 1,234                    == 1234
1,234                        == 1234
12,\!345                     == 12345
1, \! 012, \! 345            == 1012345
12 345                       == 12345
$4,300                       == \$4300
4,300 dollars                == \$4300
8e-5                         == .00008
8\times 10^{-5}              == .00008
60%                          == 60
60\%                         == 0.6
45                           == 45^\circ
45°                          == 45^\circ
45 degrees                   == 45^{\circ}
45\text{ degrees}            == 45^\circ
21 cm^2                      == 21\mbox{ cm}^2
21 cm²                       == 21\mbox{ cm}^2
21 square centimeters        == 21\text{ cm}^2
21                           == 21\text{ cm}^2
7 inches                     == 7\text{ inches}
Selma                        == \text{Selma}
selma.                       == \text{Selma}
\text{ Selma }               == Selma
D                            == \text{(D)}
(d)                          == \text{(D)}
\textbf{(D)}                 == (D)
31_{7}                       == 31_7
31₇                          == 31_7
31_{\text{seven}}            == 31_7
4, -1                        == -1,4
\{4,-1\}                     == -1,4
{4,-1}                       == -1,4
x = 4 or x = -1              == -1,4
2-\sqrt6, 2+\sqrt6           == 2\pm\sqrt{6}
2 ± √6                       == 2\pm\sqrt{6}
(2, π/5)                     == \left( 2, \frac{\pi}{5} \right)
(1, oo)                      == (1,\infty)
[\frac12, 4)                 == \left[0.5, 4\right)
(5,8)\cup(0,5)               == (0,5) \cup (5,8)
[-3,4]                       == x \in [-3,4]
-3 \le x \le 4               == x \in [-3,4]
y = 4 - 3x                   == y=-3x+4
-3x+4                        == y=-3x+4
2y + 3x = 1                  == 3x + 2y - 1 = 0
5*sqrt(7)                    == 5\sqrt7
sqrt(175)                    == 5\sqrt7
\frac{1}{\sqrt 7}            == \frac{\sqrt7}{7}
(n-2)(n+3)                   == n^2 + n - 6
z³−4z                        == z^3-4z
4i-3                         == -3+4i
cos(t)                       == \cos t
\begin{bmatrix}2\\-1/3\end{bmatrix} == \begin{pmatrix} 2 \\ -\frac{1}{3} \end{pmatrix}
"""
DIFFERENT = r"""
17                           != 18
-17                          != 17
17.0000001                   != 17
0.4285                       != \frac37
.00007                       != .00008
3.14159                      != \pi
17 or 18                     != 18
16, 17                       != 17
16 17                        != 17
not 17                       != 17
17 apples or 18              != 17
17\text{ or eighteen}        != 17
17\text{, not it}            != 17
\text{D}\text{E}             != \text{(D)}
(D)\text{ E}                 != \text{(D)}
1100                         != 1, 100
1, 100                       != 1100
17 million                   != 17
17t                          != 17
17=18                        != 18
18=17                        != 18
\boxed{17}\boxed{18}         != 18
1,2                          != 12
1,234                        != 1.234
x=17                         != y=17
a=1, b=2                     != 2,1
31                           != 31_7
31_8                         != 31_7
21 cm                        != 21\mbox{ cm}^2
21 m^2                       != 21\mbox{ cm}^2
7 feet                       != 7\text{ inches}
ten                          != \text{net}
E                            != \text{(D)}
D or E                       != \text{(D)}
(2,1)                        != (1,2)
[1,2]                        != (1,2)
1,2                          != (1,2)
(1,2)                        != 1,2
1,1,2                        != 1,2
(3,3)                        != (4,4)
(0,8)                        != (0,5) \cup (5,8)
3^2                          != 32
3²                           != 32
2½                           != \frac{21}{2}
r^2                          != R^2
p+q                          != p-q
x^2-1                        != x^2+1
2+4i                         != 2-4i
0                            != 10^{-20}
10^{-20}                     != 2 \cdot 10^{-20}
x<5                          != x \le 5
0=0                          != x=5
y=3x+4                       != y=-3x+4
\begin{pmatrix} 1 & 2 \end{pmatrix} != \begin{pmatrix} 1 \\ 2 \end{pmatrix}
\frac{1}{0}                  != 5
\boxed{}                     != 5
?                            != 5
"""


def pairs(table: str, sign: str) -> list[tuple[str, str]]:
    rows = (line.split(sign) for line in table.strip().splitlines())
    return [(given.strip(), gold.strip()) for given, gold in rows]


@pytest.mark.parametrize(("answer", "gold"), pairs(SAME, "== "))
def test_an_answer_may_be_written_in_any_usual_way(answer: str, gold: str) -> None:
    assert equal_answers(answer, gold, equal_formulas)
    assert same_text(gold, gold)


@pytest.mark.parametrize(("answer", "gold"), pairs(DIFFERENT, "!= "))
def test_what_is_only_close_is_another_answer(answer: str, gold: str) -> None:
    assert not equal_answers(answer, gold, equal_formulas)


def test_nothing_equals_nothing_and_a_long_text_equals_nothing() -> None:
    long = "1" * (MAX_CHARACTERS + 1)

    assert not equal_answers("", "", equal_formulas)
    assert not same_text(long, long)
    assert same_text("1" * MAX_CHARACTERS, "1" * MAX_CHARACTERS)


def no_formulas(given: str, gold: str) -> bool:
    raise AssertionError(f"{given} and {gold} need no verifier")


def test_numbers_words_and_lists_of_them_need_no_verifier() -> None:
    assert equal_answers("3/4, 1", "1, 0.75", no_formulas)
    assert not equal_answers("12", "13", no_formulas)
    assert not equal_answers("left", r"\text{right}", no_formulas)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=r"0123456789.,+-*/^_=()[]{}\$% axfrcptqbodeinsu±²½√π", max_size=60))
def test_no_text_makes_the_readers_fail(text: str) -> None:
    body = read(text).body

    assert not body or same_text(text, text)
    for look in (number, based, collection):
        look(body)


@pytest.mark.parametrize("piece", ["(", "{", "\\{", "$", "1,", "\\frac", "\\left(", "a ", "[(1,"])
def test_a_text_of_one_piece_again_and_again_is_read_at_once(piece: str) -> None:
    text = (piece * MAX_CHARACTERS)[:MAX_CHARACTERS]

    assert collection(read(text).body) is None or "," in piece


def test_a_time_for_scoring_in_which_no_bomb_is_found_wrong_is_refused() -> None:
    task = Task(task_id="m", question="How much?", kind="math", answers=("2",))

    check_scoring(Config(rewards=Rewards(timeout_s=7.0)), [task], trains=True)
    check_scoring(Config(rewards=Rewards(timeout_s=1.0)), [replace(task, kind="qa")], trains=True)
    with pytest.raises(ConfigError, match=r"rewards\.timeout_s \(5\) must be at least 7"):
        check_scoring(Config(rewards=Rewards(timeout_s=5.0)), [task], trains=False)
