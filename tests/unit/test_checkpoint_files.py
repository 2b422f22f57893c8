"""A checkpoint's folder is whole or its damage is named, file by file."""

import json
from pathlib import Path

import pytest

from common.errors import InputError
from learner.checkpoints.digests import Digest, digest_of, write_file
from learner.checkpoints.files import (
    DamagedCheckpointError,
    find_damage,
    finished_checkpoints,
    publish,
    read_description,
    remove_leftovers,
    set_aside,
)
from learner.checkpoints.retention import Keep
from tests.saved_checkpoint import latest_checkpoint

CONTENTS = {
    "checkpoint.json": b'{"format_version": 2}',
    "ledger.bin": bytes(range(256)) * 40,
    "state/rank-00000.safetensors": b"\x00" * 5000,
    "state/rank-00001.safetensors": b"weights" * 999,
    "hf/model.safetensors": b"\xff" * 70_000,
}


def make_checkpoint(folder: Path, step: int = 1, *, keep: int = 9) -> Path:
    final = folder / f"step-{step:06d}"
    partial = final.with_name(final.name + ".partial")
    digests: dict[str, Digest] = {}
    for name, content in CONTENTS.items():
        path = partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digests[name] = write_file(path, content)
    publish(partial, final, digests, keep=Keep(newest=keep))
    return final


def test_a_checkpoint_as_it_was_written_has_no_damage(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)

    assert find_damage(checkpoint) == []
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("name", sorted(CONTENTS))
@pytest.mark.parametrize("place", [0, -1, 0.5], ids=["first", "last", "middle"])
def test_one_flipped_bit_is_found_and_its_file_named(
    tmp_path: Path, name: str, place: float
) -> None:
    checkpoint = make_checkpoint(tmp_path)
    data = bytearray((checkpoint / name).read_bytes())
    data[len(data) // 2 if place == 0.5 else int(place)] ^= 1
    (checkpoint / name).write_bytes(data)

    (fault,) = find_damage(checkpoint)

    assert fault.startswith(f"{name} has checksum ")


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_a_file_cut_off_by_one_byte_is_found_without_reading_it(tmp_path: Path, name: str) -> None:
    checkpoint = make_checkpoint(tmp_path)
    (checkpoint / name).write_bytes(CONTENTS[name][:-1])

    size = len(CONTENTS[name])
    assert find_damage(checkpoint) == [f"{name} has {size - 1} bytes, {size} were written"]


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    for name in ("ledger.bin", "hf/model.safetensors"):
        (checkpoint / name).unlink()

    assert find_damage(checkpoint) == ["hf/model.safetensors is missing", "ledger.bin is missing"]


OUTSIDE = [
    json.dumps({"files": {name: {"bytes": 1, "blake2b": ""}}}) for name in ("../x", "/dev/zero")
]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"files": {"a": {}}}', '{"files": 3}', "[" * 100_000, *OUTSIDE]
)
def test_a_manifest_that_says_nothing_is_damage(tmp_path: Path, text: str) -> None:
    checkpoint = make_checkpoint(tmp_path)
    (checkpoint / "manifest.json").write_text(text)

    with pytest.raises(
        DamagedCheckpointError, match=r"step-000001' is damaged: its manifest\.json"
    ):
        find_damage(checkpoint)


def test_the_checkpoint_just_written_stays_whatever_is_to_be_kept(tmp_path: Path) -> None:
    first = make_checkpoint(tmp_path, 1, keep=0)
    assert finished_checkpoints(tmp_path) == [first]

    second = make_checkpoint(tmp_path, 2, keep=0)

    assert finished_checkpoints(tmp_path) == [second]


def test_a_folder_without_its_manifest_is_damaged(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    (checkpoint / "manifest.json").unlink()

    with pytest.raises(DamagedCheckpointError, match=r"manifest\.json cannot be read"):
        find_damage(checkpoint)


@pytest.mark.parametrize("shares", [1, 2, 3, 7])
def test_exactly_one_of_several_processes_finds_a_flipped_bit(tmp_path: Path, shares: int) -> None:
    checkpoint = make_checkpoint(tmp_path)
    (checkpoint / "ledger.bin").write_bytes(b"x" * len(CONTENTS["ledger.bin"]))

    found = [find_damage(checkpoint, share=i, shares=shares) for i in range(shares)]

    assert [len(faults) for faults in sorted(found, key=len)] == [0] * (shares - 1) + [1]


def test_the_digest_of_a_large_file_does_not_depend_on_how_it_is_read(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000
    written = write_file(tmp_path / "large", content)

    assert digest_of(tmp_path / "large") == written
    assert written.num_bytes == len(content) > 2 * (4 << 20)


def test_the_newest_stay_and_what_is_not_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for step in (3, 1_000_000, 20):
        make_checkpoint(tmp_path, step, keep=2)

    assert [path.name for path in finished_checkpoints(tmp_path)] == ["step-1000000", "step-000020"]
    assert latest_checkpoint(tmp_path) == tmp_path / "step-1000000"
    assert (tmp_path / "notes").is_dir()


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    old = make_checkpoint(tmp_path)
    (old / "ledger.bin").write_bytes(b"old")

    new = make_checkpoint(tmp_path)

    assert find_damage(new) == []
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_a_damaged_checkpoint_that_is_set_aside_is_not_found_again(tmp_path: Path) -> None:
    first, second = make_checkpoint(tmp_path, 1), make_checkpoint(tmp_path, 2)

    aside = set_aside(second)

    assert aside.name == "step-000002.damaged"
    assert finished_checkpoints(tmp_path) == [first]
    assert (aside / "ledger.bin").is_file()


def test_leftovers_of_saves_that_were_cut_off_are_removed(tmp_path: Path) -> None:
    kept = make_checkpoint(tmp_path, 4)
    (tmp_path / "step-000005.partial" / "state").mkdir(parents=True)
    (tmp_path / "step-000004.replaced").mkdir()

    remove_leftovers(tmp_path)

    assert list(tmp_path.iterdir()) == [kept]


def test_a_description_that_is_not_json_or_gone_is_damage(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    (checkpoint / "checkpoint.json").write_text("{")
    with pytest.raises(DamagedCheckpointError, match=r"checkpoint\.json' is not JSON"):
        read_description(checkpoint)

    (checkpoint / "checkpoint.json").unlink()
    with pytest.raises(DamagedCheckpointError, match=r"its checkpoint\.json is missing"):
        read_description(checkpoint)


@pytest.mark.parametrize("version", [1, 99, None, "2"])
def test_another_format_version_is_refused_with_both_named(tmp_path: Path, version: object) -> None:
    (tmp_path / "checkpoint.json").write_text(json.dumps({"format_version": version}))

    with pytest.raises(
        InputError, match=rf"format version {version}, but this program reads version 2"
    ) as caught:
        read_description(tmp_path)
    assert not isinstance(caught.value, DamagedCheckpointError)


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no checkpoint: it has no checkpoint\.json"):
        read_description(tmp_path)
