"""Compares weights and optimizer state bit by bit: with a checkpoint, or of two in memory."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from learner.checkpoints.files import STATE, step_of
from learner.checkpoints.shard_files import TensorFolder
from learner.checkpoints.shard_header import Piece
from learner.checkpoints.state import live_state, own_pieces
from learner.engine.agreement import gather_texts
from learner.engine.mesh import Rank
from learner.replay.task import TensorsCompared
from learner.trained import Trained


def compare_with_checkpoint(trained: Trained, checkpoint: Path, rank: Rank) -> TensorsCompared:
    """What is in memory beside what a checkpoint keeps; every rank must call it.

    Raises:
        InputError: the checkpoint's files cannot be read.
    """
    files = TensorFolder(checkpoint / STATE)
    known = set(files.names())
    differing, names = [], []
    for piece, tensor in _pieces(trained, rank):
        names.append(piece.name)
        if (
            piece.name not in known
            or files.whole(piece.name).shape != piece.whole
            or files.read(piece.name, piece.offset, piece.shape).tobytes() != _bits(tensor)
        ):
            differing.append(piece.name)
    return _gathered(step_of(checkpoint), names, differing)


def compare_trained(one: Trained, other: Trained, rank: Rank, *, step: int) -> TensorsCompared:
    """Two that are in memory; a tensor that only one has differs. Every rank must call it."""
    mine = {piece.name: _bits(tensor) for piece, tensor in _pieces(one, rank)}
    theirs = {piece.name: tensor for piece, tensor in _pieces(other, rank)}
    names = sorted(mine.keys() | theirs.keys())
    differing = [
        name
        for name in names
        if name not in mine or name not in theirs or mine[name] != _bits(theirs[name])
    ]
    return _gathered(step, names, differing)


def _pieces(trained: Trained, rank: Rank) -> Iterator[tuple[Piece, Tensor]]:
    """This rank's part of everything that a checkpoint keeps of what is trained."""
    tensors = live_state(trained.model, trained.optimizer.parts).tensors
    for name, other in trained.beside.items():
        tensors |= live_state(other.model, other.trainer.parts, prefix=f"{name}.").tensors
    yield from own_pieces(tensors, is_first=rank.is_first)


def _bits(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    numbers: np.ndarray[tuple[int], np.dtype[np.uint8]] = flat.view(torch.uint8).numpy()
    return numbers.tobytes()


def _gathered(step: int, names: list[str], differing: list[str]) -> TensorsCompared:
    """The same on all ranks; weights come before what belongs to the optimizer."""
    every = [json.loads(text) for text in gather_texts(json.dumps([names, differing]))]
    known = {name for own, _ in every for name in own}
    found = {name for _, own in every for name in own}
    return TensorsCompared(
        step=step,
        tensors=len(known),
        differing=tuple(sorted(found, key=lambda name: ("optimizer." in name, name))),
    )
