"""Any region of a tensor can be put together from any pieces of it."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file

from common.errors import InputError
from learner.checkpoints.shard_files import TensorFolder
from learner.checkpoints.shard_header import Piece, describe_pieces, in_file_order, make_header

Array = NDArray[np.float32]


def write_pieces(path: Path, pieces: list[tuple[Piece, NDArray[np.generic]]]) -> None:
    order = in_file_order([piece for piece, _ in pieces])
    data = {piece.name: array for piece, array in pieces}
    header = make_header(order, describe_pieces(order))
    path.write_bytes(header + b"".join(data[piece.name].tobytes() for piece in order))


def piece_of(name: str, whole: Array, offset: tuple[int, ...], shape: tuple[int, ...]) -> Piece:
    return Piece(name=name, format="F32", shape=shape, offset=offset, whole=whole.shape)


def bounds(draw: st.DrawFn, length: int) -> list[int]:
    inner = draw(st.lists(st.integers(0, length), max_size=3))
    return [0, *sorted(inner), length]


@st.composite
def tensors_with_cuts(
    draw: st.DrawFn,
) -> tuple[Array, list[list[int]], tuple[int, ...], tuple[int, ...]]:
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=3)))
    whole = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    cuts = [bounds(draw, length) for length in shape]
    offset = tuple(draw(st.integers(0, length - 1)) for length in shape)
    size = tuple(
        draw(st.integers(1, length - begin)) for length, begin in zip(shape, offset, strict=True)
    )
    return whole, cuts, offset, size


def cut_up(whole: Array, cuts: list[list[int]]) -> list[tuple[tuple[int, ...], Array]]:
    """All blocks of a grid of cuts, with their offsets, by loop over the dimensions."""
    blocks = [(tuple[int, ...](), whole)]
    for dimension, places in enumerate(cuts):
        blocks = [
            ((*offset, first), np.take(block, range(first, last), axis=dimension))
            for offset, block in blocks
            for first, last in itertools.pairwise(places)
            if last > first
        ]
    return blocks


@given(tensors_with_cuts())
def test_a_region_of_any_pieces_is_that_region_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    case: tuple[Array, list[list[int]], tuple[int, ...], tuple[int, ...]],
) -> None:
    whole, cuts, offset, size = case
    folder = tmp_path_factory.mktemp("pieces")
    for number, (begin, block) in enumerate(cut_up(whole, cuts)):
        piece = piece_of("w", whole, begin, block.shape)
        write_pieces(folder / f"rank-{number:05d}.safetensors", [(piece, block)])

    region = TensorFolder(folder).read("w", offset, size).view(np.float32)

    wanted = whole[tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))]
    np.testing.assert_array_equal(region, wanted)


def test_the_files_are_plain_safetensors(tmp_path: Path) -> None:
    narrow = np.arange(5, dtype=np.uint8)
    wide = np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "rank-00000.safetensors"
    write_pieces(
        path,
        [
            (Piece(name="é", format="U8", shape=(5,), offset=(0,), whole=(5,)), narrow),
            (piece_of("wide", np.zeros((4, 3), np.float32), (2, 0), (2, 3)), wide),
        ],
    )

    read = load_file(path)

    assert torch.equal(read["é"], torch.from_numpy(narrow))
    assert torch.equal(read["wide"], torch.from_numpy(wide))


def test_a_missing_piece_is_named_with_what_is_there(tmp_path: Path) -> None:
    whole = np.ones((4, 3), np.float32)
    write_pieces(tmp_path / "a.safetensors", [(piece_of("w", whole, (0, 0), (3, 3)), whole[:3])])

    with pytest.raises(
        InputError, match=r"'w' in .* is incomplete: of 12 numbers from \[0, 0\] on, .* hold 9"
    ):
        TensorFolder(tmp_path).read("w", (0, 0), (4, 3))


def test_a_number_without_dimensions_is_read(tmp_path: Path) -> None:
    value = np.float32(7).reshape(())
    piece = Piece(name="step", format="F32", shape=(), offset=(), whole=())
    write_pieces(tmp_path / "a.safetensors", [(piece, value)])

    assert TensorFolder(tmp_path).read("step", (), ()).view(np.float32) == 7


def test_blocks_of_rows_follow_each_other(tmp_path: Path) -> None:
    whole = np.arange(70, dtype=np.float32).reshape(10, 7)
    write_pieces(tmp_path / "a.safetensors", [(piece_of("w", whole, (0, 0), (10, 7)), whole)])

    blocks = [b.view(np.float32) for b in TensorFolder(tmp_path).blocks("w", limit_bytes=90)]

    assert [len(block) for block in blocks] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"\xff" * 64, b"\x02" + b"\x00" * 7 + b"[]", b"\x02" + b"\x00" * 7 + b"{"],
)
def test_a_file_that_is_no_safetensors_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)

    with pytest.raises(InputError, match=r"bad\.safetensors' is not a readable safetensors file"):
        TensorFolder(tmp_path)


def test_a_file_cut_off_within_a_tensor_is_named(tmp_path: Path) -> None:
    whole = np.ones(40, np.float32)
    path = tmp_path / "a.safetensors"
    write_pieces(path, [(piece_of("w", whole, (0,), (40,)), whole)])
    path.write_bytes(path.read_bytes()[:-4])

    with pytest.raises(InputError, match=r"is cut off: tensor 'w' goes beyond its end"):
        TensorFolder(tmp_path).read("w", (0,), (40,))


def test_an_empty_folder_and_an_unknown_tensor_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \*\.safetensors files"):
        TensorFolder(tmp_path)

    whole = np.ones(2, np.float32)
    write_pieces(tmp_path / "a.safetensors", [(piece_of("w", whole, (0,), (2,)), whole)])
    with pytest.raises(InputError, match="holds no tensor 'v'"):
        TensorFolder(tmp_path).whole("v")


def test_shapes_and_places_are_in_the_metadata_of_a_file() -> None:
    piece = piece_of("w", np.zeros((6, 2), np.float32), (4, 0), (2, 2))

    assert json.loads(describe_pieces([piece])["pieces"]) == {"w": [[6, 2], [4, 0]]}
