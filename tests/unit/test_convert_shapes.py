"""Every published shape is known by its fields and read as its authors meant it."""

import json
import math
from typing import Any

import pytest

from launch.data.sources.entries import Entry, Unusable, known_source, source_name
from launch.data.sources.shapes import SHAPES, shape_of

FACTS = {"title": ["It", "Her", "It"], "sent_id": [0, 1, 2]}
CONTEXT = {"title": ["It", "Her"], "sentences": [["One.", " Two."], ["Three."]]}
HOTPOTQA = {"id": "h", "question": "Who?", "answer": "Bo", "supporting_facts": FACTS}
TRIVIA = {"value": "Twain", "aliases": ["Mark Twain", "Twain"], "normalized_value": "twain"}
REWARD = {"style": "rule", "ground_truth": "Bo, Bob"}
TARGETS = {"style": "rule", "ground_truth": {"target": ["Bo", "Bob"]}}
PROMPT = [{"role": "system", "content": "Be."}, {"role": "user", "content": "Think. Who?"}]
CODE = "def add(a, b):\n    return a + b"

ROWS: dict[str, tuple[dict[str, Any], str, str, str, tuple[Any, ...]]] = {
    "hub's HotpotQA": ({**HOTPOTQA, "context": CONTEXT}, "hotpotqa", "hotpotqa", "qa", ("Bo",)),
    "2Wiki": ({**HOTPOTQA, "evidences": [], "type": "inference"}, "2wiki", "2wiki", "qa", ("Bo",)),
    "MuSiQue": (
        {"id": "2hop__1", "question": "Who?", "answer": "Bo", "answer_aliases": ["B"],
         "paragraphs": []},
        "musique", "musique", "qa", ("Bo", "B"),
    ),
    "NQ-open": ({"question": "who", "answer": ["Bo", "B"]}, "nq", "nq", "qa", ("Bo", "B")),
    "TriviaQA": (
        {"question_id": "tc_1", "question": "Who?", "answer": TRIVIA},
        "triviaqa", "triviaqa", "qa", ("Twain", "Mark Twain", "Twain"),
    ),
    "original TriviaQA": (
        {"QuestionId": "tc_1", "Question": "Who?",
         "Answer": {"Value": "Twain", "Aliases": ["Mark Twain"]}},
        "triviaqa", "triviaqa", "qa", ("Twain", "Mark Twain"),
    ),
    "PopQA": (
        {"id": 42, "prop": "occupation", "obj": "actor", "question": "Who?",
         "possible_answers": '["actor", "player"]'},
        "popqa", "popqa", "qa", ("actor", "actor", "player"),
    ),
    "SimpleQA": (
        {"metadata": "{'topic': 'Art'}", "problem": "Who?", "answer": "Bo"},
        "simpleqa", "simpleqa", "qa", ("Bo",),
    ),
    "Bamboogle": (
        {"Question": "Who?", "Answer": "Bo"}, "bamboogle", "bamboogle", "qa", ("Bo",)
    ),
    "FlashRAG": (
        {"id": "test_0", "question": "Who?", "golden_answers": ["Bo"], "metadata": {}},
        "flashrag", "", "qa", ("Bo",),
    ),
    "Search-R1": (
        {"id": "test_0", "question": "Who?", "golden_answers": ["Bo", "Bob"], "data_source": "nq",
         "prompt": PROMPT, "reward_model": TARGETS, "extra_info": {"index": 0, "split": "test"}},
        "rewarded", "nq", "qa", ("Bo", "Bob"),
    ),
    "Search-R1 without golden_answers": (
        {"question": "Who?", "data_source": "popqa", "reward_model": TARGETS, "prompt": PROMPT},
        "rewarded", "popqa", "qa", ("Bo", "Bob"),
    ),
    "verl with the golds in extra_info": (
        {"data_source": "natural_questions", "reward_model": REWARD, "prompt": PROMPT,
         "extra_info": {"question": "Who?", "answer": ["Bo", "Bob"]}, "metadata": None},
        "rewarded", "nq", "qa", ("Bo", "Bob"),
    ),
    "verl's GSM8K": (
        {"data_source": "openai/gsm8k", "ability": "math", "prompt": PROMPT,
         "reward_model": {"style": "rule", "ground_truth": "72"},
         "extra_info": {"question": "Who?", "answer": "36*2\n#### 72", "index": 3,
                        "split": "train"}},
        "rewarded", "gsm8k", "number", ("72",),
    ),
    "L0": (
        {"question": "Who?", "answer": "Bo", "id": 5, "ability": "qa", "source": "pop_qa",
         "reward_model": {"ground_truth": "Bo", "style": "rule"},
         "extra_info": {"answer": "Bo", "question": "Who?", "assessment": {}}},
        "rewarded", "popqa", "qa", ("Bo",),
    ),
    "L0's DeepMath": (
        {"question": "Who?", "answer": "x^2", "ability": "qa", "source": "deepmath",
         "reward_model": {"ground_truth": "x^2", "style": "rule"}},
        "rewarded", "deepmath", "math", ("x^2",),
    ),
    "DeepMath": (
        {"question": "Who?", "final_answer": "x^2", "topic": "Algebra", "r1_solution_1": "So."},
        "deepmath", "deepmath", "math", ("x^2",),
    ),
    "GSM8K": (
        {"question": "Who?", "answer": "So 9 * 2 = <<9*2=18>>18.\n#### 1,018"},
        "gsm8k", "gsm8k", "number", ("1,018",),
    ),
    "MATH-500": (
        {"problem": "Who?", "solution": "So.", "answer": "\\frac{1}{2}", "subject": "Algebra",
         "level": 2, "unique_id": "test/algebra/1.json"},
        "math", "math500", "math", ("\\frac{1}{2}",),
    ),
    "MATH": (
        {"problem": "Who?", "level": "Level 1", "type": "Algebra",
         "solution": "\\boxed{1} is not \\boxed{\\frac{1}{2}}."},
        "math", "", "math", ("\\frac{1}{2}",),
    ),
    "AIME": (
        {"id": 60, "problem": "Who?", "solution": "So.", "answer": "204", "year": "2024"},
        "aime", "aime", "number", ("204",),
    ),
    "AIME in capitals": (
        {"ID": "2024-I-1", "Problem": "Who?", "Solution": "So.", "Answer": 33},
        "aime", "aime", "number", ("33",),
    ),
    "AIME since 1983": (
        {"ID": "1983-1", "Year": 1983, "Problem Number": 1, "Question": "Who?", "Answer": "060"},
        "aime", "aime", "number", ("060",),
    ),
    "HumanEval": (
        {"task_id": "HumanEval/0", "prompt": "def add(a, b):\n", "entry_point": "add",
         "canonical_solution": "    return a + b\n",
         "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n"},
        "humaneval", "humaneval", "code", ("def add(a, b):\n    return a + b\n",),
    ),
    "sanitized MBPP": (
        {"task_id": 2, "prompt": "Add.", "code": CODE, "test_imports": ["import math"],
         "test_list": ["assert add(1, 2) == 3"], "source_file": "a"},
        "mbpp", "mbpp", "code", (CODE,),
    ),
    "MBPP": (
        {"task_id": 2, "text": "Add.", "code": CODE, "test_setup_code": "import math",
         "test_list": ["assert set([add(1, 2)]) == {3}"], "challenge_test_list": []},
        "mbpp", "mbpp", "code", (CODE,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_record_is_known_by_its_fields(name: str) -> None:
    row, shape, source, kind, golds = ROWS[name]

    found = shape_of([row])

    assert found is not None
    entry = found.read(row)
    assert isinstance(entry, Entry)
    assert (found.name, entry.source, entry.kind, entry.golds) == (shape, source, kind, golds)
    if kind != "code":
        assert entry.question in ("Who?", "who")


def test_every_shape_has_a_record_here() -> None:
    assert {shape for _, shape, *_ in ROWS.values()} == set(SHAPES)


def test_supporting_titles_and_passages_of_dicts_of_lists_are_read() -> None:
    entry = SHAPES["hotpotqa"].read({**HOTPOTQA, "context": CONTEXT})

    assert isinstance(entry, Entry)
    assert json.loads(entry.labels["supporting_titles"]) == ["It", "Her"]
    assert entry.passages == (("It", "One. Two."), ("Her", "Three."))


def test_flashrag_rows_bring_titles_and_passages_in_their_metadata() -> None:
    row = {"question": "Who?", "golden_answers": ["Bo"]}
    said = {"supporting_facts": FACTS, "context": CONTEXT}

    entries = [
        SHAPES["flashrag"].read({**row, "metadata": metadata})
        for metadata in (said, json.dumps(said))
    ]

    assert entries[0] == entries[1]
    assert isinstance(entries[0], Entry)
    assert [title for title, _ in entries[0].passages] == ["It", "Her"]


def test_programs_come_with_the_tests_that_score_them() -> None:
    human, mbpp = (SHAPES[name].read(ROWS[row][0]) for name, row in (
        ("humaneval", "HumanEval"), ("mbpp", "MBPP"),
    ))  # fmt: skip

    assert isinstance(human, Entry)
    assert isinstance(mbpp, Entry)
    for entry in (human, mbpp):
        assert entry.details["entry_point"] == "add"
        namespace: dict[str, Any] = {}
        exec(f"{entry.golds[0]}\n{entry.details['tests']}", namespace)
        with pytest.raises(AssertionError):
            exec(f"def add(a, b): return 0\n{entry.details['tests']}", {})
    assert human.details["prefix"] == "def add(a, b):\n"
    assert mbpp.details["tests"].startswith("import math\n")


@pytest.mark.parametrize(
    ("shape", "row", "reason"),
    [
        ("triviaqa", {"question": "a", "answer": {"value": "<unk>", "aliases": []}}, "withheld"),
        ("musique", {"question": "a", "answer": "", "paragraphs": [], "answerable": False}, "unan"),
        ("rewarded", {"question": "a", "ability": "code", "reward_model": REWARD}, "tests"),
        ("math", {"problem": "a", "solution": "nothing boxed"}, "none boxed"),
    ],
)
def test_a_question_that_cannot_be_scored_is_left_out_with_the_reason(
    shape: str, row: dict[str, Any], reason: str
) -> None:
    entry = SHAPES[shape].read(row)

    assert isinstance(entry, Unusable)
    assert reason in entry.reason


def test_null_and_nan_among_gold_answers_are_no_texts() -> None:
    row = {"question": "a", "golden_answers": ["Bo", None, math.nan, 1972, 70.0]}

    entry = SHAPES["flashrag"].read(row)

    assert isinstance(entry, Entry)
    assert entry.golds == ("Bo", None, None, "1972", "70")


def test_a_question_that_only_a_prompt_holds_is_marked() -> None:
    entry = SHAPES["rewarded"].read({"prompt": PROMPT, "reward_model": REWARD})

    assert isinstance(entry, Entry)
    assert (entry.question, entry.labels) == ("Think. Who?", {"question_from": "prompt"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"reward_model": REWARD}, r"no question in 'question', 'extra_info.question' or 'prompt'"),
        ({"question": "a", "reward_model": {"ground_truth": {"x": 1}}}, r"with 'target', got one"),
        ({"question": "a", "reward_model": 5}, r"field 'reward_model' must be an object, got 5"),
    ],
)
def test_a_row_without_question_or_ground_truth_is_refused(
    row: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SHAPES["rewarded"].read(row)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("2WikiMultihopQA", "2wiki"),
        ("natural_questions", "nq"),
        ("hotpot_qa/distractor", "hotpotqa"),
        ("trivia_qa/rc.wikipedia.nocontext", "triviaqa"),
        ("simple_qa", "simpleqa"),
        ("openai/gsm8k", "gsm8k"),
        ("nq_search_test.parquet", "nq"),
        ("HuggingFaceH4/aime_2024", "aime"),
        ("my own set", "my_own_set"),
    ],
)
def test_a_sets_many_names_become_ours(name: str, ours: str) -> None:
    assert source_name(name) == ours
    assert known_source(name) in (ours, None)
