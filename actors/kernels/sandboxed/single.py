"""One kernel without a zygote: this process is its pid 1, and forks it.

Arguments of the command line: the limits as JSON, ``sandboxed`` or ``bare``, the working folder,
then modules to import first. Over the SEQPACKET socket on descriptor 0 the host sends one message
with the kernel's end of a socket pair, and gets ``init`` and ``kernel``, each with a pidfd, or a
text that says what went wrong.

``sandboxed``: bubblewrap made the namespaces, in which this process is pid 1. ``bare``: there is no
sandbox; this process ends what the kernel started when it gets SIGTERM or the host dies.
"""

import contextlib
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import sys
from functools import partial

from actors.kernels.sandboxed import isolation, mounts, seccomp
from actors.kernels.sandboxed.birth import become_init
from actors.kernels.sandboxed.shell import make_shell

_CONTROL_FD = 0
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    """Start the kernel and stay as its init until it ends."""
    limits, mode, folder, *modules = sys.argv[1:]
    control = socket.socket(fileno=_CONTROL_FD)
    try:
        _, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
        for name in modules:
            importlib.import_module(name)
        shell = make_shell()
        gc.freeze()
        output = isolation.open_output()
        socket.send_fds(control, [b"init"], [os.pidfd_open(os.getpid())])
        if mode == "bare":
            _adopt_orphans(folder)
        kept = isolation.Limits(**json.loads(limits))
        _give_up(kept, bare=mode == "bare")
        finish = partial(_end_descendants, folder) if mode == "bare" else lambda: None
        become_init(control, descriptors[0], output, shell, folder, kept, finish=finish)
    except BaseException as error:
        control.send(f"{type(error).__name__}: {error}".encode()[:4000])
    finally:
        os._exit(1)


def _give_up(limits: isolation.Limits, *, bare: bool) -> None:
    if bare:
        isolation.limit_resources(limits)
        return
    isolation.forbid_user_namespaces()
    isolation.bound_network_buffers()
    mounts.mount_private(limits)
    isolation.isolate(limits, seccomp.deny_list())


def _adopt_orphans(folder: str) -> None:
    """Play pid 1 without a pid namespace."""
    isolation.libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    isolation.die_with_parent(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda _number, _frame: _end_descendants(folder))


def _end_descendants(folder: str) -> None:
    """Kill all processes below this one, which adopts their orphans, remove the folder and exit."""
    while True:
        for pid in _children(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            os.chdir("/")
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


if __name__ == "__main__":
    main()
