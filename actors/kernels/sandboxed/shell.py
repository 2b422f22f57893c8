"""An IPython shell whose results and tracebacks go to a ``Capture``."""

import asyncio
import shutil
import sys
import warnings
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

from actors.kernels.sandboxed.capture import Capture
from actors.kernels.sandboxed.cellloop import CellLoop, needs_loop
from actors.kernels.sandboxed.plain_cells import CellTransformer
from actors.kernels.sandboxed.tracebacks import format_traceback

_OWN_IPYTHON_FOLDER = "/workspace/.ipython"
CAPTURE = Capture()
"""Output of the running cell; one per process, like ``sys.stdout``."""


class _ResultHook(DisplayHook):  # type: ignore[misc]
    """Writes the value of a cell's last expression as plain text, without the Out[n] prompt."""

    def write_output_prompt(self) -> None:
        """Write no prompt."""

    @staticmethod
    def semicolon_at_end_of_expression(expression: str) -> bool:
        """Whether a semicolon hides the value; a cell without any need not be tokenized."""
        return ";" in expression and DisplayHook.semicolon_at_end_of_expression(expression)

    def compute_format_data(self, result: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Format as plain text only; nobody looks at HTML or images."""
        formatted, metadata = self.shell.display_formatter.format(result, include={"text/plain"})
        return formatted, metadata

    def write_format_data(self, format_dict: dict[str, Any], md_dict: Any = None) -> None:
        """Write the text representation."""
        CAPTURE.write(format_dict.get("text/plain", "") + "\n")

    def finish_displayhook(self) -> None:
        """Nothing is left to write."""


class _TextPublisher(DisplayPublisher):  # type: ignore[misc]
    """``display(...)`` as plain text."""

    def publish(self, data: dict[str, Any], *arguments: Any, **keywords: Any) -> None:
        """Write the text representation."""
        CAPTURE.write(str(data.get("text/plain", "")) + "\n")

    def clear_output(self, wait: bool = False) -> None:
        """A transcript cannot be unwritten."""


class NotebookShell(InteractiveShell):  # type: ignore[misc]
    """The shell of one kernel."""

    displayhook_class = Type(_ResultHook)
    display_pub_class = Type(_TextPublisher)

    def showtraceback(self, exc_tuple: Any = None, *arguments: Any, **keywords: Any) -> None:
        """Write a short traceback: the standard form, without the frames of the kernel."""
        _, error, frames = self._get_exc_info(exc_tuple)
        if error is None or isinstance(error, SyntaxError | UsageError):
            super().showtraceback(exc_tuple, *arguments, **keywords)
        elif not (isinstance(error, asyncio.CancelledError) and _is_stopping(self.loop_runner)):
            CAPTURE.write(format_traceback(error, frames, self._label_of))

    def _label_of(self, file: str) -> str | None:
        label = self.compile.format_code_name(file)
        return " ".join(label) if label else None

    def _showtraceback(self, etype: type[BaseException], evalue: Any, stb: list[str]) -> None:
        CAPTURE.write("\n".join(stb).strip("\n") + "\n")

    def reset(self, *arguments: Any, **keywords: Any) -> None:
        """Forget everything; IPython's reset also defines what needs a terminal.

        And it forgets what makes the namespace a main module, which multiprocessing looks at.
        """
        super().reset(*arguments, **keywords)
        self.user_ns.setdefault("__spec__", None)
        for name in ("clear", "more", "less", "man"):
            if self.alias_manager.is_alias(name):
                self.alias_manager.undefine_alias(name)

    def should_run_async(
        self, raw_cell: str, *, transformed_cell: str | None = None, **keywords: Any
    ) -> bool:
        """Also where a cell starts tasks; a cell without the keywords need not be compiled."""
        cell = transformed_cell or ""
        if not any(word in cell for word in ("await", "async")):
            return needs_loop(cell)
        awaits = super().should_run_async(raw_cell, transformed_cell=transformed_cell, **keywords)
        return bool(awaits) or needs_loop(cell)

    def enable_gui(self, gui: str | None = None) -> None:
        """There is no GUI."""

    def ask_exit(self) -> None:
        """``exit`` and ``quit`` do nothing: the host decides when a kernel ends."""


def _is_stopping(loop_runner: object) -> bool:
    """Whether the error of a cancelled cell need not be shown: the interrupt will be."""
    return isinstance(loop_runner, CellLoop) and loop_runner.stopping


def make_shell() -> NotebookShell:
    """Build the shell: no history file, no threads, no colours, short tracebacks."""
    shell: NotebookShell = NotebookShell.instance(config=shell_config())
    prepare(shell)
    return shell


def shell_config() -> Config:
    """IPython's configuration of every shell of ours."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.xmode = "Plain"
    config.InteractiveShell.autocall = 0
    config.Completer.use_jedi = False
    return config


def prepare(shell: NotebookShell) -> None:
    """Finish a new shell; its process is the same for cells whatever launcher started it."""
    shell.loop_runner = CellLoop()
    shell.input_transformer_manager = CellTransformer()
    shell.system = shell.system_raw
    if shell.ipython_dir == _OWN_IPYTHON_FOLDER:
        shutil.rmtree(_OWN_IPYTHON_FOLDER, ignore_errors=True)
    sys.argv[:] = [""]
    sys.path[:] = ["", *(folder for folder in sys.path if folder)]
    warnings.filterwarnings("ignore", message="To exit: use")
