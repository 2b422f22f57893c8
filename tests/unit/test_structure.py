"""The tree says where things are: rooms, not prefixes; small files; one word for one class."""

import ast
import re
import subprocess
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PRODUCT = ("actors", "common", "launch", "learner")
LONGEST_FILE = 400
LOOSE_FILES_OF_LAUNCH = 14

STANDS_ALONE = {("ToolError", "actors/kernels/sandboxed/channel.py")}
"""Classes that code inside of a sandbox, which can import nothing of ours, has again."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAY_NAME_LOOPBACK = {
    "actors/kernels/inner_files.py",
    "actors/kernels/probes/bait.py",
    "actors/kernels/probes/network.py",
    "actors/kernels/probes/siblings.py",
    "actors/kernels/probes/unmapped.py",
    "common/places.py",
}
MAY_IMPORT_ZMQ = {"common/wire/sockets.py", "benchmarks/transport/raw.py"}
"""The second is what the first is compared with."""


@cache
def python_files(*folders: str) -> tuple[PurePosixPath, ...]:
    """Those that git knows, from the root."""
    patterns = [f"{folder}/**.py" for folder in folders]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(PurePosixPath(line) for line in found.split() if (ROOT / line).is_file())


@cache
def tree_of(file: PurePosixPath) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def test_three_files_with_one_prefix_are_a_folder() -> None:
    prefixes: Counter[tuple[str, str]] = Counter()
    for file in python_files(*PRODUCT, "benchmarks"):
        prefix, joined, _ = file.stem.partition("_")
        if prefix and joined and prefix != "bench":
            prefixes[str(file.parent), prefix] += 1

    assert not {f"{folder}/{name}_*" for (folder, name), n in prefixes.items() if n > 2}


def test_launch_is_no_attic() -> None:
    loose = [file for file in python_files("launch") if len(file.parts) == 2]

    assert 0 < len(loose) <= LOOSE_FILES_OF_LAUNCH


def test_no_file_is_long() -> None:
    files = python_files(*PRODUCT, "benchmarks")
    lengths = {file: len((ROOT / file).read_text().splitlines()) for file in files}

    assert files
    assert not {file: length for file, length in lengths.items() if length > LONGEST_FILE}


def test_no_file_is_for_what_has_no_other_place() -> None:
    vague = {"utils", "util", "helpers", "misc"}

    assert not [file for file in python_files(*PRODUCT, "benchmarks") if file.stem in vague]


def test_one_word_names_one_class() -> None:
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for file in python_files(*PRODUCT):
        for node in tree_of(file).body:
            if isinstance(node, ast.ClassDef) and (node.name, str(file)) not in STANDS_ALONE:
                homes[node.name].add(str(file))

    assert not {name: files for name, files in homes.items() if len(files) > 1}


def test_names_are_imported_from_the_module_they_live_in() -> None:
    known = {".".join(file.with_suffix("").parts): file for file in python_files(*PRODUCT)}
    strangers = []
    for file in python_files(*PRODUCT, "tests", "benchmarks"):
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.ImportFrom) and (home := known.get(node.module or "")):
                mine = _bound_in(tree_of(home))
                strangers += [
                    f"{file}: {node.module}.{alias.name}"
                    for alias in node.names
                    if alias.name not in mine and f"{node.module}.{alias.name}" not in known
                ]

    assert not strangers


@cache
def _bound_in(module: ast.Module) -> set[str]:
    """What the module itself makes, at its top, also where that stands in an ``if`` or ``try``."""
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def test_nothing_is_there_for_tests_alone() -> None:
    files = python_files(*PRODUCT, "benchmarks")
    texts = [(ROOT / file).read_text(encoding="utf-8") for file in files]
    naming = ("pyproject.toml", "actors/kernels/jupyter/kernelspec/kernel.json")
    texts += [(ROOT / file).read_text(encoding="utf-8") for file in naming]
    used = Counter(word for text in texts for word in re.findall(r"\w+", text))
    alone = [
        f"{file}: {node.name}"
        for file in files
        for node in tree_of(file).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (isinstance(node, ast.ClassDef) or not node.decorator_list)
        and used[node.name] == 1
    ]

    assert not alone


def test_only_these_files_name_addresses_of_this_machine() -> None:
    naming = {
        str(file)
        for file in python_files(*PRODUCT)
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and any(literal in node.value for literal in LOOPBACK)
    }

    assert naming == MAY_NAME_LOOPBACK


def test_only_one_file_of_ours_speaks_zeromq() -> None:
    importing = {
        str(file)
        for file in python_files(*PRODUCT, "benchmarks")
        for node in ast.walk(tree_of(file))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "zmq")
        or (isinstance(node, ast.Import) and any(a.name.split(".")[0] == "zmq" for a in node.names))
    }

    assert importing == MAY_IMPORT_ZMQ


def test_the_files_that_the_development_page_names_are_there() -> None:
    page = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    folders = "|".join((*PRODUCT, "tests", "benchmarks"))
    named = set(re.findall(rf"`((?:{folders})/[\w./]*)`", page))

    assert len(named) > 50
    assert not [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_python_file_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`([\w./]+/[\w./]+\.py)`", page.read_text(encoding="utf-8"))
    mine = [path for path in named if not path.startswith("my_agents/")]

    assert not [path for path in mine if not (ROOT / path).exists()]


def test_no_change_on_the_development_page_needs_more_than_four_files() -> None:
    page = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w.*?) \| (.*) \|$", page.split("\n## ")[2], re.MULTILINE)

    assert len(rows) >= 25
    for change, places in rows:
        assert len(set(re.findall(r"`[\w/]+\.py`", places))) <= 4, change
