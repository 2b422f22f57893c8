"""A Jupyter kernel provisioner that runs any kernel in a bubblewrap sandbox (level B).

Registered as ``lzero-bwrap``; a kernelspec chooses it in its metadata:
``{"kernel_provisioner": {"provisioner_name": "lzero-bwrap"}}``. The kernel's ZeroMQ sockets are
unix sockets on a private, size-limited tmpfs, which the host reaches through a descriptor.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from typing import Any

import msgpack
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerBase
from traitlets import Integer

from actors.kernels import bubblewrap
from actors.kernels.interface import KernelDied
from actors.kernels.runtime import find_runtime
from actors.kernels.sandboxed.cold import CONNECTION_FILE, FOLDER
from common.config import Kernel as KernelConfig

_MODULE = "actors.kernels.sandboxed.cold"
_START_TIMEOUT_S = 30.0
_PORTS = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5}
_DEFAULTS = KernelConfig()


class BwrapProvisioner(KernelProvisionerBase):  # type: ignore[misc]
    """Starts one kernel per sandbox; ``kill`` ends the sandbox."""

    memory_mib = Integer(_DEFAULTS.memory_mib, config=True)
    workspace_mib = Integer(_DEFAULTS.workspace_mib, config=True)
    processes = Integer(_DEFAULTS.processes, config=True)

    def __init__(self, **keywords: Any) -> None:
        """Called by Jupyter."""
        super().__init__(**keywords)
        self.tools: socket.socket | None = None
        self.gone = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._descriptors: list[int] = []

    @property
    def has_process(self) -> bool:
        """Whether a sandbox was started."""
        return self._process is not None

    async def poll(self) -> int | None:
        """None while the sandbox lives."""
        return 0 if self._process is None or self.gone.is_set() else None

    async def wait(self) -> int | None:
        """Wait until the sandbox is gone."""
        if self._process is not None:
            await self.gone.wait()
            await asyncio.to_thread(self._process.wait)
        return 0

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel."""
        if self._process is not None and not self.gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptors[1], signum)

    async def kill(self, restart: bool = False) -> None:
        """Kill the whole sandbox."""
        self.kill_now()

    async def terminate(self, restart: bool = False) -> None:
        """Kill the whole sandbox: there is nothing worth saving in it."""
        self.kill_now()

    def kill_now(self) -> None:
        """Kill the whole sandbox, without waiting."""
        if self._process is not None:
            self._process.kill()
        if self._descriptors and not self.gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptors[0], signal.SIGKILL)

    async def pre_launch(self, **keywords: Any) -> dict[str, Any]:
        """The kernelspec's command and environment; the host's environment stays outside."""
        specification = self.kernel_spec
        command = [
            part.replace("{connection_file}", CONNECTION_FILE) for part in specification.argv
        ]
        if os.path.basename(command[0]).startswith("python"):
            command[0] = bubblewrap.PYTHON
        return {"cmd": command, "env": dict(specification.env)}

    async def launch_kernel(self, cmd: list[str], **keywords: Any) -> KernelConnectionInfo:
        """Start the sandbox and the kernel in it.

        Raises:
            KernelDied: it did not start.
        """
        key = os.urandom(16).hex()
        inside = self._connection(f"{FOLDER}/kernel", key)
        self.tools, theirs = socket.socketpair()
        with theirs:
            message = ["start", cmd, keywords.get("env", {}), json.dumps(inside), self._limits()]
            await self._start(message, theirs)
        outside = self._connection(f"/proc/self/fd/{self._descriptors[2]}/kernel", key)
        self._tell_manager(outside)
        return {**outside, "key": key.encode()}

    async def cleanup(self, restart: bool = False) -> None:
        """Close what belongs to the sandbox."""
        descriptors, self._descriptors = self._descriptors, []
        if descriptors and not self.gone.is_set():
            asyncio.get_running_loop().remove_reader(descriptors[0])
        for descriptor in descriptors:
            os.close(descriptor)

    async def _start(self, message: list[Any], tools: socket.socket) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with ours, theirs:
            sandbox = bubblewrap.Sandbox(
                runtime=find_runtime(),
                workspace_mib=self.workspace_mib,
                nested=True,
                folders=(FOLDER,),
            )
            command = [bubblewrap.PYTHON, "-s", "-P", "-m", _MODULE]
            self._process = bubblewrap.start(sandbox, command, stdin=theirs.fileno())
            theirs.close()
            socket.send_fds(ours, [msgpack.packb(message)], [tools.fileno()])
            try:
                self._descriptors = await asyncio.wait_for(_answer(ours), _START_TIMEOUT_S)
            except (KernelDied, TimeoutError) as error:
                self._process.kill()
                self.gone.set()
                raise KernelDied(f"the sandbox did not start: {str(error) or 'time-out'}") from None
        asyncio.get_running_loop().add_reader(self._descriptors[0], self._on_gone)

    def _on_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptors[0])
        self.gone.set()

    def _limits(self) -> dict[str, int]:
        names = ("memory_mib", "workspace_mib", "processes")
        return {name: getattr(self, name) for name in names}

    def _connection(self, place: str, key: str) -> dict[str, Any]:
        scheme = {"transport": "ipc", "ip": place, "signature_scheme": "hmac-sha256", "key": key}
        return {**_PORTS, **scheme, "kernel_name": self.kernel_spec.display_name}

    def _tell_manager(self, connection: dict[str, Any]) -> None:
        """Load the connection, and let the manager find it in a memory file instead of on disk."""
        memory = os.memfd_create("connection")
        os.write(memory, json.dumps(connection).encode())
        self._descriptors.append(memory)
        self.parent.load_connection_info({**connection, "key": connection["key"].encode()})
        self.parent.connection_file = f"/proc/self/fd/{memory}"


async def _answer(control: socket.socket) -> list[int]:
    """Wait for the three descriptors.

    Raises:
        KernelDied: the sandbox died or said why it cannot start.
    """
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(control.fileno(), _resolve, readable)
    try:
        await readable
    finally:
        loop.remove_reader(control.fileno())
    data, descriptors, _, _ = socket.recv_fds(control, 8192, 3, socket.MSG_CMSG_CLOEXEC)
    if not data:
        raise KernelDied("it died before the kernel ran")
    answer = msgpack.unpackb(data)
    if answer[0] != "started":
        raise KernelDied(answer[1])
    return descriptors


def _resolve(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
