"""Attacks on what Linux counts for each user id of the host, whatever namespaces there are.

What such an attack takes it keeps, and then a sibling must still get what it needs.
"""

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import socket

from actors.kernels.probes.inside import HELD, LIBC, Target, system_call
from actors.kernels.probes.probe import Family, attack


@attack(Family.SIBLINGS)
def take_a_share(target: Target) -> str:
    """No attack: what a sibling does afterwards; it lacks what is returned."""
    lacking = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            socket.send_fds(ours, [b"x"], [0])
        except OSError as error:
            lacking.append(f"descriptors in flight ({errno.errorcode[error.errno or 0]})")
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, 1031, 1 << 20)
    except OSError:
        lacking.append("pages for pipes")
    os.close(reader)
    os.close(writer)
    if LIBC.timer_create(1, None, ctypes.byref(ctypes.c_void_p())) != 0:
        lacking.append("timers")
    return ", ".join(lacking)


@attack(Family.SIBLINGS, keeps=True)
def keep_descriptors_in_flight(target: Target) -> str:
    """Leaves descriptors in its own sockets unread, until nobody of its user may send one."""
    nulls = array.array("i", [os.open("/dev/null", os.O_RDONLY)] * 250)
    with contextlib.suppress(OSError):
        for _ in range(8):
            ours, theirs = socket.socketpair()
            HELD.append((ours, theirs))
            ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, nulls)])
    return ""


@attack(Family.SIBLINGS, keeps=True)
def keep_everything_else_that_is_counted_per_user(target: Target) -> str:
    """Takes all pages for pipes, timers and instances of inotify, and keeps them."""
    with contextlib.suppress(OSError):
        for _ in range(100):
            ends = os.pipe()
            HELD.append(ends)
            fcntl.fcntl(ends[1], 1031, 1 << 20)
    for _ in range(200_000):
        if LIBC.timer_create(1, None, ctypes.byref(ctypes.c_void_p())) != 0:
            break
    with contextlib.suppress(OSError):
        for _ in range(200):
            HELD.append(system_call("inotify_init1", 0))
    return ""
