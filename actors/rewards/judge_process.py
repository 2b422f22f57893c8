"""An actor's handle of one judge process: starts it, asks it, and says what became of it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys

from actors.rewards.blame import place_in
from actors.rewards.judge_notes import STACK_SIGNAL, make_notes, noted_call, noted_stack
from actors.rewards.judge_wire import LENGTH, MAX_ANSWER_BYTES, Failure
from common.child_process import module_command, module_environment
from common.errors import ProtocolError

_STACK_TRIES = 50
"""Looks, 10 ms apart, for the stack that a hung judge was asked to write."""
_END_S = 2.0
"""How long a process may take to end once it was killed or has closed its channel."""
_CHUNK = 1 << 16


class JudgeProcess:
    """One process; it has one request at a time, and is killed when that is given up."""

    def __init__(self) -> None:
        """Start it, from a thread that stays: its death ends the process."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._channel, self._notes = ours, make_notes()
        with theirs:
            self._process = subprocess.Popen(
                module_command(
                    "actors.rewards.judge_worker",
                    str(theirs.fileno()),
                    str(self._notes),
                    str(os.getpid()),
                ),
                stdin=subprocess.DEVNULL,
                env=module_environment(os.environ),
                pass_fds=(theirs.fileno(), self._notes),
                start_new_session=True,  # what the user's code starts dies with it
            )
        self._is_open = True

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._is_open and self._process.poll() is None

    @property
    def over(self) -> bool:
        """Whether it has ended and been collected."""
        return self._process.poll() is not None

    @property
    def called(self) -> str:
        """Name of the term or task type that it is at."""
        return noted_call(self._notes) or "a judge process"

    async def exchange(self, frame: bytes) -> bytes:
        """Send a frame and wait for the one that answers it, without its length.

        Raises:
            EOFError: it ended, or closed the channel.
            ProtocolError: its answer is absurdly long.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._channel, frame)
            data = bytearray()
            while len(data) < LENGTH.size or len(data) < LENGTH.size + _length(data):
                piece = await loop.sock_recv(self._channel, _CHUNK)
                if not piece:
                    raise EOFError("the judge closed its channel")
                data += piece
        except OSError as error:
            raise EOFError(str(error)) from error
        return bytes(data[LENGTH.size :])

    async def describe_hang(self, seconds: float, about: str) -> Failure:
        """What to say of it when it has not answered for so long; ``about`` names the task."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(STACK_SIGNAL)
        for _ in range(_STACK_TRIES):
            if noted_stack(self._notes):
                break
            await asyncio.sleep(0.01)
        return self._failure(f"{about} was not done after {seconds:g} s (rewards.timeout_s)")

    async def describe_end(self, about: str) -> Failure:
        """What to say of it when it has closed the channel."""
        status = await self._wait()
        if status is None:
            return self._failure(f"{about} closed the channel of its process")
        if status >= 0:
            return self._failure(f"{about} ended its process with exit code {status}")
        return self._failure(f"{about} died of {_signal_name(-status)}")

    def kill(self) -> None:
        """End it at once, with all that it started."""
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._channel.close()
            os.close(self._notes)

    async def close(self) -> None:
        """The same, and wait until it is gone."""
        self.kill()
        await self._wait()

    def _failure(self, what: str) -> Failure:
        text = f"{self.called}{what}{place_in(noted_stack(self._notes))}"
        return Failure(plugin=self.called, text=text)

    async def _wait(self) -> int | None:
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, _END_S)
        return self._process.returncode


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _length(data: bytearray) -> int:
    length: int = LENGTH.unpack_from(data)[0]
    if length > MAX_ANSWER_BYTES:
        raise ProtocolError(f"a judge process announced an answer of {length} bytes")
    return length


def search_path() -> tuple[str, ...]:
    """Where this process finds modules, for one with another working directory or start."""
    return tuple(entry or os.getcwd() for entry in sys.path)
