"""A Jupyter kernel provisioner that runs any kernel in a bubblewrap sandbox (level B).

Registered as ``lzero-bwrap``; a kernelspec chooses it in its metadata, as the installed one
``lzero-sandbox`` does: ``{"kernel_provisioner": {"provisioner_name": "lzero-bwrap"}}``. The
kernel's ZeroMQ sockets are unix sockets on a private, size-limited tmpfs, which this process and
others of its user reach through a descriptor of it: nothing is left on disk. It works under the
blocking managers too, whose event loop runs only during calls.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from functools import cache
from typing import Any

import msgpack
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerBase
from traitlets import Bool, Integer

from actors.kernels import bubblewrap, sandbox_end
from actors.kernels.descriptors import is_readable, moved, readable
from actors.kernels.interface import DeathCause, KernelDiedError
from actors.kernels.limits.host_uids import HostUids, UidLease, release
from actors.kernels.runtime import RuntimePaths, find_runtime
from actors.kernels.sandboxed.jupyter_start import CONNECTION_FILE, FOLDER
from common.config import Kernel as KernelConfig

_MODULE = "actors.kernels.sandboxed.jupyter_start"
_START_TIMEOUT_S = 30.0
_ANSWER_BYTES = 8192
_PORTS = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5}
_DEFAULTS = KernelConfig()
LIMITS = ("memory_mib", "workspace_mib", "inodes", "processes", "cpu_s")
"""What a kernelspec can set in its provisioner's config; see ``sandboxed/isolation.py``."""
UIDS = ("first_uid", "uids")
"""What it can set too; see ``host_uids.py``."""


class BwrapProvisioner(KernelProvisionerBase):  # type: ignore[misc]
    """Starts one kernel per sandbox; ``kill`` ends the sandbox.

    Attributes:
        memory_mib: and the other limits are those of ``sandboxed.isolation.Limits``.
        capture: the kernel's descriptors 1 and 2 are a memory file instead of /dev/null.
    """

    memory_mib = Integer(_DEFAULTS.memory_mib, config=True)
    workspace_mib = Integer(_DEFAULTS.workspace_mib, config=True)
    inodes = Integer(_DEFAULTS.inodes, config=True)
    processes = Integer(_DEFAULTS.processes, config=True)
    cpu_s = Integer(0, config=True)
    first_uid = Integer(_DEFAULTS.first_uid, config=True)
    uids = Integer(_DEFAULTS.uids, config=True)
    capture = Bool(False, config=True)

    def __init__(self, **keywords: Any) -> None:
        """Called by Jupyter."""
        super().__init__(**keywords)
        self._tools: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._pidfds: list[int] = []
        self._lease: UidLease | None = None
        self._folder = self._connection_file = -1

    @property
    def has_process(self) -> bool:
        """Whether a sandbox was started and not yet waited for."""
        return self._process is not None

    @property
    def pidfds(self) -> tuple[int, ...]:
        """Of the sandbox's pid 1 and of the kernel, while there is a sandbox."""
        return tuple(self._pidfds)

    @property
    def gone(self) -> bool:
        """Whether every process of the sandbox is gone."""
        return not self._pidfds or is_readable(self._pidfds[0])

    def take_tools(self) -> socket.socket:
        """The host's end of the kernel's tool socket, for the caller to keep.

        Raises:
            KernelDiedError: there is no kernel, or it was taken before.
        """
        tools, self._tools = self._tools, None
        if tools is None:
            raise KernelDiedError("it has no tool socket")
        return tools

    async def poll(self) -> int | None:
        """None while the sandbox lives."""
        return 0 if self.gone else None

    async def wait(self) -> int | None:
        """Wait until the sandbox is gone."""
        await self.wait_gone()
        if self._process is not None:
            await sandbox_end.end(self._process)
            self._process = None
        release(self._lease)
        return 0

    async def wait_gone(self) -> None:
        """Wait until every process of the sandbox is gone."""
        if self._pidfds:
            await readable(self._pidfds[0])

    def exit_code(self) -> int | None:
        """How the kernel ended, or minus the signal that did it; None if nobody knows."""
        if self._control is None:
            return None
        with contextlib.suppress(Exception):  # the sandbox may send anything
            match msgpack.unpackb(self._control.recv(_ANSWER_BYTES)):
                case ["exited", int(code)]:
                    return code
        return None

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel."""
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfds[1], signum)

    async def kill(self, restart: bool = False) -> None:
        """Kill the whole sandbox."""
        self.kill_now()

    async def terminate(self, restart: bool = False) -> None:
        """Kill the whole sandbox: there is nothing worth saving in it."""
        self.kill_now()

    def kill_now(self) -> None:
        """Kill the whole sandbox, without waiting."""
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfds[0], signal.SIGKILL)
        if self._process is not None:
            sandbox_end.kill(self._process)

    async def pre_launch(self, **keywords: Any) -> dict[str, Any]:
        """The kernelspec's command and environment; the host's environment stays outside."""
        command = [*self.kernel_spec.argv, *keywords.get("extra_arguments", ())]
        command = [part.replace("{connection_file}", CONNECTION_FILE) for part in command]
        if os.path.basename(command[0]).startswith("python"):
            command[0] = bubblewrap.PYTHON
        return {"cmd": command, "env": dict(self.kernel_spec.env)}

    async def launch_kernel(self, cmd: list[str], **keywords: Any) -> KernelConnectionInfo:
        """Start the sandbox and the kernel in it.

        A restarted kernel gets the addresses and the key of the one before, so that clients find
        it again.

        Raises:
            KernelDiedError: it did not start.
            MachineError: this machine cannot run the sandbox; the message says what to do.
        """
        runtime, key = find_runtime(), self.parent.session.key
        inside = self._connection(f"{FOLDER}/kernel", key.decode())
        self._tools, theirs = socket.socketpair()
        with theirs:
            environment = keywords.get("env", {})
            message = ["start", cmd, environment, json.dumps(inside), self._limits(), self.capture]
            folder = await self._start(runtime, message, theirs)
        self._folder = moved(folder, self._folder)
        outside = self._connection(f"/proc/{os.getpid()}/fd/{self._folder}/kernel", key.decode())
        self._tell_manager(outside)
        return {**outside, "key": key}

    async def cleanup(self, restart: bool = False) -> None:
        """Close what belongs to the sandbox; addresses are kept for a restart."""
        for descriptor in self._pidfds:
            os.close(descriptor)
        self._pidfds = []
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._tools is not None:
            self._tools.close()
            self._tools = None
        if not restart:
            for descriptor in {self._folder, self._connection_file} - {-1}:
                os.close(descriptor)
            self._folder = self._connection_file = -1

    async def _start(self, runtime: RuntimePaths, message: list[Any], tools: socket.socket) -> int:
        """Start the sandbox; a descriptor of the folder with its sockets."""
        sandbox = bubblewrap.OuterSandbox(
            runtime=runtime, workspace_mib=self.workspace_mib, nested=True, folders=(FOLDER,)
        )
        command = [bubblewrap.PYTHON, "-s", "-P", "-m", _MODULE]
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        try:
            with theirs:
                self._process = self._start_process(sandbox, command, theirs)
            socket.send_fds(self._control, [msgpack.packb(message)], [tools.fileno()])
            answer = await asyncio.wait_for(_answer(self._control), _START_TIMEOUT_S)
        except (KernelDiedError, OSError, TimeoutError) as error:
            await self._give_up()
            bubblewrap.check_sandbox(runtime)
            text = str(error) or f"no answer for {_START_TIMEOUT_S:g} s"
            text = "it died at once" if isinstance(error, ConnectionError) else text
            reason = f"the sandbox did not start: {text}"
            raise KernelDiedError(reason, DeathCause.FAILED_TO_START) from None
        *self._pidfds, folder = answer
        return folder

    def _start_process(
        self, sandbox: bubblewrap.OuterSandbox, command: list[str], control: socket.socket
    ) -> "subprocess.Popen[bytes]":
        """As root with a user id of its own; other users could not reach its sockets then."""
        if os.geteuid() == 0:
            self._lease = _host_uids(self.first_uid, self.uids).lease()
        uid = self._lease.uid if self._lease else bubblewrap.HOST_UID
        return bubblewrap.start(sandbox, command, uid=uid, stdin=control.fileno())

    async def _give_up(self) -> None:
        """End a sandbox that did not come up; the manager will not clean up."""
        if self._process is not None:
            await sandbox_end.end(self._process)
            self._process = None
        release(self._lease)
        await self.cleanup()

    def _limits(self) -> dict[str, int]:
        limits = {name: getattr(self, name) for name in LIMITS}
        return {**limits, "file_mib": self.workspace_mib}

    def _connection(self, place: str, key: str) -> dict[str, Any]:
        scheme = {"transport": "ipc", "ip": place, "signature_scheme": "hmac-sha256", "key": key}
        return {**_PORTS, **scheme, "kernel_name": self.kernel_spec.display_name}

    def _tell_manager(self, connection: dict[str, Any]) -> None:
        """Load the connection, and let the manager find it in a memory file instead of on disk."""
        memory = os.memfd_create("connection")
        os.write(memory, json.dumps(connection).encode())
        self._connection_file = moved(memory, self._connection_file)
        self.parent.load_connection_info(connection)
        self.parent.connection_file = f"/proc/{os.getpid()}/fd/{self._connection_file}"


@cache
def _host_uids(first: int, count: int) -> HostUids:
    """One for all kernels, so that where they share an id that is said once."""
    return HostUids(first, count)


async def _answer(control: socket.socket) -> list[int]:
    """Wait for the three descriptors.

    Raises:
        KernelDiedError: the sandbox died or said why it cannot start.
    """
    await readable(control.fileno())
    data, descriptors, _, _ = socket.recv_fds(control, _ANSWER_BYTES, 3, socket.MSG_CMSG_CLOEXEC)
    if not data:
        raise KernelDiedError("it died before the kernel ran")
    answer = msgpack.unpackb(data)
    if answer[0] != "started":
        raise KernelDiedError(answer[1])
    return descriptors
