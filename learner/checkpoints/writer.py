"""Writes one rank's part of checkpoints beside training: ``python -m learner.checkpoints.writer``.

consumes   jobs on stdin, one line each; the data lie in a buffer shared with the rank
produces   a file of tensors; on rank 0 also the Hugging Face folder, the manifest and the name
waits for  on rank 0, the parts of the other ranks, which it sees in the folder
unblocked by  the writers of the other ranks

A process of its own, of low priority and without torch: it takes neither the interpreter lock nor
much of a core from training. It ends with the rank, also when that is killed.
"""

import argparse
import contextlib
import itertools
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from common.errors import LZeroError
from learner.checkpoints.digests import Digest, Hasher, write_file
from learner.checkpoints.export import export_state
from learner.checkpoints.files import DESCRIPTION, LEDGER, MODEL, STATE, publish
from learner.checkpoints.job import Answer, FinishJob, Job, answer_of_failure, job_from_line

NICENESS = 15
"""While the rank waits for it; beside training it is of SCHED_IDLE, see ``process``."""

_BLOCK_BYTES = 4 << 20
_POLL_S = 0.05


def part_name(rank: int) -> str:
    """File of a rank's part of the state."""
    return f"rank-{rank:05d}.safetensors"


def write_part(job: Job, buffer: int) -> None:
    """Write this rank's tensors out of the buffer, then tell the writer of rank 0.

    Args:
        job: what to write.
        buffer: file descriptor of the shared memory.

    Raises:
        OSError: the disk is full, or the folder is gone.
    """
    path = Path(job.partial) / STATE / part_name(job.rank)
    header = job.header.encode()
    hasher = Hasher()
    head = struct.pack("<Q", len(header)) + header
    with path.open("wb", buffering=0) as file:
        for block in itertools.chain((head,), _blocks(buffer, job.data_bytes)):
            hasher.update(block)
            _write_all(file.fileno(), block)
        os.fsync(file.fileno())
    digest = hasher.digest()
    _tell(path.with_suffix(".done"), {"bytes": digest.num_bytes, "blake2b": digest.blake2b})


def _blocks(buffer: int, num_bytes: int, *, begin: int = 0) -> Iterator[bytes]:
    for place in range(begin, begin + num_bytes, _BLOCK_BYTES):
        yield os.pread(buffer, min(_BLOCK_BYTES, begin + num_bytes - place), place)


def _write_all(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def _tell(path: Path, content: dict[str, object]) -> None:
    hidden = path.with_name("." + path.name)
    hidden.write_text(json.dumps(content))
    hidden.rename(path)


def finish(job: Job, rest: FinishJob, buffer: int) -> None:
    """Wait for all parts, add what is there once, and give the folder its name.

    Raises:
        OSError: see ``write_part``.
        LZeroError: another rank's part failed or did not come.
        InputError: the model's source folder cannot be read.
    """
    partial = Path(job.partial)
    digests = _collect(partial / STATE, job.ranks, rest.wait_s)
    ledger = b"".join(_blocks(buffer, rest.ledger_bytes, begin=job.data_bytes))
    digests[LEDGER] = write_file(partial / LEDGER, ledger)
    digests[DESCRIPTION] = write_file(partial / DESCRIPTION, rest.description.encode())
    exported = export_state(
        partial / STATE,
        Path(rest.model_source),
        partial / MODEL,
        rest.export_format,
        adapters=json.loads(rest.description)["adapters"],
    )
    digests |= {f"{MODEL}/{name}": digest for name, digest in exported.items()}
    publish(partial, Path(rest.final), digests, keep=rest.keep)


def _collect(state: Path, ranks: int, wait_s: float) -> dict[str, Digest]:
    """Digests of all parts, when they are there."""
    deadline = time.monotonic() + wait_s
    digests: dict[str, Digest] = {}
    for rank in range(ranks):
        note = (state / part_name(rank)).with_suffix(".done")
        while not note.exists():
            failed = note.with_suffix(".failed")
            if failed.exists():
                raise LZeroError(json.loads(failed.read_text())["error"])
            if time.monotonic() > deadline:
                raise LZeroError(
                    f"the part of rank {rank} did not appear in '{state}' within {wait_s:.0f} s; "
                    "all ranks must see the same file system"
                )
            time.sleep(_POLL_S)
        row = json.loads(note.read_text())
        digests[f"{STATE}/{part_name(rank)}"] = Digest(row["bytes"], row["blake2b"])
        note.unlink()
    return digests


def run_job(job: Job, buffer: int) -> Answer:
    """Do one job; a failure becomes the answer, and a note for the writer of rank 0."""
    began = time.monotonic()
    try:
        write_part(job, buffer)
        if job.finish is not None:
            finish(job, job.finish, buffer)
    except Exception as error:
        answer = answer_of_failure(error)
        note = (Path(job.partial) / STATE / part_name(job.rank)).with_suffix(".failed")
        with contextlib.suppress(OSError):  # the rank tells the others at the next save
            _tell(note, {"error": f"rank {job.rank}: {answer.error}"})
        return answer
    return Answer(seconds=time.monotonic() - began)


def main() -> None:
    """Do jobs until stdin ends."""
    parser = argparse.ArgumentParser(prog="learner.checkpoints.writer")
    parser.add_argument("--buffer", type=int, required=True, help="file descriptor")
    parser.add_argument("--folder", help="of the checkpoints; for people who look for processes")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # what ends the rank in order still needs its writer
    os.nice(NICENESS)
    for line in sys.stdin:
        sys.stdout.write(run_job(job_from_line(line), arguments.buffer).as_line())
        sys.stdout.flush()


if __name__ == "__main__":
    main()
