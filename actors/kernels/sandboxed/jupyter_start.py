"""Starts any Jupyter kernel, isolated like a fork of the zygote, in a sandbox of its own.

The host sends one message over the SEQPACKET socket on descriptor 0: ``["start", command,
environment, connection file, limits, capture]`` with the kernel's end of the tool socket. The
answer is ``["started"]`` with pidfds of the sandbox's pid 1 and of the kernel and a descriptor of
the folder with the kernel's sockets, or ``["failed", text]``; when the kernel ends,
``["exited", code]`` follows. With ``capture``, descriptors 1 and 2 of the kernel are one memory
file instead of /dev/null.
"""

import contextlib
import os
import signal
import socket
from typing import Any, NoReturn

import msgpack

from actors.kernels.sandboxed import isolation, mounts, seccomp
from actors.kernels.sandboxed.toolclient import TOOL_FD

FOLDER = "/run/jupyter"
"""Where the kernel's sockets and its connection file lie inside."""
CONNECTION_FILE = f"{FOLDER}/connection.json"
_CONTROL_FD = 0
_MESSAGE_BYTES = 1 << 16


def main() -> None:
    """Start the kernel and stay until its sandbox is gone."""
    control = socket.socket(fileno=_CONTROL_FD)
    data, descriptors, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 1)
    if not data:
        return
    request = msgpack.unpackb(data)
    try:
        pid, init = isolation.clone_isolated()
    except OSError as error:
        control.send(msgpack.packb(["failed", str(error)]))
        return
    if pid == 0:
        _become_sandbox(control, descriptors[0], request)
    os.close(init)
    isolation.close_from(0)
    os.waitpid(pid, 0)


def _become_sandbox(control: socket.socket, tools: int, request: list[Any]) -> NoReturn:
    """Pid 1 of the new sandbox: isolate, fork, hand out descriptors, reap."""
    _, command, environment, connection, limits, capture = request
    try:
        init = os.pidfd_open(os.getpid())
        output = isolation.open_output() if capture else os.open("/dev/null", os.O_WRONLY)
        kept = isolation.Limits(**limits)
        folder = _isolate(kept, connection)
        os.set_blocking(tools, True)
        pid = os.fork()
        if pid:
            isolation.hide_from_the_sandbox()
            kernel = os.pidfd_open(pid)
            socket.send_fds(control, [msgpack.packb(["started"])], [init, kernel, folder])
            isolation.limit_open_files(kept)
            isolation.close_from(_CONTROL_FD + 1)
            isolation.reap_until(pid, _say_exited)
        isolation.limit_open_files(kept)
        _execute(command, {**os.environ, **environment}, tools, output)
    except BaseException as error:
        if os.getpid() == 1:
            control.send(msgpack.packb(["failed", f"{type(error).__name__}: {error}"[:4000]]))
    finally:
        os._exit(1)


def _isolate(limits: isolation.Limits, connection: str) -> int:
    isolation.map_user()
    isolation.bound_network_buffers()
    mounts.mount_private(limits)
    folder = mounts.mount_sockets(FOLDER)
    with open(CONNECTION_FILE, "w", encoding="utf-8") as file:
        file.write(connection)
    os.setsid()
    isolation.isolate(limits, seccomp.deny_list(netlink=True))
    return folder


def _say_exited(code: int) -> None:
    with contextlib.suppress(OSError):
        socket.socket(fileno=_CONTROL_FD).send(msgpack.packb(["exited", code]))


def _execute(command: list[str], environment: dict[str, str], tools: int, output: int) -> NoReturn:
    """Become the kernel, with nothing open but the tool socket."""
    tools = os.dup2(tools, TOOL_FD + 10 + tools)
    output = os.dup2(output, TOOL_FD + 10 + tools)
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2), (tools, TOOL_FD)):
        os.dup2(source, target)
    isolation.close_from(TOOL_FD + 1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.chdir("/workspace")
    os.execvpe(command[0], command, environment)  # noqa: S606


if __name__ == "__main__":
    main()
