"""The processes of senders: modules of this folder, which end with whoever started them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from common.child_process import child_command, module_environment


@contextmanager
def started(module: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of a module of this folder; it is ended at the end, if it has not ended."""
    process = subprocess.Popen(
        child_command(f"benchmarks.transport.{module}", *arguments),
        env=module_environment(os.environ),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ended(process: "subprocess.Popen[bytes]", *, within_s: float) -> None:
    """Wait for its end, which has to be a good one."""
    status = process.wait(within_s)
    assert status == 0, f"a sender ended with exit status {status}"
