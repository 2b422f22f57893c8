"""Attacks by code that does not stop: floods of output, endless loops, crashes, daemons."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

from actors.kernels.probes.inside import LIBC, Target
from actors.kernels.probes.probe import Family, ProbeOutcome, attack


@attack(Family.RESOURCES, ProbeOutcome.CAPPED, ProbeOutcome.BLOCKED)
def print_a_giant_line(target: Target) -> str:
    """Prints 16 MiB at once."""
    print("x" * (16 << 20))
    return ""


@attack(
    Family.RESOURCES,
    *(ProbeOutcome.TIMED_OUT, ProbeOutcome.CAPPED, ProbeOutcome.BLOCKED, ProbeOutcome.KILLED),
    timeout_s=0.5,
)
def print_without_end(target: Target) -> str:
    """Prints without end."""
    while True:
        print("x" * 100_000)


@attack(
    Family.RESOURCES,
    *(ProbeOutcome.CAPPED, ProbeOutcome.BLOCKED, ProbeOutcome.TIMED_OUT),
    at={
        "B-jupyter": (
            ProbeOutcome.CAPPED,
            ProbeOutcome.BLOCKED,
            ProbeOutcome.TIMED_OUT,
            ProbeOutcome.KILLED,
        )
    },
    timeout_s=3,
)
def flood_by_a_subprocess(target: Target) -> str:
    """Lets a subprocess write 40 MB to the descriptor of the cell's output."""
    subprocess.run("yes | head -c 40M", shell=True, check=False)
    return ""


@attack(Family.RESOURCES, ProbeOutcome.CAPPED, ProbeOutcome.BLOCKED)
def raise_a_giant_error(target: Target) -> str:
    """Ends with an exception whose text has 32 MiB."""
    with contextlib.suppress(ValueError):
        raise ValueError("x" * (32 << 20))
    sys.stderr.write("y" * (32 << 20))
    return ""


@attack(Family.RESOURCES, ProbeOutcome.KILLED, timeout_s=0.2)
def stay_in_one_call_of_c(target: Target) -> str:
    """Computes for hours where Python looks at no signal."""
    return str(sum(range(10**13)))


@attack(Family.RESOURCES, ProbeOutcome.KILLED, timeout_s=0.2)
def swallow_interrupts(target: Target) -> str:
    """Catches every interrupt and goes on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(1)


@attack(Family.RESOURCES, ProbeOutcome.KILLED, timeout_s=120, slow=True)
def burn_cpu_in_many_processes(target: Target) -> str:
    """Computes twice its CPU time in eight processes, each of which stays below the limit."""
    count = 8
    for _ in range(count):
        if os.fork() == 0:
            while time.process_time() < 2 * target.cpu_s / count:
                sum(range(10**6))
            os._exit(0)
    for _ in range(count):
        os.wait()
    return f"{2 * target.cpu_s} s of CPU"


@attack(Family.RESOURCES, ProbeOutcome.KILLED)
def crash_the_interpreter(target: Target) -> str:
    """Reads from address 0."""
    return str(ctypes.string_at(0))


@attack(Family.RESOURCES, ProbeOutcome.KILLED)
def overflow_the_stack(target: Target) -> str:
    """Recurses in C until the stack is gone."""
    sys.setrecursionlimit(10**9)
    nested: object = None
    for _ in range(2_000_000):
        nested = [nested]
    return repr(nested)[:10]


@attack(Family.RESOURCES)
def leave_a_daemon(target: Target) -> str:
    """Leaves a process of its own session behind, to outlive the kernel."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            LIBC.prctl(15, f"d-{target.token}".encode(), 0, 0, 0)
            time.sleep(600)
        os._exit(0)
    return ""
