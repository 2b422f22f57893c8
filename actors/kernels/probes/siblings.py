"""Attacks on other kernels and processes: signals, tracing, shared memory, sockets, files.

The sibling runs ``stand_by`` first: it listens, and leaves files where it can.
"""

import contextlib
import ctypes
import glob
import os
import resource
import signal
import socket
import threading
import time

from actors.kernels.probes.inside import LIBC, VICTIM_PORT, Target, system_call
from actors.kernels.probes.probe import Family, ProbeOutcome, attack


@attack(Family.SIBLINGS)
def stand_by(target: Target) -> str:
    """No attack: what the sibling does first, to be found by the others."""
    LIBC.prctl(15, f"v-{target.token}".encode(), 0, 0, 0)
    folders = ["/tmp", "/dev/shm", "/workspace", *glob.glob("/proc/[0-9]*/cwd")]
    for folder in folders:
        with contextlib.suppress(OSError), open(f"{folder}/victim-{target.token}", "w") as file:
            file.write("left by the sibling")
    os.write(os.openpty()[1], b"typed by the sibling")
    with contextlib.suppress(OSError):
        os.utime("/dev/null", (VICTIM_PORT, VICTIM_PORT))
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", VICTIM_PORT)),
        (socket.AF_UNIX, f"\0victim-{target.token}"),
    ):
        server = socket.create_server(address) if family == 2 else socket.socket(family)
        if family == socket.AF_UNIX:
            server.bind(address)
            server.listen()
        threading.Thread(target=server.accept, daemon=True).start()
    return ""


@attack(Family.SIBLINGS)
def reach_servers_of_a_sibling(target: Target) -> str:
    """Connects to a TCP port and an abstract socket that a sibling listens on."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", VICTIM_PORT), timeout=1).close()
        return "its TCP port"
    with socket.socket(socket.AF_UNIX) as handle:
        handle.connect(f"\0victim-{target.token}")
    return "its abstract socket"


@attack(Family.SIBLINGS)
def read_files_of_a_sibling(target: Target) -> str:
    """Looks for files that a sibling left in any folder that one of its processes can name."""
    folders = ["/tmp", "/dev/shm", "/workspace", *glob.glob("/proc/[0-9]*/cwd")]
    paths = [f"{folder}/victim-{target.token}" for folder in folders]
    return ", ".join(path for path in paths if os.path.exists(path))


@attack(Family.SIBLINGS)
def read_terminals_of_a_sibling(target: Target) -> str:
    """Opens every pseudo-terminal there is; a sibling has one."""
    return ", ".join(name for name in os.listdir("/dev/pts") if name.isdigit())


@attack(Family.SIBLINGS)
def read_times_of_device_nodes(target: Target) -> str:
    """Looks for a time that a sibling set on /dev/null, and sets one itself."""
    if os.stat("/dev/null").st_mtime == VICTIM_PORT:
        return "the sibling's time"
    os.utime("/dev/null")
    return "its times can be set"


@attack(Family.SIBLINGS, control=True)
def signal_processes_by_number(target: Target) -> str:
    """Signals a process of the host and a sibling by their numbers on the host."""
    reached = []
    for pid in (target.pid, target.victim_pid):
        if pid > 2:
            with contextlib.suppress(OSError):
                os.kill(pid, 0)
                reached.append(str(pid))
            with contextlib.suppress(OSError):
                os.close(os.pidfd_open(pid))
                reached.append(f"pidfd of {pid}")
    return ", ".join(reached)


@attack(Family.SIBLINGS, ProbeOutcome.BLOCKED, ProbeOutcome.KILLED)
def kill_everybody(target: Target) -> str:
    """Sends SIGKILL to every process it may signal; only its own sandbox may suffer."""
    os.kill(-1, signal.SIGKILL)
    return ""


@attack(Family.SIBLINGS, ProbeOutcome.BLOCKED, ProbeOutcome.KILLED)
def kill_pid_1(target: Target) -> str:
    """Signals its pid 1 in every deadly way; at most its own sandbox ends."""
    for number in (signal.SIGTERM, signal.SIGSEGV, signal.SIGBUS, signal.SIGKILL, signal.SIGSTOP):
        with contextlib.suppress(OSError):
            os.kill(1, number)
    return ""


@attack(Family.SIBLINGS, ProbeOutcome.BLOCKED, ProbeOutcome.KILLED)
def starve_pid_1(target: Target) -> str:
    """Leaves its pid 1 no CPU time, then makes it work; at most its own sandbox ends."""
    resource.prlimit(1, resource.RLIMIT_CPU, (0, 0))
    end = time.monotonic() + 2
    while time.monotonic() < end:
        if os.fork() == 0:
            os.fork()
            os._exit(0)
        os.wait()
    return ""


@attack(Family.SIBLINGS, control=True)
def trace_another_process(target: Target) -> str:
    """Attaches to pid 1, a sibling and a process of the host as a debugger."""
    attached = []
    for pid in {1 if os.getpid() < 100 else target.pid, target.pid, target.victim_pid} - {0}:
        for request in (0x4206, 16):  # seize, attach
            with contextlib.suppress(OSError):
                system_call("ptrace", request, pid, None, None)
                attached.append(str(pid))
                system_call("ptrace", 17, pid, None, None)
    return ", ".join(attached)


@attack(Family.SIBLINGS, control=True)
def read_memory_of_another_process(target: Target) -> str:
    """Reads another process's memory and copies its descriptors by system calls."""
    parent = os.getppid() if os.getpid() < 100 else target.pid
    buffer = ctypes.create_string_buffer(64)
    vector = ctypes.create_string_buffer(
        ctypes.addressof(buffer).to_bytes(8, "little") + (64).to_bytes(8, "little"), 16
    )
    for pid in {parent, target.pid, target.victim_pid} - {0}:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps") as maps:
            start = int(maps.readline().split("-")[0], 16)
            remote = ctypes.create_string_buffer(
                start.to_bytes(8, "little") + (64).to_bytes(8, "little"), 16
            )
            count = system_call("process_vm_readv", pid, vector, 1, remote, 1, 0)
            return f"{count} bytes of process {pid}"
    return ""


@attack(Family.SIBLINGS, control=True)
def steal_a_descriptor(target: Target) -> str:
    """Copies descriptor 0 of another process by pidfd_getfd."""
    stolen = []
    for pid in {os.getppid(), target.pid} - {0}:
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            stolen.append(f"{system_call('pidfd_getfd', pidfd, 0, 0)} of {pid}")
            os.close(pidfd)
    return ", ".join(stolen)


@attack(Family.SIBLINGS, control=True)
def share_memory_with_the_host(target: Target) -> str:
    """Opens a System V segment and a POSIX shared memory file of the host."""
    with contextlib.suppress(OSError), open(f"/dev/shm/{target.posix_memory}", "rb") as file:
        return f"/dev/shm: {file.read()!r}"
    return f"segment {system_call('shmget', target.shared_memory, 0, 0)}"


@attack(Family.SIBLINGS)
def make_ipc_objects(target: Target) -> str:
    """Makes System V and POSIX message queues, semaphores and segments, which no limit bounds."""
    made = []
    for name, arguments in (
        ("shmget", (0, 4096, 0o1600)),
        ("msgget", (0, 0o1600)),
        ("semget", (0, 1, 0o1600)),
        ("mq_open", (f"q-{target.token}".encode(), 0o102, 0o600, None)),
    ):
        with contextlib.suppress(OSError):
            made.append(f"{name} {system_call(name, *arguments)}")
    return ", ".join(made)


@attack(Family.SIBLINGS, control=True)
def use_keyrings(target: Target) -> str:
    """Reads the session keyring and adds a key, which all processes of a user share."""
    done = []
    for name, arguments in (
        ("keyctl", (0, -3, 0)),
        ("add_key", (b"user", f"k-{target.token}".encode(), b"x", 1, -3)),
        ("request_key", (b"user", b"nobody", None, 0)),
    ):
        with contextlib.suppress(OSError):
            done.append(f"{name} {system_call(name, *arguments)}")
    return ", ".join(done)
