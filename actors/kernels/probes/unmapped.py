"""Attacks that keep memory which no process has mapped, so that nothing in /proc tells of it."""

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import struct
import time

from actors.kernels.probes.inside import LIBC, Target, not_refused, system_call
from actors.kernels.probes.probe import Family, ProbeOutcome, attack


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


@attack(Family.RESOURCES, ProbeOutcome.BLOCKED, ProbeOutcome.KILLED, timeout_s=20)
def hoard_memory_in_sockets(target: Target) -> str:
    """Fills hundreds of sockets that nobody reads in each of many processes."""
    told, tell = os.pipe()
    children: list[int] = []
    for _ in range(24):
        pid = os.fork()
        if pid == 0:
            held, pairs = 0, []
            with contextlib.suppress(OSError):
                while True:
                    pairs.append(socket.socketpair())
                    for one in pairs[-1]:
                        one.setblocking(False)
                        with contextlib.suppress(BlockingIOError):
                            while held < 96 << 20:
                                held += one.send(bytes(1 << 16))
            os.write(tell, held.to_bytes(8, "little"))
            time.sleep(30)
            os._exit(0)
        children.append(pid)
    held = sum(int.from_bytes(os.read(told, 8), "little") for _ in children)
    time.sleep(1.5)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return f"{held >> 20} MiB in sockets" if held >> 20 > target.sandbox_memory_mib else ""


@attack(Family.RESOURCES, ProbeOutcome.BLOCKED, ProbeOutcome.KILLED, timeout_s=20)
def hoard_memory_in_connections_nobody_accepts(target: Target) -> str:
    """Connects to itself, fills the connection and closes it, again and again, in one process."""
    held, most, servers = 0, (target.sandbox_memory_mib + 64) << 20, []
    with contextlib.suppress(OSError):
        while held < most:
            servers.append(socket.socket(socket.AF_UNIX))
            servers[-1].bind("")
            servers[-1].listen(4096)
            with contextlib.suppress(BlockingIOError):
                while held < most:
                    with socket.socket(socket.AF_UNIX) as sender:
                        sender.setblocking(False)
                        sender.connect(servers[-1].getsockname())
                        with contextlib.suppress(BlockingIOError):
                            while True:
                                held += sender.send(bytes(1 << 16))
    time.sleep(5)
    for server in servers:
        server.close()
    return f"{held >> 20} MiB in sockets" if held >= most else ""


@attack(Family.RESOURCES, control=True)
def keep_access_lists_on_files(target: Target) -> str:
    """Gives a file a list of who may read it, which may be 64 KiB long and counts as no file's."""
    path = f"/tmp/listed-{target.token}"
    entries = ((1, 7, -1), (2, 7, os.getuid()), (4, 7, -1), (16, 7, -1), (32, 5, -1))
    packed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
    with open(path, "wb") as file:
        try:
            os.setxattr(file.fileno(), "system.posix_acl_access", struct.pack("<I", 2) + packed)
        finally:
            os.remove(path)
    return f"{len(entries)} entries"


@attack(Family.RESOURCES)
def keep_rules_for_files_it_never_opens(target: Target) -> str:
    """Makes a set of Landlock rules, which grows without bound."""
    return not_refused(
        ("landlock_create_ruleset", (struct.pack("QQQ", 0, 3, 0), 24, 0)),
        ("landlock_add_rule", (-1, 2, bytes(16), 0)),
        ("landlock_restrict_self", (-1, 0)),
    )


@attack(Family.RESOURCES)
def ask_for_a_larger_table_of_futexes(target: Target) -> str:
    """Has Linux keep a table for its locks; with the most entries that is a gibibyte."""
    made = LIBC.prctl(78, 1, ctypes.c_ulong(1024), ctypes.c_ulong(0), 0)
    return "1024 entries" if made == 0 else ""
