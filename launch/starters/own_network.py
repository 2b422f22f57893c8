"""Runs a command with a network of its own, where nobody but its own processes reaches a port.

torch and vLLM open ports among their own processes that ask nobody for a password. In a network
namespace of their own only they themselves have a way there; Unix sockets are reached as before.
Where the machine allows no namespace the command runs in the network of the machine, after a line
that says so. Standard library only, and nothing is left but the command itself:
``python -I -S launch/starters/own_network.py COMMAND ...``; without a command it is only tried.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x1000_0000
_CLONE_NEWNET = 0x4000_0000
_PR_SET_PDEATHSIG = 1
_SIOCSIFFLAGS = 0x8914
_IFF_UP, _IFF_RUNNING = 0x1, 0x40


def main(command: list[str]) -> int:
    """Become ``command``; without one, 0 if a network of its own can be had."""
    parent = os.getppid()
    fault = enter()
    if not command:
        return 1 if fault else 0
    if fault:
        sys.stderr.write(f"WARNING: {fault}; other users of the machine reach its ports\n")
    # New credentials end what the parent asked for: that this process dies with it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    os.execvp(command[0], command)  # noqa: S606  no shell wanted


def enter() -> str:
    """Leave the network of the machine; why not, if it cannot be."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNET) != 0:
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
            return f"no network of its own ({os.strerror(ctypes.get_errno())})"
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh14x", b"lo", _IFF_UP | _IFF_RUNNING)
        fcntl.ioctl(handle, _SIOCSIFFLAGS, request)
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
