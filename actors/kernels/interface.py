"""What an episode sees of a kernel, whatever launcher made it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from common.errors import KernelError


class KernelDied(KernelError):
    """The kernel died, broke its protocol, or had to be killed; it cannot be used any more."""


class ToolError(Exception):
    """Raised by a tool handler for a failure that is none of the usual exceptions."""


class CellStatus(StrEnum):
    """How a cell ended; the kernel lives on in every case."""

    OK = "ok"
    ERROR = "error"
    """An exception ended the cell."""
    TIMED_OUT = "timed_out"
    """The cell was interrupted at its deadline."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellResult:
    """What came of one cell. All of it was told by untrusted code: observation, never evidence.

    Attributes:
        output: stdout, stderr, the last expression's text and the traceback, in order. Capped;
            when something was dropped the last line says how much.
        dropped_bytes: output beyond the cap.
        error_name: class name of the exception that ended the cell, or None.
        seconds: wall time, measured on the host.
    """

    status: CellStatus
    output: str
    dropped_bytes: int
    error_name: str | None
    seconds: float


ToolHandler = Callable[[str, tuple[Any, ...], dict[str, Any]], Awaitable[Any]]
"""Runs the named tool with its arguments on the host and returns something msgpack can encode.

An exception reaches the cell as itself if it is a ValueError, TypeError, KeyError, TimeoutError or
PermissionError, else as ``ToolError``. The arguments are untrusted.
"""


class Kernel(Protocol):
    """One sandboxed notebook kernel; variables persist from cell to cell."""

    @property
    def kernel_id(self) -> str:
        """Names this kernel in logs."""

    @property
    def level(self) -> str:
        """Isolation level, see docs/sandbox.md."""

    @property
    def alive(self) -> bool:
        """False once it died or was closed."""

    async def execute(self, code: str, *, timeout_s: float) -> CellResult:
        """Run one cell.

        Raises:
            KernelDied: it died, broke its protocol, or did not stop in the grace time after an
                interrupt and was killed.
        """

    def bind_tools(self, names: Sequence[str], handler: ToolHandler) -> None:
        """Make ``names`` plain functions of the notebook that call ``handler`` on the host."""

    async def close(self) -> None:
        """Kill the sandbox; returns when it is gone. May be called any number of times."""


class Launcher(Protocol):
    """Starts kernels of one kind."""

    @property
    def level(self) -> str:
        """Isolation level of its kernels."""

    async def start(self) -> None:
        """Get ready to launch.

        Raises:
            EnvironmentFault: this machine cannot run the sandbox; the message says what to do.
        """

    async def launch(self) -> Kernel:
        """Start a fresh kernel.

        Raises:
            KernelDied: it did not come up.
        """

    async def close(self) -> None:
        """End everything that was started."""
