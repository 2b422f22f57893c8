"""The life of one kernel: run the host's cells one after the other, until the socket closes.

Host to kernel: ``["exec", cell, code, output_limit]``, ``["tools", [tool, ...]]``,
``["file", name, data, goes_on]``, ``["ret", call, value]``,
``["err", call, exception, text]``.
Kernel to host: ``["ready"]``, ``["filed", problem | None]``,
``["exited", code]`` (from pid 1, at the end),
``["done", cell, status, output, dropped, exception | None, outputs]``,
``["call", call, name, [argument, ...], {keyword: argument}]``, where the number of a call out
of another thread than the main one is negative.
"""

import errno
import os
import socket
import sys
from typing import NoReturn

from actors.kernels.sandboxed.bounded import MOST_NAME
from actors.kernels.sandboxed.capture import CapturedStream
from actors.kernels.sandboxed.cellloop import CellLoop
from actors.kernels.sandboxed.channel import Channel, Interrupts
from actors.kernels.sandboxed.shell import CAPTURE, NotebookShell
from actors.kernels.sandboxed.toolclient import NotebookTools


def serve(connection: socket.socket, shell: NotebookShell, folder: str) -> NoReturn:
    """Serve the host over ``connection``, with files in ``folder``; ends with the process."""
    interrupts = Interrupts()
    channel = Channel(connection, interrupts)
    capture_streams()
    interrupts.install()
    os.register_at_fork(after_in_child=use_plain_streams)
    tools = NotebookTools(channel, shell.user_ns)
    channel.send(["ready"])
    while True:
        request = channel.next_request()
        if request[0] == "tools":
            tools.bind(request[1])
        elif request[0] == "file":
            channel.send(["filed", write_file(folder, *request[1:])])
        else:
            _, cell, code, limit = request
            CAPTURE.begin(limit)
            tools.begin_cell()
            failure = run_cell(shell, code, interrupts)
            if not channel.usable:
                os._exit(0)
            interrupts.install()
            capture_streams()
            CAPTURE.note(tools.end_cell())
            output, dropped, outputs = CAPTURE.finish()
            status = "ok" if failure is None else "error"
            channel.send(["done", cell, status, output, dropped, failure, outputs])


def run_cell(shell: NotebookShell, code: str, interrupts: Interrupts) -> str | None:
    """Run ``code``; the name of the exception that ended it, or None."""
    try:
        try:
            interrupts.begin()
            _catch_up(shell)
            result = shell.run_cell(code, store_history=True)
        finally:
            interrupts.end()
    except BaseException as error:
        return name_of(error)
    failure = result.error_before_exec or result.error_in_exec
    return name_of(failure) if failure is not None else None


def _catch_up(shell: NotebookShell) -> None:
    """Let tasks of earlier cells go on; an interrupt that strikes there ends the cell."""
    if isinstance(shell.loop_runner, CellLoop):
        try:
            shell.loop_runner.catch_up()
        except KeyboardInterrupt:
            shell.showtraceback()
            raise


def name_of(error: BaseException) -> str:
    """The name of its class, whatever a metaclass says, as long as the host takes it."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return str.__getitem__(name, slice(MOST_NAME))


def write_file(folder: str, name: str, data: bytes, goes_on: bool) -> str | None:
    """Write or go on writing a file of ``folder``; what went wrong, or None.

    Links that a cell left there are not followed, and a pipe does not block.
    """
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    flags |= os.O_APPEND if goes_on else os.O_CREAT | os.O_TRUNC
    try:
        handle = os.open(f"{folder}/{name}", flags, 0o644)
        try:
            while data:
                data = data[os.write(handle, data) :]
        finally:
            os.close(handle)
    except OSError as error:
        return f"{errno.errorcode.get(error.errno or 0, '')}: {error.strerror}"
    return None


def capture_streams() -> None:
    """Point Python's streams to the capture; user code may have replaced them."""
    sys.stdout = CapturedStream(CAPTURE, 1)
    sys.stderr = CapturedStream(CAPTURE, 2)


def use_plain_streams() -> None:
    """In a process that a cell forked: write to the descriptors, which the kernel drains."""
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
