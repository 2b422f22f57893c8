"""A judge process: ``python -m actors.rewards.judge.worker CHANNEL NOTES``.

Runs reward terms, task types and the normalisation of answers for an actor, one call after the
other, so that whatever they do it is not done to the actor.

waits for  a frame of its actor
unblocked by  the actor, or its end
"""

import socket
import sys
from functools import partial

from actors.rewards.blame import told
from actors.rewards.judge.notes import keep_notes, note_call, noted_call
from actors.rewards.judge.wire import (
    LENGTH,
    Answer,
    Failure,
    QuestionRequest,
    pack_answer,
    unpack_request,
    unpack_setup,
)
from actors.rewards.scorer import Scorer
from actors.rewards.task_types import asked_question, kind_name, task_type
from common.errors import LZeroError


def main() -> int:
    """Answer until the actor closes the channel; 1 where the user's code cannot be loaded."""
    channel_number, notes = map(int, sys.argv[1:])
    keep_notes(notes)
    with socket.socket(fileno=channel_number) as channel:
        scorer = _load(_receive(channel), notes)
        channel.sendall(pack_answer(scorer if isinstance(scorer, Failure) else ""))
        if isinstance(scorer, Failure):
            return 1
        while frame := _receive(channel):
            channel.sendall(pack_answer(_answer(scorer, frame, notes)))
    return 0


def _load(frame: bytes, notes: int) -> Scorer | Failure:
    setup = unpack_setup(frame)
    sys.path[:] = setup.path
    try:
        for kind in setup.kinds:
            note_call(notes, kind_name(kind))
            task_type(kind)
        note_call(notes, "rewards.terms")
        return Scorer(setup.rewards, on_call=partial(note_call, notes))
    except BaseException as error:  # a user's module may do anything while it is imported
        return _failure(error, notes, "")


def _answer(scorer: Scorer, frame: bytes, notes: int) -> Answer:
    request = unpack_request(frame)
    note_call(notes, kind_name(request.task.kind))
    try:
        if isinstance(request, QuestionRequest):
            return asked_question(request.task)
        return scorer.score(
            request.task, request.answer, request.steps, request.outcome, request.measured
        )
    except BaseException as error:  # a user's code may raise anything, SystemExit too
        return _failure(error, notes, f" of task {request.task.task_id!r}")


def _failure(error: BaseException, notes: int, about: str) -> Failure:
    plugin = noted_call(notes)
    if isinstance(error, LZeroError):
        return Failure(plugin=plugin, text=str(error))
    return Failure(plugin=plugin, text=f"{plugin}{about}: {told(error)}")


def _receive(channel: socket.socket) -> bytes:
    """The next frame; empty when the actor has closed the channel."""
    head = _exactly(channel, LENGTH.size)
    return _exactly(channel, LENGTH.unpack(head)[0]) if head else b""


def _exactly(channel: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = channel.recv(min(size - len(data), 1 << 20))
        if not piece:
            return b""
        data += piece
    return bytes(data)


if __name__ == "__main__":
    sys.exit(main())
