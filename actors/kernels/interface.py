"""What an episode sees of a kernel, whatever launcher made it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from actors.kernels.sandboxed.bounded import MOST_NAME
from actors.kernels.tool_specs import ToolHandler, ToolSpec
from common.errors import KernelError

_LARGEST_COUNT = 2**53


class DeathCause(StrEnum):
    """Why a kernel ended."""

    MEMORY = "memory"
    """The sandbox held more than ``kernel.sandbox_memory_mib``."""
    CPU = "cpu"
    """It used more than ``kernel.cpu_s``."""
    INODES = "inodes"
    """It held more files than it may."""
    IGNORED_INTERRUPT = "ignored_interrupt"
    """A cell went on after its deadline and the grace time."""
    PROTOCOL = "protocol"
    """It sent what no kernel of ours sends, or too much, or did not read what it was sent."""
    EXITED = "exited"
    """It ended by itself, or was killed from inside."""
    FILE = "file"
    """A file could not be written into its working folder."""
    CANCELLED = "cancelled"
    """Its cell was given up on the host."""
    CLOSED = "closed"
    """It was closed, or its pool or launcher was."""
    LAUNCHER_DIED = "launcher_died"
    """The process that all kernels of its launcher hang on ended."""
    FAILED_TO_START = "failed_to_start"
    """It did not come up."""


class KernelDiedError(KernelError):
    """The kernel died, broke its protocol, or had to be killed; it cannot be used any more.

    Attributes:
        cause: why.
    """

    def __init__(self, message: str, cause: DeathCause = DeathCause.EXITED) -> None:
        """Say in ``message`` what happened, with numbers and the limit's key."""
        super().__init__(message)
        self.cause = cause


def check_file_name(name: str) -> None:
    """Raise ValueError if ``name`` is not a plain file name."""
    if name != name.strip() or name in ("", ".", "..") or set(name) & {"/", "\0"}:
        raise ValueError(f"a file for a kernel needs a plain name, got {name!r}")


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class CellStatus(StrEnum):
    """How a cell ended; the kernel lives on in every case."""

    OK = "ok"
    ERROR = "error"
    """An exception ended the cell."""
    TIMED_OUT = "timed_out"
    """The cell was interrupted at its deadline."""

    @classmethod
    def of(cls, *, failed: bool, interrupted: bool) -> "CellStatus":
        """The status of a cell that ended by an exception, or not, after an interrupt, or not."""
        if failed:
            return cls.TIMED_OUT if interrupted else cls.ERROR
        return cls.OK


@dataclass(frozen=True, kw_only=True, slots=True)
class CellResult:
    """What came of one cell. All of it was told by untrusted code: observation, never evidence.

    Attributes:
        output: stdout, stderr, the last expression's text and the traceback, in order. Capped:
            of a longer one the beginning and the end, with a line between them that says how much
            was dropped. Can be encoded in UTF-8.
        dropped_bytes: output beyond the cap.
        error_name: class name of the exception that ended the cell, 200 characters at most, or
            None.
        seconds: wall time, measured on the host.
        outputs: how many outputs a notebook would show: runs of one stream, displayed values and
            the traceback, each counted.
    """

    status: CellStatus
    output: str
    dropped_bytes: int
    error_name: str | None
    seconds: float
    outputs: int = 0

    def __post_init__(self) -> None:
        """Make text that anything can hold; ValueError for what no cell can have.

        Types are compared exactly: a kernel may say True where a number belongs, and what is
        recorded of a cell must be readable on the other side of any wire.
        """
        for name in ("dropped_bytes", "outputs"):
            count = getattr(self, name)
            if type(count) is not int or not 0 <= count <= _LARGEST_COUNT:
                raise ValueError(f"{name} of a cell must be in 0..2**53, got {count!r:.40}")
        if type(self.seconds) not in (int, float) or not math.isfinite(self.seconds):
            raise ValueError(f"seconds of a cell must be a number, got {self.seconds!r:.40}")
        if type(self.output) is not str or type(self.error_name) not in (str, type(None)):
            raise ValueError("the output of a cell and the name of its error must be text")
        object.__setattr__(self, "output", _encodable(self.output))
        if self.error_name is not None:
            object.__setattr__(self, "error_name", _encodable(self.error_name[:MOST_NAME]))


class LiveKernel(Protocol):
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

    async def execute(
        self, code: str, *, timeout_s: float, output_bytes: int | None = None
    ) -> CellResult:
        """Run one cell; ``output_bytes`` lowers the configured output limit for this cell.

        Raises:
            KernelDiedError: it died, broke its protocol, or did not stop in the grace time after an
                interrupt and was killed.
        """

    def bind_tools(self, tools: Sequence[ToolSpec], handler: ToolHandler) -> None:
        """Make ``tools`` functions of the notebook that call ``handler`` on the host.

        They stay what a cell finds under their names, whatever cells before it did to these.

        Raises:
            ValueError: two of them cannot stand side by side.
        """

    async def put_file(self, name: str, data: bytes) -> None:
        """Write a file into the notebook's working folder, /workspace.

        Raises:
            ValueError: ``name`` is not a plain file name.
            KernelDiedError: it died, or the file did not fit (the message says so).
        """

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
            MachineError: this machine cannot run the sandbox; the message says what to do.
        """

    async def launch(self) -> LiveKernel:
        """Start a fresh kernel.

        Raises:
            KernelDiedError: it did not come up.
        """

    async def close(self) -> None:
        """End everything that was started."""
