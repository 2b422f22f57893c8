"""What a judge process leaves behind about the call it is in, for whoever finds it hung or dead.

A piece of shared memory: first the name of the term or task type that runs, then, if it comes to
that, the stack that ``faulthandler`` writes, which needs neither the interpreter's lock nor a
process in good health.
"""

import faulthandler
import os
import signal

STACK_SIGNAL = signal.SIGUSR1
"""Has a judge process write its stack."""

_NAME_BYTES = 512


def make_notes() -> int:
    """A file descriptor of empty notes; the caller closes it."""
    return os.memfd_create("lzero-judge")


def keep_notes(notes: int) -> None:
    """In the judge: write the stack there on ``STACK_SIGNAL``, and on a crash."""
    os.ftruncate(notes, _NAME_BYTES)
    os.lseek(notes, _NAME_BYTES, os.SEEK_SET)
    faulthandler.enable(file=notes, all_threads=False)
    faulthandler.register(STACK_SIGNAL, file=notes, all_threads=False)


def note_call(notes: int, name: str) -> None:
    """In the judge: ``name`` runs from now on."""
    data = name.encode("utf-8", "replace")[:_NAME_BYTES]
    os.pwrite(notes, data.ljust(_NAME_BYTES, b"\0"), 0)


def noted_call(notes: int) -> str:
    """In the actor: what runs, or ran last."""
    return os.pread(notes, _NAME_BYTES, 0).rstrip(b"\0").decode("utf-8", "replace")


def noted_stack(notes: int) -> str:
    """In the actor: the stack; empty where none was written."""
    return os.pread(notes, 1 << 16, _NAME_BYTES).decode("utf-8", "replace")
