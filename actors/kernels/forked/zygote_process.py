"""The host's handle on the zygote: starts it, asks it for forks, notices its death."""

import asyncio
import itertools
import json
import logging
import os
import socket
import subprocess
import tempfile
from dataclasses import asdict, replace
from typing import IO

import msgpack

from actors.kernels import bubblewrap
from actors.kernels.exits import how_it_ended
from actors.kernels.interface import DeathCause, KernelDiedError
from actors.kernels.limits.id_ranges import Source
from actors.kernels.limits.user_namespaces import CHANGES_USER, zygote_namespace
from actors.kernels.piped import Handles
from actors.kernels.runtime import RuntimePaths
from actors.kernels.sandboxed.isolation import Limits
from common.errors import MachineError

_LOGGER = logging.getLogger(__name__)
_CONTROL_BYTES = 8192
_END_S = 1.0
"""How long a zygote that is not alive may take to end."""
_LAST_WORDS = 300
_MODULE = "actors.kernels.sandboxed.zygote"


class ZygoteProcess:
    """One running zygote."""

    def __init__(
        self,
        runtime: RuntimePaths,
        limits: Limits,
        *,
        timeout_s: float,
        modules: tuple[str, ...] = (),
        uids: Source | None = None,
    ) -> None:
        """Make a handle; ``start`` starts the process, which imports ``modules`` first.

        Its forks can have the ids of ``uids``.
        """
        self._uids = uids
        self._modules = modules
        self._runtime, self._limits, self._timeout_s = runtime, limits, timeout_s
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[int, int]]] = {}
        self._control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()

    @property
    def changes_users(self) -> bool:
        """Whether its forks can have user ids of their own."""
        return self._uids is not None

    @property
    def alive(self) -> bool:
        """Whether it can still fork."""
        return self._ready.done() and not self._gone.is_set()

    async def start(self) -> None:
        """Start the process and wait until it can fork.

        Raises:
            MachineError: it did not come up; its last words are in the message.
            NoHostUidsError: its namespace could not be made.
        """
        self._control.setblocking(False)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        try:
            with self._theirs:
                self._process = self._start_process(self._errors)
        except BaseException:
            self._control.close()
            self._errors.close()
            raise
        asyncio.get_running_loop().add_reader(self._control.fileno(), self._on_readable)
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), self._timeout_s)
        except (TimeoutError, KernelDiedError) as error:
            words = self._last_words()
            await self.close()
            raise MachineError(
                f"the kernels' zygote did not start ({str(error) or 'time-out'}): {words}. "
                f"{bubblewrap.advice(words)}"
            ) from None

    def _start_process(self, errors: IO[bytes]) -> "subprocess.Popen[bytes]":
        sandbox = bubblewrap.OuterSandbox(
            runtime=self._runtime, workspace_mib=self._limits.workspace_mib, nested=True
        )
        command = [bubblewrap.PYTHON, "-s", "-P", "-m", _MODULE]
        command += [json.dumps(asdict(self._limits)), *self._modules]
        control = self._theirs.fileno()
        if self._uids is None:
            return bubblewrap.start(sandbox, command, stdin=control, stderr=errors.fileno())
        with zygote_namespace(self._uids) as namespace:
            return bubblewrap.start(
                replace(sandbox, user_namespace=namespace, capabilities=CHANGES_USER),
                command,
                uid=self._uids.zygote,
                stdin=control,
                stderr=errors.fileno(),
            )

    async def fork(self, uid: int = 0) -> Handles:
        """Ask for a fresh sandbox, of user id ``uid`` on the host if that is not 0.

        Raises:
            KernelDiedError: the fork failed, or the zygote died or hung.
        """
        if not self.alive:
            raise KernelDiedError("the zygote is not running", DeathCause.LAUNCHER_DIED)
        number = next(self._numbers)
        ours, theirs = socket.socketpair()
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            with theirs:
                message = msgpack.packb(["fork", number, uid])
                await self._send(message, theirs)
            init, kernel = await asyncio.wait_for(asyncio.shield(answer), self._timeout_s)
        except BaseException as error:
            ours.close()
            answer.add_done_callback(_close_late_fork)
            if isinstance(error, TimeoutError | OSError):
                await self._notice_death(error)
                raise KernelDiedError(
                    f"the zygote did not fork: {str(error) or 'time-out'}",
                    DeathCause.FAILED_TO_START,
                ) from None
            raise
        finally:
            self._waiting.pop(number, None)
        ours.setblocking(False)
        return Handles(connection=ours, init=init, kernel=kernel)

    async def _notice_death(self, error: OSError) -> None:
        """A broken pipe is its death, which the loop may not have seen yet."""
        if not isinstance(error, TimeoutError):
            await asyncio.wait_for(self._gone.wait(), self._timeout_s)

    async def ending(self) -> str:
        """How it ended, once it is not alive: in words, with its last ones."""
        status = await asyncio.to_thread(self._status, _END_S)
        words = self._last_words()[-_LAST_WORDS:]
        how = "closed its channel" if status is None else how_it_ended(status)
        return f"{how}: {words}" if words else how

    def _status(self, seconds: float) -> int | None:
        """Exit code, or minus a signal, of the sandbox, which says 128 + n for a signal inside."""
        try:
            status = self._process.wait(seconds) if self._process is not None else None
        except subprocess.TimeoutExpired:
            return None
        return 128 - status if status is not None and status > 128 else status

    async def close(self) -> None:
        """Kill the zygote and every kernel it forked; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None
            await self._gone.wait()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    async def _send(self, message: bytes, descriptor: socket.socket) -> None:
        """Send, waiting for room while many forks are queued."""
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        while True:
            try:
                socket.send_fds(self._control, [message], [descriptor.fileno()])
                return
            except BlockingIOError:
                if asyncio.get_running_loop().time() > deadline:
                    raise TimeoutError from None
                await asyncio.sleep(0.005)

    def _on_readable(self) -> None:
        try:
            data, descriptors = _receive(self._control)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._on_death()
            return
        message = msgpack.unpackb(data)
        if message[0] == "ready":
            self._ready.set_result(None)
            return
        answer = self._waiting.get(message[1])
        if answer is None or answer.done():
            _close_all(descriptors)
        elif message[0] == "forked":
            answer.set_result((descriptors[0], descriptors[1]))
        else:
            answer.set_exception(
                KernelDiedError(
                    f"a sandbox could not be set up: {message[2]}", DeathCause.FAILED_TO_START
                )
            )

    def _on_death(self) -> None:
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        self._gone.set()
        died = KernelDiedError("the zygote died", DeathCause.LAUNCHER_DIED)
        if not self._ready.done():
            self._ready.set_exception(died)
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(died)

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return self._errors.read()[-2000:].decode("utf-8", "replace").strip()


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """One message with its descriptors, closed on exec."""
    data, descriptors, _, _ = socket.recv_fds(control, _CONTROL_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
    return data, descriptors


def _close_late_fork(answer: asyncio.Future[tuple[int, int]]) -> None:
    """Nobody wants this sandbox any more; its socket is closed, so it ends by itself."""
    if not answer.cancelled() and answer.exception() is None:
        _close_all(list(answer.result()))


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
