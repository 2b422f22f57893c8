"""An actor's handle of one judge process: starts it, asks it, and says what became of it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

from actors.rewards.blame import place_in
from actors.rewards.judge.notes import STACK_SIGNAL, make_notes, noted_call, noted_stack
from actors.rewards.judge.output import JudgeOutput
from actors.rewards.judge.wire import LENGTH, MAX_ANSWER_BYTES, Failure
from common.child_process import child_command, module_environment
from common.errors import ProtocolError

_STACK_S = 0.5
"""How long a hung judge may take to write its stack."""
_END_S = 2.0
"""How long a process may take to end once it was killed or has closed its channel."""
_LOOK_S = 0.01
_CHUNK = 1 << 16


class JudgeProcess:
    """One process; it has one request at a time, and is killed when that is given up."""

    def __init__(self) -> None:
        """Start it, from a thread that stays: its death ends the process.

        Raises:
            OSError: the system does not let it start.
        """
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as kept:
            kept.callback(ours.close)
            notes = make_notes()
            kept.callback(os.close, notes)
            printed, prints = os.pipe()
            kept.callback(os.close, printed)
            try:
                self._process = _start(theirs.fileno(), notes, prints)
            finally:
                os.close(prints)
            kept.pop_all()
        self._output = JudgeOutput(printed)
        ours.setblocking(False)
        self._channel, self._notes = ours, notes
        self._is_open = True

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._is_open and self._exit_status() is None

    @property
    def over(self) -> bool:
        """Whether it was killed and is gone."""
        return not self._is_open and self._process.poll() is not None

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
        os.kill(self._process.pid, STACK_SIGNAL)
        await _until(lambda: bool(noted_stack(self._notes)), _STACK_S)
        limit = " (rewards.timeout_s)" if about else ""
        return self._failure(f"{about} was not done after {seconds:g} s{limit}")

    async def describe_end(self, about: str) -> Failure:
        """What to say of it when it has closed the channel."""
        await _until(lambda: self._exit_status() is not None, _END_S)
        status = self._exit_status()
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
            self._output.close()
            os.close(self._notes)

    async def close(self) -> None:
        """The same, and wait until it is gone."""
        self.kill()
        await _until(lambda: self.over, _END_S)

    def _failure(self, what: str) -> Failure:
        text = f"{self.called}{what}{place_in(noted_stack(self._notes))}"
        return Failure(plugin=self.called, text=text)

    def _exit_status(self) -> int | None:
        """How it ended, or None; it is not collected, so that its number stays its own."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        ended = os.waitid(os.P_PID, self._process.pid, options)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _start(channel: int, notes: int, prints: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        child_command("actors.rewards.judge.worker", str(channel), str(notes)),
        stdin=subprocess.DEVNULL,
        stdout=prints,
        stderr=prints,
        env=module_environment(os.environ),
        pass_fds=(channel, notes),
        start_new_session=True,  # what the user's code starts dies with it
    )


async def _until(holds: Callable[[], bool], seconds: float) -> None:
    """Return when it holds, or after so many seconds."""
    for _ in range(int(seconds / _LOOK_S)):
        if holds():
            return
        await asyncio.sleep(_LOOK_S)


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
