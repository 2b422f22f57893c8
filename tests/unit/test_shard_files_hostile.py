"""Whatever the bytes of a safetensors file, reading it gives tensors or one kind of error."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from learner.checkpoints.shard_files import TensorFile, TensorFolder
from learner.checkpoints.shard_header import PIECES, parse_header

ROW = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def write(path: Path, header: Any, data: bytes = bytes(16)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def pieces(whole: Any, offset: Any) -> dict[str, Any]:
    return {"w": ROW, "__metadata__": {PIECES: json.dumps({"w": [whole, offset]})}}


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"w": ROW | {"data_offsets": [-16, 0]}}, "tensor 'w': data_offsets is [-16, 0]"),
        ({"w": ROW | {"data_offsets": [8, 24]}}, "it is cut off: tensor 'w' goes beyond its end"),
        ({"w": ROW | {"data_offsets": [16, 0]}}, "takes -16 bytes, F32[2, 2] is 16"),
        ({"w": ROW | {"data_offsets": [0, 12]}}, "takes 12 bytes, F32[2, 2] is 16"),
        ({"w": ROW | {"data_offsets": [0, 2**70]}}, "it is cut off: tensor 'w'"),
        ({"w": ROW | {"data_offsets": "all"}}, "data_offsets is 'all'"),
        ({"w": ROW | {"shape": [-2, -2]}}, "tensor 'w': shape is [-2, -2]"),
        ({"w": ROW | {"shape": [True, 4]}}, "shape is [True, 4]"),
        ({"w": ROW | {"shape": [2.0, 2]}}, "shape is [2.0, 2]"),
        ({"w": ROW | {"shape": [0, 2**61, 2**61], "data_offsets": [0, 0]}}, "more than any file"),
        ({"w": ROW | {"dtype": "F7"}}, "tensor 'w' is of the type 'F7'; expected one of F64"),
        ({"w": ROW | {"dtype": ["F32"]}}, "is of the type ['F32']"),
        ({"w": ROW, "v": ROW}, "tensors 'w' and 'v' lie over the same bytes"),
        (
            {"w": ROW, "v": ROW | {"shape": [1], "data_offsets": [12, 16]}},
            "tensors 'w' and 'v' lie over the same bytes",
        ),
        ({"w": []}, "tensor 'w' is no object but []"),
        ({"__metadata__": {"a": 1}}, "its metadata are not all texts"),
        ({"__metadata__": {PIECES: "[" * 100_000}}, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        ([], "the header is no object"),
        (b"\xff\xff", "is not a readable safetensors file"),
        (pieces([2**60, 2], [0, 0]), "is incomplete: of 2305843009213693952 numbers"),
        (pieces([2, 2], [1, 0]), "its piece goes beyond the whole of shape [2, 2]"),
        (pieces([2], [0]), "tensor 'w': its piece is [2]"),
        (pieces([4, 2], [0, 0]), "is incomplete: of 8 numbers"),
    ],
)
def test_a_header_that_lies_is_named(tmp_path: Path, header: Any, said: str) -> None:
    write(tmp_path / "a.safetensors", header)

    with pytest.raises(InputError) as error:
        TensorFolder(tmp_path)

    assert said in str(error.value)


def test_tensors_lie_anywhere_in_a_file_of_many_gigabytes() -> None:
    begin, size = 40 << 30, 4 << 30
    row = {"dtype": "F32", "shape": [size // 4], "data_offsets": [begin, begin + size]}

    header = parse_header(json.dumps({"w": row}).encode(), begin + size)

    assert header.begins == {"w": begin}


@pytest.mark.parametrize(
    "data", [b"", b"1234", struct.pack("<Q", 2**63), struct.pack("<Q", 9) + b"{}"]
)
def test_a_file_without_a_header_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)

    with pytest.raises(InputError, match=r"a\.safetensors' is not a readable safetensors file"):
        TensorFile(tmp_path / "a.safetensors")


def test_pieces_of_different_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", pieces([4, 2], [0, 0]))
    write(tmp_path / "b.safetensors", pieces([3, 2], [1, 0]))

    with pytest.raises(InputError, match="holds pieces of different tensors 'w'"):
        TensorFolder(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip
SIZES = st.lists(st.integers(-1, 5) | st.integers(), max_size=3)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "I64", "F7"]) | JSON,
        "shape": SIZES | JSON,
        "data_offsets": SIZES | JSON,
    },
)
PLACES = st.dictionaries(st.sampled_from(["w", "v"]), st.lists(SIZES, max_size=3) | JSON)
METADATA = st.fixed_dictionaries({}, optional={PIECES: PLACES.map(json.dumps) | JSON})
HEADERS = (
    st.fixed_dictionaries(
        {}, optional={"w": ROWS | JSON, "v": ROWS, "__metadata__": METADATA | JSON}
    )
    | JSON
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(HEADERS, st.integers(0, 64))
def test_reading_gives_tensors_or_an_input_error(tmp_path: Path, header: Any, size: int) -> None:
    write(tmp_path / "a.safetensors", header, bytes(size))
    try:
        files = TensorFolder(tmp_path)
        for name in files.names():
            for block in files.blocks(name, 8):
                assert block.nbytes <= size
    except InputError:
        pass
