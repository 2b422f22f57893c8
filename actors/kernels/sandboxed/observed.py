"""The kernel class that ipykernel runs for the agent: cells behave as in the other launchers.

``IPKernelApp.kernel_class`` names it. A cell's output does not leave as messages while it runs but
as one text with the reply, made by the same shell and the same capture as in the other launchers:
short tracebacks, no colours, cut at the limit that came with the request. So a flood costs the
host nothing, and the observation does not depend on which launcher ran the cell.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ipykernel.ipkernel import IPythonKernel
from IPython.core.compilerop import CachingCompiler
from traitlets import Type

from actors.kernels.sandboxed.channel import Interrupts
from actors.kernels.sandboxed.serve import capture_streams, run_cell, use_plain_streams
from actors.kernels.sandboxed.shell import CAPTURE, NotebookShell, prepare, shell_config
from actors.kernels.sandboxed.toolclient import connected

OUTPUT_LIMIT = "output_bytes"
"""Key of an execute request's metadata: bytes that the cell may show."""
OBSERVATION = "observation"
"""Key of an execute reply's content: ``[output, dropped bytes, number of outputs]``."""
_DEFAULT_LIMIT = 1 << 16
_OUTPUT_FD = 200
_VARIABLES_ADDED = ("MPLBACKEND", "PYDEVD_USE_FRAME_EVAL")


class ObservedShell(NotebookShell):
    """The notebook's shell with what ipykernel asks of a shell."""

    def __init__(self, *, kernel: Any = None, **keywords: Any) -> None:
        """Made by the kernel; cells find no trace of it in their shell."""
        super().__init__(**keywords)

    def set_parent(self, parent: Any) -> None:
        """Output belongs to the cell that runs, whoever asked for it."""


class ObservedKernel(IPythonKernel):  # type: ignore[misc]
    """An IPython kernel that answers a cell with everything the cell showed."""

    shell_class = Type(ObservedShell)
    compiler_class = Type(CachingCompiler)

    def __init__(self, **keywords: Any) -> None:
        """Called by ipykernel's application."""
        application = keywords["parent"]
        application.config.merge(shell_config())
        application.default_extensions = []
        super().__init__(**keywords)
        self._owner = os.getpid()
        self._interrupts = Interrupts()

    def start(self) -> None:
        """Serve; from here on the process looks to cells like that of any other launcher."""
        super().start()
        prepare(self.shell)
        os.dup2(1, _OUTPUT_FD, inheritable=False)
        CAPTURE.descriptor = _OUTPUT_FD
        capture_streams()
        os.register_at_fork(after_in_child=use_plain_streams)
        for name in _VARIABLES_ADDED:
            os.environ.pop(name, None)
        self._interrupts.install()
        self.io_loop.add_callback(asyncio.set_event_loop_policy, None)

    def pre_handler_hook(self) -> None:
        """Interrupts strike only while a cell runs."""

    def post_handler_hook(self) -> None:
        """See ``pre_handler_hook``."""

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        allow_stdin: bool = False,
        *,
        cell_meta: Mapping[str, Any] | None = None,
        cell_id: str | None = None,
    ) -> dict[str, Any]:
        """Run one cell; what it showed is in the reply."""
        CAPTURE.begin((cell_meta or {}).get(OUTPUT_LIMIT, _DEFAULT_LIMIT))
        if silent:
            return self._run_for_host(code)
        tools = connected()
        if tools is not None:
            tools.begin_cell()
        with _outside_of_the_loop():
            failure = run_cell(self.shell, code, self._interrupts)
        if os.getpid() != self._owner:
            os._exit(0)
        self._interrupts.install()
        capture_streams()
        if tools is not None:
            CAPTURE.note(tools.end_cell())
        self.shell.payload_manager.clear_payload()
        return {
            **({"status": "ok"} if failure is None else {"status": "error", "ename": failure}),
            "execution_count": self.shell.execution_count - 1,
            OBSERVATION: list(CAPTURE.finish()),
        }

    def _run_for_host(self, code: str) -> dict[str, Any]:
        """Run code that is not the agent's, as plain Python: it may be long."""
        try:
            exec(code, self.shell.user_ns)  # noqa: S102 - the host may do anything here
        except Exception as error:
            return {"status": "error", "ename": type(error).__name__, "evalue": str(error)}
        return {"status": "ok"}


@contextmanager
def _outside_of_the_loop() -> Iterator[None]:
    """Run code of a cell as if no event loop ran, so that it may run one of its own."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - handlers run in tasks
    asyncio.tasks._leave_task(loop, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
        asyncio.tasks._enter_task(loop, task)
