"""A program is right if its tests pass in sandboxes of their own, whatever it does to them."""

import asyncio
import json
from pathlib import Path

import pytest

from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.rewards.programs.program import program_of
from actors.rewards.programs.sandboxed import passes
from actors.wiring import started_judge
from common.config import Config, Kernel, Rewards
from common.errors import KernelError, LZeroError
from common.wire.records import Outcome, Task
from launch.cli import main

pytestmark = pytest.mark.sandbox

PROMPT = '''import math


def halves(n):
    return n / 2


def total(numbers):
    """The sum of the halves of all numbers.

    >>> total([1, 3])
    2.0
    """
'''
TESTS = """
METADATA = {"author": "us"}


def check(candidate):
    assert candidate([1, 3]) == sum(map(halves, [1, 3]))
    assert candidate([]) == 0
    assert math.isinf(candidate([math.inf]))
    try:
        candidate(None)
    except TypeError:
        pass
    else:
        assert False, "expected a TypeError"


check(total)
"""
RIGHT = "    return float(sum(map(halves, numbers)))\n"
ALONE = "def total(numbers):\n    print('noise')\n    return sum(n / 2 for n in numbers)\n"
PAIRS = "assert far(Pair(1, 4)) == 3\nassert Pair(2, 2).is_even"
PAIR = """
class Pair:
    def __init__(self, a, b):
        self.a, self.b, self.is_even = a, b, a == b


def far(pair):
    return abs(pair.a - pair.b)
"""


def apart(**details: str) -> Task:
    given = {"prefix": PROMPT, "tests": TESTS, "entry_point": "total"} | details
    return Task(
        task_id="apart", question="q", kind="code", answers=(PROMPT + RIGHT,), details=given
    )


def together() -> Task:
    return Task(
        task_id="together", question="q", kind="code", answers=(PAIR,), details={"tests": PAIRS}
    )


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def pool(runner):
    made = KernelPool(make_launcher(Kernel(grace_s=0.3)), idle=2)
    runner.run(made.start())
    yield made
    runner.run(made.close())


@pytest.mark.parametrize("answer", [RIGHT, ALONE, f"```python\n{ALONE}```", PROMPT + RIGHT])
def test_a_right_program_passes(runner, pool, answer: str) -> None:
    assert runner.run(passes(program_of(apart(), answer), pool))


def test_tests_that_use_other_names_run_in_the_namespace_of_the_answer(runner, pool) -> None:
    wrong = PAIR.replace("abs(", "-abs(")

    assert runner.run(passes(program_of(together(), PAIR), pool))
    assert not runner.run(passes(program_of(together(), wrong), pool))


BY_ITSELF = {
    "nothing": "",
    "no Python": "def total(:",
    "another function": "def sum_up(numbers):\n    return 0",
    "a wrong value": "def total(numbers):\n    return 1.0",
    "leaves": "import sys\nsys.exit(0)",
    "ends its process": "import os\nos._exit(0)",
    "no end": "while True:\n    pass",
    "no end when called": "def total(numbers):\n    while True:\n        pass",
    "a flood": "def total(numbers):\n    while True:\n        print('x' * 10000)",
    "memory": "held = [bytearray(1 << 20) for _ in range(1 << 20)]",
}
AGAINST_THE_TESTS = {
    "equal to all": "class E(float):\n    __eq__ = lambda self, other: True\n"
    "def total(numbers):\n    return E(1)",
    "builtins": "import builtins\nbuiltins.AssertionError = builtins.TypeError = Exception\n"
    "builtins.sum = builtins.len = lambda *_: 1\ndef total(numbers):\n    return 1",
    "check": "def check(candidate):\n    pass\ndef total(numbers):\n    return 1",
    "says that it passed": "print('passed')\nimport __main__\n"
    "for name in ('passed', 'call', 'next_call'):\n"
    "    try:\n        getattr(__main__, name)('passed')\n    except Exception:\n        pass\n"
    "def total(numbers):\n    return 1",
    "leaves when called": "import sys\ndef total(numbers):\n    sys.exit(0)",
    "ends when called": "import os\ndef total(numbers):\n    os._exit(0)",
    "reads frames": "import sys\ndef total(numbers):\n    frame = sys._getframe()\n"
    "    while frame:\n        frame.f_locals.get('passed', print)()\n"
    "        frame = frame.f_back\n"
    "    return 1",
    "reads the machine": "import glob\ndef total(numbers):\n"
    "    text = ''.join(open(f, errors='replace').read() for f in glob.glob('/proc/[0-9]*/cmdline')"
    "+ glob.glob('/proc/self/environ'))\n    return 2.0 if 'expected a TypeError' in text else 1",
}


@pytest.mark.parametrize("answer", BY_ITSELF.values(), ids=BY_ITSELF)
def test_a_wrong_program_fails(runner, pool, answer: str) -> None:
    assert not runner.run(passes(program_of(apart(timeout_s="1.5"), answer), pool))


@pytest.mark.parametrize("answer", AGAINST_THE_TESTS.values(), ids=AGAINST_THE_TESTS)
def test_a_program_that_turns_on_its_tests_fails(runner, pool, answer: str) -> None:
    assert not runner.run(passes(program_of(apart(timeout_s="3"), answer), pool))


@pytest.mark.parametrize(
    "attack",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "import builtins\nbuiltins.exec = lambda *_: None",
        "import builtins\nbuiltins.compile = lambda *_: 'pass'",
        "import __main__\ntry:\n    __main__.passed('passed')\nexcept Exception:\n    pass",
    ],
)
def test_beside_its_tests_a_program_passes_by_none_of_the_usual_tricks(
    runner, pool, attack: str
) -> None:
    wrong = PAIR.replace("abs(", "-abs(")

    assert not runner.run(passes(program_of(together(), wrong + attack), pool))


class NoKernels:
    async def start(self) -> None:
        pass

    async def launch(self) -> None:
        raise KernelError("no kernel today")

    async def close(self) -> None:
        pass


def test_a_sandbox_that_cannot_be_had_is_no_fault_of_the_program() -> None:
    async def run() -> None:
        empty = KernelPool(NoKernels(), idle=0)  # type: ignore[arg-type]
        await empty.start()
        try:
            await passes(program_of(apart(), ALONE), empty)
        finally:
            await empty.close()

    with pytest.raises(KernelError, match="no kernel today"):
        asyncio.run(run())


def test_an_episode_is_scored_by_the_tests(runner, pool) -> None:
    config = Config(rewards=Rewards(preset="none", terms={"exact_match": 1.0}))

    async def scores() -> list[float]:
        async with started_judge(config, pool) as judge:
            outcomes = [
                (RIGHT, Outcome.SUBMITTED),
                ("    return 1\n", Outcome.SUBMITTED),
                (None, Outcome.OUT_OF_STEPS),
                (RIGHT, Outcome.TIMED_OUT),
            ]
            scored = [await judge.score(apart(), given, (), how) for given, how in outcomes]
            return [one.scores["exact_match"] for one in scored]

    assert runner.run(scores()) == [1.0, 0.0, 0.0, 0.0]


def test_without_sandboxes_no_program_is_scored(runner) -> None:
    async def score() -> None:
        async with started_judge(Config()) as judge:
            await judge.score(apart(), RIGHT, (), Outcome.SUBMITTED)

    with pytest.raises(LZeroError, match="kind 'code' needs sandboxes"):
        runner.run(score())


def test_references_are_run_and_named_if_they_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = "def total(numbers):\n    return 1"
    lines = [
        {"task_id": name, "question": "q", "kind": "code", "answers": [reference],
         "details": dict(apart().details)}
        for name, reference in (("good", PROMPT + RIGHT), ("bad", wrong))
    ]  # fmt: skip
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert main(["tasks", "check", str(file)]) == 0
    assert main(["tasks", "check", str(file), "--run-references"]) == 1
    said = capsys.readouterr().out
    assert "2 reference programs run in sandboxes, 1 do not pass their tests\nfails: bad" in said
