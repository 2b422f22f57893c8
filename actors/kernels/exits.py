"""Why a kernel ended by itself, in words."""

import signal

from actors.kernels.interface import DeathCause


def explain_exit(code: int, cpu_s: float) -> tuple[str, DeathCause]:
    """The reason and the cause of an exit code, or of minus the number of a signal.

    Args:
        code: what the sandbox's pid 1 says; a claim of untrusted code.
        cpu_s: the limit ``kernel.cpu_s``.
    """
    if code == -signal.SIGXCPU:
        return f"one process used {cpu_s:g} s of CPU (kernel.cpu_s)", DeathCause.CPU
    return f"its process {how_it_ended(code)}", DeathCause.EXITED


def how_it_ended(code: int) -> str:
    """An exit code, or minus the number of a signal, in words."""
    return f"was killed by {_signal_name(-code)}" if code < 0 else f"exited with code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
