"""A run goes on only with the files that it was begun with, whatever their paths."""

from pathlib import Path

import pytest

from common.config import Config
from common.config_file import config_from_tables
from common.errors import InputError
from launch.run.inputs import check_inputs, input_digests, write_inputs


def made(folder: Path, *, world: bool = False) -> Config:
    (folder / "model").mkdir()
    for name in ("model/config.json", "model/tokenizer.json", "model/model.safetensors"):
        (folder / name).write_text("{}")
    for name in ("train", "corpus", "heldout", "prompt"):
        (folder / name).write_text(name)
    return config_from_tables(
        {
            "model": {"path": str(folder / "model")},
            "tasks": {
                "train": str(folder / "train"),
                "train_corpus": str(folder / "corpus"),
            },
            "evaluation": {"suites": [{"name": "own", "tasks": str(folder / "heldout")}]},
            "agent": {"system_prompt": str(folder / "prompt")},
            "world": {"enabled": world},
        },
        where="test",
    )


def append(file: Path) -> None:
    with file.open("a") as stream:
        stream.write(" ")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("train", "tasks.train"),
        ("corpus", "tasks.train_corpus"),
        ("heldout", "evaluation.suites.own.tasks"),
        ("prompt", "agent.system_prompt"),
        ("model/config.json", "model.path"),
        ("model/tokenizer.json", "model.path"),
        ("model/model.safetensors", "model.path"),
    ],
)
def test_other_contents_under_the_same_path_are_refused(
    tmp_path: Path, name: str, key: str
) -> None:
    config = made(tmp_path)
    write_inputs(tmp_path / "inputs.json", config)
    assert check_inputs(tmp_path / "inputs.json", config)

    append(tmp_path / name)

    with pytest.raises(InputError, match=rf"contents of: {key} \(.*\)\. Put the earlier .*--name"):
        check_inputs(tmp_path / "inputs.json", config)


def test_files_that_the_run_made_itself_do_not_count(tmp_path: Path) -> None:
    config = made(tmp_path, world=True)
    write_inputs(tmp_path / "inputs.json", config)

    append(tmp_path / "train")

    assert check_inputs(tmp_path / "inputs.json", config)


def test_a_run_without_a_record_goes_on(tmp_path: Path) -> None:
    assert not check_inputs(tmp_path / "inputs.json", made(tmp_path))


@pytest.mark.parametrize("text", ["", "[1]", '{"tasks.train": 1}', '{"a": "1", "a": "2"}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "inputs.json").write_text(text)

    with pytest.raises(InputError, match=r"inputs\.json"):
        check_inputs(tmp_path / "inputs.json", made(tmp_path))


def test_an_input_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = made(tmp_path)
    (tmp_path / "train").unlink()

    with pytest.raises(InputError, match=r"tasks.train: .*train cannot be read: No such file"):
        input_digests(config)
