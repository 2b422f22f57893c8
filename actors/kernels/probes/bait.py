"""Things of the host that no sandbox may reach: servers, files, a process, shared memory."""

import contextlib
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from actors.kernels.probes.inside import LIBC, Target, system_call
from common.config import Kernel

SECRET_VARIABLE = "LZERO_BAIT_API_KEY"
_OPEN_FILES = 256
_IPC_CREATE, _IPC_REMOVE = 0o1000, 0
_SEGMENT_BYTES = 4096
_SHARED_MEMORY = Path("/dev/shm")
_SETTINGS = (
    *("/proc/sys/kernel/pid_max", "/proc/sys/kernel/msgmax", "/proc/sys/kernel/shmmni"),
    *("/proc/sys/fs/mqueue/msg_max", "/proc/sys/net/ipv4/ip_default_ttl"),
    *("/proc/sys/net/core/somaxconn", "/proc/sys/user/max_user_namespaces"),
)


@dataclass(frozen=True, slots=True)
class Bait:
    """What is laid out, and what looks whether somebody took it."""

    target: Target
    secret: str
    _listeners: list[socket.socket] = field(repr=False)
    _settings: dict[str, str] = field(repr=False)

    def taken(self) -> list[str]:
        """Servers of the host that were reached and settings that changed; empty is good."""
        found = [path for path, text in _read_settings().items() if text != self._settings[path]]
        for listener in self._listeners:
            with contextlib.suppress(BlockingIOError):
                if listener.type == socket.SOCK_DGRAM:
                    listener.recv(1)
                else:
                    listener.accept()[0].close()
                found.append(str(listener.getsockname()))
        return found


@contextmanager
def laid_out(limits: Kernel) -> Iterator[Bait]:
    """Lay out everything, for kernels with ``limits``, and clear it away again."""
    token = secrets.token_hex(5)
    secret = f"sk-bait-{secrets.token_hex(12)}"
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="lzero-bait-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, folder)
        (folder / "secret").write_text(secret)
        _set_variable(stack, secret)
        listeners = [stack.enter_context(made) for made in _listeners(folder, token)]
        for listener in listeners:
            listener.setblocking(False)
        target = Target(
            token=token,
            folder=str(folder),
            file=str(folder / "secret"),
            repository=str(Path(__file__).resolve().parents[3]),
            socket_path=str(folder / "socket"),
            abstract=f"bait-{token}",
            tcp_port=listeners[0].getsockname()[1],
            tcp6_port=_port_of(listeners, socket.AF_INET6),
            udp_port=listeners[1].getsockname()[1],
            shared_memory=_make_segment(stack),
            settings=list(_SETTINGS),
            posix_memory=_make_shared_file(stack, token),
            pid=_start_process(stack),
            victim_pid=0,  # unknown before the sibling runs, see run.py
            processes=limits.processes,
            memory_mib=limits.memory_mib,
            sandbox_memory_mib=limits.sandbox_memory_mib,
            workspace_mib=limits.workspace_mib,
            inodes=limits.inodes,
            open_files=_OPEN_FILES,
            cpu_s=limits.cpu_s,
        )
        yield Bait(target, secret, listeners, _read_settings())


def _read_settings() -> dict[str, str]:
    """The host's values; settings that this Linux lacks are empty."""
    texts = {}
    for path in _SETTINGS:
        with contextlib.suppress(OSError):
            texts[path] = Path(path).read_text()
    return {path: texts.get(path, "") for path in _SETTINGS}


def _set_variable(stack: contextlib.ExitStack, secret: str) -> None:
    os.environ[SECRET_VARIABLE] = secret
    stack.callback(os.environ.pop, SECRET_VARIABLE, None)


def _listeners(folder: Path, token: str) -> Iterator[socket.socket]:
    """TCP, UDP, unix by path, unix by abstract name, and TCP over IPv6 where there is IPv6."""
    yield socket.create_server(("127.0.0.1", 0))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    yield datagrams
    for name in (str(folder / "socket"), f"\0bait-{token}"):
        handle = socket.socket(socket.AF_UNIX)
        handle.bind(name)
        handle.listen()
        yield handle
    with contextlib.suppress(OSError):
        yield socket.create_server(("::1", 0), family=socket.AF_INET6)


def _port_of(listeners: list[socket.socket], family: int) -> int:
    ports = [one.getsockname()[1] for one in listeners if one.family == family]
    return int(ports[0]) if ports else 9


def _make_segment(stack: contextlib.ExitStack) -> int:
    """A System V segment that every user may attach; its key, 0 where the machine has none."""
    key = secrets.randbelow(1 << 30) + 1
    try:
        number = system_call("shmget", key, _SEGMENT_BYTES, _IPC_CREATE | 0o666)
    except OSError:
        return 0
    stack.callback(LIBC.shmctl, ctypes.c_int(number), _IPC_REMOVE, None)
    return key


def _make_shared_file(stack: contextlib.ExitStack, token: str) -> str:
    file = _SHARED_MEMORY / f"bait-{token}"
    with contextlib.suppress(OSError):
        file.write_text("a secret")
        file.chmod(0o666)
        stack.callback(file.unlink)
    return file.name


def _start_process(stack: contextlib.ExitStack) -> int:
    process = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process.pid
