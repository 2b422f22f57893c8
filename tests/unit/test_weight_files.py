"""A file of weights holds what was received, byte for byte, and nobody can change it."""

import os
from pathlib import Path

import pytest

from actors.inference.mapped import ALIGNMENT, WeightFile, map_weights
from common.wire.records import TensorSpec, WeightManifest

SPECS = (
    TensorSpec(name="a", dtype="float32", shape=(3,)),
    TensorSpec(name="none", dtype="int8", shape=(0,)),
    TensorSpec(name="b", dtype="bfloat16", shape=(2, 5)),
)
TENSORS = (bytes(range(12)), b"", bytes(range(100, 120)))


def a_file(version: int = 1, base: str = "") -> WeightFile:
    return WeightFile(
        WeightManifest(version=version, tensors=SPECS, checksum="sum", base=base), TENSORS
    )


def test_what_is_mapped_is_what_was_received() -> None:
    whole, own = a_file(), a_file(2, base="sum")

    staged = map_weights(Path(own.path), base=Path(whole.path))

    assert staged.manifest == own.manifest
    assert [bytes(frame) for frame in staged.frames] == list(TENSORS)
    assert staged.base is not None
    assert staged.base.manifest == whole.manifest


def test_tensors_begin_where_processors_like_it() -> None:
    file = a_file()

    found = Path(file.path).read_bytes()

    assert found.index(TENSORS[0]) % ALIGNMENT == 0
    assert found.index(TENSORS[2]) % ALIGNMENT == 0


def test_nobody_can_change_it() -> None:
    file = a_file()
    descriptor = os.open(file.path, os.O_RDWR)
    try:
        for change in (lambda: os.write(descriptor, b"x"), lambda: os.truncate(descriptor, 0)):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(descriptor)


def test_its_memory_is_given_back_when_nobody_has_it() -> None:
    file = a_file()
    path = Path(file.path)
    staged = map_weights(path)

    del file

    assert not path.exists()
    assert bytes(staged.frames[0]) == TENSORS[0], "who has mapped it keeps it"
