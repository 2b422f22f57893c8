"""The zygote: one Python that imported everything, and forks a kernel per request.

It lives in an outer bubblewrap sandbox, is single-threaded and never runs agent code. Each fork
isolates itself before it serves. Control messages (msgpack over a SEQPACKET socket):
host to zygote ``["fork", number, uid]`` with the kernel's end of a socket pair; zygote to host
``["ready"]``, ``["forked", number]`` with the pidfds of the sandbox's pid 1 and of the kernel, or
``["failed", number, text]``. The user id, if it is not 0, becomes the kernel's on the host: it is
one of those that the zygote's user namespace maps.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import warnings
from typing import NamedTuple, NoReturn

import msgpack

from actors.kernels.sandboxed import isolation, mounts, seccomp
from actors.kernels.sandboxed.birth import become_init
from actors.kernels.sandboxed.channel import Interrupts
from actors.kernels.sandboxed.serve import capture_streams, run_cell
from actors.kernels.sandboxed.shell import CAPTURE, NotebookShell, make_shell

_CONTROL_FD = 0
_PRELOADED = (
    *("asyncio", "base64", "collections", "csv", "datetime", "decimal", "fractions", "functools"),
    *("glob", "hashlib", "html", "itertools", "json", "math", "random", "re", "shutil"),
    *("statistics", "string", "subprocess", "tempfile", "textwrap", "threading", "urllib.parse"),
)
_WARMING_ROUNDS = 25
"""Enough for the interpreter to have specialised its byte code before the fork."""
_WARMING_CELLS = ("1 + 1", "print(1)", "1 / 0", "x = [1, {'a': 2}]; x", "def", "import json")


class _Prepared(NamedTuple):
    """What a fork takes along; ``uid`` is 0 for the zygote's own."""

    shell: NotebookShell
    limits: isolation.Limits
    program: bytes
    uid: int


def main() -> None:
    """Serve fork requests until the host closes the control socket.

    Arguments of the command line: the limits as JSON, then modules to import before forking.
    """
    limits = isolation.Limits(**json.loads(sys.argv[1]))
    program = seccomp.deny_list()
    shell = _prepare_shell(sys.argv[2:])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    warnings.filterwarnings("ignore", message="To exit: use")
    gc.collect()
    gc.disable()
    gc.freeze()
    if len(os.listdir("/proc/self/task")) != 1:
        raise RuntimeError("the zygote has threads; it can no longer fork safely")
    control = socket.socket(fileno=_CONTROL_FD)
    control.send(msgpack.packb(["ready"]))
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
        if not data:
            return
        _, number, uid = msgpack.unpackb(data)
        _fork_kernel(control, number, descriptors[0], _Prepared(shell, limits, program, uid))


def _prepare_shell(modules: list[str]) -> NotebookShell:
    """Import what cells commonly import and run the code paths of a cell once."""
    for name in (*_PRELOADED, *modules):
        importlib.import_module(name)
    shell = make_shell()
    streams = sys.stdout, sys.stderr
    capture_streams()
    CAPTURE.begin(1 << 16)
    interrupts = Interrupts()
    for code in _WARMING_CELLS * _WARMING_ROUNDS:
        run_cell(shell, code, interrupts)
    CAPTURE.finish()
    sys.stdout, sys.stderr = streams
    shell.reset(new_session=True)
    return shell


def _fork_kernel(
    control: socket.socket,
    number: int,
    connection: int,
    prepared: _Prepared,
) -> None:
    """Fork one sandbox and pass its two pidfds to the host."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with isolation.acting_as(prepared.uid) if prepared.uid else contextlib.nullcontext():
            pid, init = isolation.clone_isolated()
            if pid == 0:
                _become_sandbox(theirs, connection, prepared)
    except OSError as error:
        control.send(msgpack.packb(["failed", number, str(error)]))
        os.close(connection)
        return
    theirs.close()
    os.close(connection)
    with ours:
        text, kernels, _, _ = socket.recv_fds(ours, 4096, 1)
    if kernels:
        socket.send_fds(control, [msgpack.packb(["forked", number])], [init, *kernels])
    else:
        reason = text.decode("utf-8", "replace") or "the sandbox died while it was set up"
        control.send(msgpack.packb(["failed", number, reason]))
    for descriptor in (init, *kernels):
        os.close(descriptor)


def _become_sandbox(
    notify: socket.socket,
    connection: int,
    prepared: _Prepared,
) -> NoReturn:
    """Pid 1 of the new sandbox: isolate, fork the kernel as pid 2, then reap until it ends."""
    try:
        output = _isolate(prepared)
        become_init(notify, connection, output, prepared.shell, "/workspace", prepared.limits)
    except BaseException as error:
        if os.getpid() == 1:
            notify.send(f"{type(error).__name__}: {error}".encode()[:4000])
    finally:
        os._exit(1)


def _isolate(prepared: _Prepared) -> int:
    """Give up everything; the descriptor of the memory file for output."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    isolation.map_user(prepared.uid or isolation.SANDBOX_UID)
    isolation.bound_network_buffers()
    mounts.mount_private(prepared.limits)
    os.setsid()
    output = isolation.open_output()
    isolation.isolate(prepared.limits, prepared.program)
    return output


if __name__ == "__main__":
    main()
