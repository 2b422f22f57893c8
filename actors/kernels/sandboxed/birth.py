"""The last steps on the way to a kernel: fork it from the sandbox's pid 1, and set it up."""

import gc
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import msgpack

from actors.kernels.sandboxed import isolation
from actors.kernels.sandboxed.channel import HEADER
from actors.kernels.sandboxed.serve import serve
from actors.kernels.sandboxed.shell import CAPTURE, NotebookShell

_KERNEL_FD = 3
_OUTPUT_FD = 4
_LAST_WORD_TIMEOUT_S = 0.2


def become_init(
    notify: socket.socket,
    connection: int,
    output: int,
    shell: NotebookShell,
    folder: str,
    limits: isolation.Limits,
    finish: Callable[[], None] = lambda: None,
) -> NoReturn:
    """As the sandbox's pid 1, fork the kernel, send the host's handle of it, then reap.

    Args:
        notify: gets one message with the kernel's pidfd.
        connection: the kernel's end of its socket.
        output: from ``isolation.open_output``.
        shell: what the kernel runs cells in.
        folder: where cells start and files are put.
        limits: those that are left to be set, see ``isolation.limit_open_files``.
        finish: called after the kernel ended.
    """
    pid = os.fork()
    if pid:
        isolation.hide_from_the_sandbox()
        kernel = os.pidfd_open(pid)
        socket.send_fds(notify, [b"kernel"], [kernel])
        isolation.limit_open_files(limits)
        _keep_only(connection)

        def on_exit(code: int) -> None:
            _say_exited(code)
            finish()

        isolation.reap_until(pid, on_exit)
    _become_kernel(connection, output)
    isolation.limit_open_files(limits)
    os.chdir(folder)
    serve(socket.socket(fileno=_KERNEL_FD), shell, folder)


def _keep_only(connection: int) -> None:
    if connection != _KERNEL_FD:
        os.dup2(connection, _KERNEL_FD, inheritable=False)
    isolation.close_from(_KERNEL_FD + 1)
    os.closerange(0, _KERNEL_FD)


def _say_exited(code: int) -> None:
    """Tell the host how the kernel ended; whoever forged it before only harmed itself."""
    connection = socket.socket(fileno=_KERNEL_FD)
    connection.settimeout(_LAST_WORD_TIMEOUT_S)
    body = msgpack.packb(["exited", code])
    try:
        connection.sendall(HEADER.pack(len(body)) + body)
    except OSError:
        return


def _become_kernel(connection: int, output: int) -> None:
    """Arrange descriptors (0 null, 1 and 2 output, 3 host) and random state."""
    connection = os.dup2(connection, _OUTPUT_FD + 1 + connection, inheritable=False)
    output = os.dup2(output, connection + 1, inheritable=False)
    for target in (1, 2, _OUTPUT_FD):
        os.dup2(output, target)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(connection, _KERNEL_FD, inheritable=False)
    os.set_inheritable(_OUTPUT_FD, False)
    isolation.close_from(_OUTPUT_FD + 1)
    CAPTURE.descriptor = _OUTPUT_FD
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    gc.enable()
