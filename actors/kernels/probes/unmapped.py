"""Attacks that keep memory which no process has mapped, so that nothing in /proc tells of it."""

import contextlib
import ctypes
import mmap
import os
import socket

from actors.kernels.probes.inside import Target, system_call
from actors.kernels.probes.probe import Family, attack


@attack(Family.RESOURCES, control=True)
def keep_memory_in_memfds(target: Target) -> str:
    """Makes memory files, which no rlimit bounds."""
    for name, arguments in (("memfd_create", (b"x", 0)), ("memfd_secret", (0,))):
        with contextlib.suppress(OSError):
            handle = system_call(name, *arguments)
            os.close(handle)
            return name
    return ""


@attack(Family.RESOURCES, control=True)
def keep_shared_memory_behind_one_page(target: Target) -> str:
    """Maps shared memory, unmaps all but one page, and looks whether the rest is still there."""
    kept = []
    for way in ("anonymous", "/dev/zero"):
        with contextlib.suppress(OSError):
            file = os.open(way, os.O_RDWR) if way != "anonymous" else -1
            piece = mmap.mmap(file, 16 * mmap.PAGESIZE)
            piece[:] = b"x" * len(piece)
            piece.madvise(mmap.MADV_DONTNEED)
            kept += [way] * (piece[-1:] == b"x")
            piece.close()
    return ", ".join(kept)


@attack(Family.RESOURCES, control=True)
def keep_unmapped_memory_in_a_pipe(target: Target) -> str:
    """Gives a page to a pipe and unmaps it; with huge pages each holds 2 MiB."""
    piece = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    piece[:1] = b"x"
    start = ctypes.addressof(ctypes.c_char.from_buffer(piece))
    vector = start.to_bytes(8, "little") + (1).to_bytes(8, "little")
    ours, theirs = os.pipe()
    try:
        return f"{system_call('vmsplice', theirs, vector, 1, 0)} byte"
    finally:
        os.close(ours)
        os.close(theirs)


@attack(Family.RESOURCES, control=True)
def keep_unmapped_memory_in_a_socket(target: Target) -> str:
    """Sends memory without copying it, to a socket that nobody reads."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sender:
        sender.connect(server.getsockname())
        sender.setsockopt(socket.SOL_SOCKET, 60, 1)
        return f"{sender.send(b'x' * 4096, 0x4000000)} bytes"


@attack(Family.RESOURCES, control=True)
def keep_a_file_that_is_cut_off_in_a_pipe(target: Target) -> str:
    """Moves pages of a file into a pipe and cuts the file off; only the pipe knows them then."""
    path = f"/tmp/cut-off-{target.token}"
    ours, theirs = os.pipe()
    try:
        with open(path, "w+b") as file:
            file.write(b"x" * 4096)
            file.flush()
            moved = os.splice(file.fileno(), theirs, 1, offset_src=0)
            file.truncate(0)
        return f"{moved} of 4096 bytes"
    finally:
        os.remove(path)
        os.close(ours)
        os.close(theirs)


@attack(Family.RESOURCES, control=True)
def grow_the_buffers_of_sockets(target: Target) -> str:
    """Asks for large buffers, reads fast to be given them, and counts what two sockets hold."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sender:
        sender.connect(server.getsockname())
        reader, _ = server.accept()
        unix = socket.socketpair()
        held = 0
        for one in (sender, reader, *unix):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                one.setsockopt(socket.SOL_SOCKET, option, 64 << 20)
            one.setblocking(False)
        for one in (sender, unix[0]):
            with contextlib.suppress(BlockingIOError):
                while held < 16 << 20:
                    held += one.send(bytes(1 << 16))
        for one in (reader, *unix):
            one.close()
    return f"{held >> 10} KiB" if held > 1 << 20 else ""
