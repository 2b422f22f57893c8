"""What the learner asks of the host of a policy server, one fresh connection per call.

Threads share nothing that way. That the host's process ends is noticed at once, and named; that its
vLLM ends it says itself.
"""

import itertools
import secrets
import time
from collections.abc import Sequence
from typing import Never

from common.errors import PolicyServerError, ProtocolError
from common.places import LEARNER, Address
from common.waits.catalogue import WaitKind
from common.waits.register import waiting
from common.wire.codec import decode, encode
from common.wire.generation import Generation, checked
from common.wire.hosting import (
    Admit,
    Answer,
    AskState,
    Attach,
    Generate,
    Generated,
    Guest,
    NotDone,
    Obeyed,
    Question,
    ServerState,
    Swap,
)
from common.wire.sockets import Line, UndeliverableError, Wire

_ATTEMPTS = 3
_BACKOFF_S = 0.1
_NUMBERS = itertools.count(1)


class ServerControl:
    """Asks, updates and looks after one policy server; threads may share one."""

    def __init__(self, wire: Wire, name: str, address: Address, *, timeout_s: float) -> None:
        """Talk to the server ``name`` at ``address``; each call may take ``timeout_s`` seconds."""
        self.name = name
        self._wire = wire
        self._address = address
        self._timeout_s = timeout_s

    def state(self) -> ServerState:
        """The weights that the server says it samples with, and its load."""
        answer = self._repeat(AskState(number=next(_NUMBERS)))
        return answer if isinstance(answer, ServerState) else self._refuse(answer)

    def attach(self, publisher: Address) -> None:
        """Tell the server where the publisher listens, and by which key it knows it."""
        answer = self._repeat(Attach(number=next(_NUMBERS), publisher=publisher))
        if not isinstance(answer, Obeyed):
            self._refuse(answer)

    def admit(self, guests: Sequence[Guest]) -> None:
        """Have the server let these in as well; said again, nothing changes."""
        answer = self._repeat(Admit(number=next(_NUMBERS), guests=tuple(guests)))
        if not isinstance(answer, Obeyed):
            self._refuse(answer)

    def swap(self, version: int) -> float:
        """Have it pause, load the staged weights of ``version`` and go on; seconds of the pause."""
        answer = self._call(Swap(number=next(_NUMBERS), version=version))
        return answer.seconds_paused if isinstance(answer, Obeyed) else self._refuse(answer)

    def generate(self, request: Generate) -> Generation:
        """What it samples."""
        answer = self._call(request)
        return checked(answer) if isinstance(answer, Generated) else self._refuse(answer)

    def _refuse(self, answer: Answer) -> Never:
        raise PolicyServerError(
            f"policy server {self.name} answered {type(answer).__name__} to something else"
        )

    def _repeat(self, question: Question) -> Answer:
        """Ask what may be asked again; where the connection fails, that may have been chance."""
        for attempt in range(_ATTEMPTS - 1):
            try:
                return self._call(question)
            except PolicyServerError as error:
                if not isinstance(error.__cause__, UndeliverableError):
                    raise
                time.sleep(_BACKOFF_S * 2**attempt)
        return self._call(question)

    def _call(self, question: Question) -> Answer:
        """The answer to a question.

        Raises:
            PolicyServerError: it was not done, or there is no answer; caused by a TimeoutError
                where it may only be late.
        """
        identity = f"{LEARNER}#{secrets.token_hex(16)}".encode()
        what = type(question).__name__
        line = self._wire.connect(self._address, identity=identity, watched=True)
        try:
            line.send(encode(question))
            with waiting(WaitKind.ORDER, self.name, detail=what):
                answer = self._await(line, question.number)
        except UndeliverableError as error:
            raise PolicyServerError(
                f"policy server {self.name}: {what} got no answer: its process has ended, {error}; "
                "see its log"
            ) from error
        except TimeoutError as error:
            raise PolicyServerError(
                f"policy server {self.name}: {what} got no answer: {error}"
            ) from error
        finally:
            line.close()
        if isinstance(answer, NotDone):
            raise PolicyServerError(f"policy server {self.name}: {what}: {answer.reason}")
        return answer

    def _await(self, line: Line, number: int) -> Answer:
        deadline = time.monotonic() + self._timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            frames = line.receive(timeout_ms=int(1000 * left_s) + 1)
            if frames is None:
                continue
            try:
                answer = decode(frames)
            except ProtocolError as error:
                raise PolicyServerError(f"policy server {self.name}: {error}") from error
            if isinstance(answer, Answer) and answer.number == number:
                return answer
        raise TimeoutError(f"timed out after {self._timeout_s:g} s")
