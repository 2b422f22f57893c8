"""The actor's view of the policy: prompt ids in, sampled ids with log-probabilities out."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from actors.asked import PolicyLine, RetryableError, UnreachableError, WrongPromptError
from actors.routes import AskedServer, chosen
from common.errors import PolicyServerError
from common.waits.catalogue import WaitKind
from common.waits.register import waiting
from common.wire.generation import Generation
from common.wire.hosting import Generate

log = logging.getLogger(__name__)

_FAILURES_TO_BENCH = 3
_BENCH_S = 5.0
_ENDS = ("stop", "length", "repetition")
"""How the policy itself ends what it writes; any other end is the server's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyStatistics:
    """Counters since the client was made.

    ``retries`` counts attempts that failed and were made again, ``failures`` requests given up.
    """

    requests: int
    tokens: int
    retries: int
    failures: int


class _LostError(RetryableError):
    """The server died with the request; another is asked."""


class _Patience:
    """Counts a request's failed attempts.

    A server that cannot be reached may be starting again: that takes time, but no attempt. Nor does
    one that was found dead.
    """

    def __init__(self, *, attempts: int, timeout_s: float) -> None:
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._failed = 0
        self._reached = time.monotonic()

    @property
    def out_of_reach_s(self) -> float:
        """Seconds since a server was reached."""
        return time.monotonic() - self._reached

    def ends_with(self, error: RetryableError) -> bool:
        """Whether this failure is the last that is put up with."""
        if isinstance(error, UnreachableError):
            return self.out_of_reach_s > self._timeout_s
        self._reached = time.monotonic()
        if isinstance(error, _LostError):
            return False
        self._failed += 1
        return self._failed >= self._attempts

    def __str__(self) -> str:
        silent = self.out_of_reach_s
        return f"{self._failed} of {self._attempts} attempts and {silent:.0f} s out of reach"


class PolicyClient:
    """Spreads generation requests over the policy servers in rotation and retries what fails.

    Which server is asked: ``actors.routes``. A server that fails several times in a row is passed
    over for some seconds, unless no other is left. While nobody may be asked, requests wait.

    After any history of rotations and requests, lines are open to the servers in rotation that were
    asked, and to those that left it with requests under way, until these are over.
    """

    def __init__(
        self,
        servers: Sequence[str],
        connect: Callable[[str], PolicyLine],
        *,
        timeout_s: float,
        attempts: int,
        backoff_s: float = 0.25,
        max_backoff_s: float = 4.0,
    ) -> None:
        """Ask ``servers`` until ``rotate``; each of ``attempts`` may take ``timeout_s`` seconds.

        ``connect`` makes a line to the server of a name, when it is first asked, also after it
        has left the rotation and come back.

        The wait after a server's k-th failure in a row is ``backoff_s * 2**k``, at most
        ``max_backoff_s``, less up to half of it at random. While a server cannot be reached,
        requests wait for it up to ``timeout_s``; that takes no attempt.
        """
        if attempts < 1:
            raise ValueError(f"need at least 1 attempt, got {attempts}")
        self._servers: dict[str, AskedServer] = {}
        self._are_asked = asyncio.Event()
        self._leaving: list[AskedServer] = []
        """Left the rotation with requests under way; of one name there may be several lives."""
        self._closing: set[asyncio.Task[None]] = set()
        self.rotate(servers)
        self._connect = connect
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._backoff_s = backoff_s
        self._max_backoff_s = max_backoff_s
        self._requests = self._tokens = self._retries = self._failures = 0

    def rotate(self, names: Sequence[str], *, lost: Collection[str] = ()) -> None:
        """Ask these servers from now on.

        Requests that are under way elsewhere go on, but at servers that are ``lost`` they are given
        up and made again in the rotation.
        """
        before = (*self._leaving, *self._servers.values())
        known = {server.name: server for server in before if not server.is_lost}
        self._servers = {name: known.get(name) or AskedServer(name=name) for name in names}
        self._leaving = [one for one in before if one is not self._servers.get(one.name)]
        for server in tuple(self._leaving):
            if server.name in lost:
                server.lose()
            self._let_go(server)
        (self._are_asked.set if names else self._are_asked.clear)()

    async def close(self) -> None:
        """Close all connections."""
        for server in (*self._servers.values(), *self._leaving):
            self._hang_up(server)
        while self._closing:
            await asyncio.wait(self._closing)

    async def __aenter__(self) -> "PolicyClient":
        """The client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self.close()

    def statistics(self) -> PolicyStatistics:
        """Counters so far."""
        return PolicyStatistics(
            requests=self._requests,
            tokens=self._tokens,
            retries=self._retries,
            failures=self._failures,
        )

    async def generate(
        self,
        prompt_ids: Sequence[int],
        *,
        max_tokens: int,
        temperature: float,
        stop_token_ids: Sequence[int] = (),
        stop_strings: Sequence[str] = (),
        seed: int | None = None,
        prefix: int | None = None,
    ) -> Generation:
        """Sample up to ``max_tokens`` tokens after ``prompt_ids``.

        Requests whose first ``prefix`` ids (default: all) are the same go to the same server, as
        far as its load allows: it has computed them before.

        Temperature 0 takes the most likely token; its log-probabilities are then not those of
        the policy at temperature 1.

        Raises:
            PolicyServerError: all attempts failed, or the request itself is wrong.
        """
        request = Generate(
            number=0,
            token_ids=np.array(prompt_ids, dtype=np.int32),
            max_tokens=max_tokens,
            temperature=temperature,
            stop_token_ids=tuple(stop_token_ids),
            stop_strings=tuple(stop_strings),
            seed=seed,
        )
        self._requests += 1
        patience = _Patience(attempts=self._attempts, timeout_s=self._timeout_s)
        start = prompt_ids[:prefix]
        while True:
            await self._wait_for_rotation(patience)
            server = chosen(list(self._servers.values()), start, now=time.monotonic())
            try:
                with waiting(WaitKind.GENERATION, server.name):
                    generation = await self._attempt(server, request)
            except RetryableError as error:
                reason = str(error)
                self._record_failure(server, reason)
                if patience.ends_with(error):
                    self._failures += 1
                    raise PolicyServerError(
                        f"policy server {server.name} gave no generation after {patience}, "
                        f"at last: {error}"
                    ) from error
            else:
                server.failures_in_row = 0
                self._tokens += len(generation.token_ids)
                return generation
            self._retries += 1
            with waiting(WaitKind.ASK_AGAIN, server.name, detail=reason):
                await asyncio.sleep(self._backoff(server.failures_in_row))

    async def _wait_for_rotation(self, patience: _Patience) -> None:
        """Until somebody may be asked; takes no attempt."""
        if self._are_asked.is_set():
            return
        left_s = self._timeout_s - patience.out_of_reach_s
        try:
            with waiting(WaitKind.ROTATION):
                async with asyncio.timeout(max(0.0, left_s)):
                    await self._are_asked.wait()
        except TimeoutError:
            self._failures += 1
            raise PolicyServerError(
                f"no policy server was in rotation for {self._timeout_s:.0f} s, after {patience}"
            ) from None

    async def _attempt(self, server: AskedServer, request: Generate) -> Generation:
        try:
            async with asyncio.timeout(self._timeout_s):
                generation = await self._begin(server, request)
        except asyncio.CancelledError:
            if not server.is_lost or _is_cancelled():
                raise
            raise _LostError(f"policy server {server.name} was found dead") from None
        except WrongPromptError as error:
            raise PolicyServerError(f"policy server {server.name} refused: {error}") from error
        except (TimeoutError, PolicyServerError) as error:
            raise RetryableError(f"{type(error).__name__}: {error}") from error
        if generation.finish_reason not in _ENDS:
            raise RetryableError(f"generation ended with '{generation.finish_reason}'")
        return generation

    def _begin(self, server: AskedServer, request: Generate) -> asyncio.Task[Generation]:
        if server.line is None:
            server.line = self._connect(server.name)
        task = server.begin(server.line.generate(request))
        task.add_done_callback(lambda _: self._let_go(server))
        return task

    def _let_go(self, server: AskedServer) -> None:
        """Forget a server that has left the rotation, if nothing is under way there any more."""
        if not server.under_way and server is not self._servers.get(server.name):
            self._leaving = [one for one in self._leaving if one is not server]
            self._hang_up(server)

    def _hang_up(self, server: AskedServer) -> None:
        """Begin to close its line; ``close`` waits until that is done."""
        line, server.line = server.line, None
        if line is not None:
            task = asyncio.get_running_loop().create_task(line.close())
            self._closing.add(task)
            task.add_done_callback(self._hung_up)

    def _hung_up(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a line was not closed in order reason=%r", error)

    def _record_failure(self, server: AskedServer, reason: str) -> None:
        server.failures_in_row += 1
        if server.failures_in_row % _FAILURES_TO_BENCH == 0 and len(self._servers) > 1:
            server.benched_until = time.monotonic() + _BENCH_S
            log.warning("passing over a server server=%s reason=%s", server.name, reason)

    def _backoff(self, failures: int) -> float:
        longest = min(self._max_backoff_s, self._backoff_s * 2.0 ** min(failures, 10))
        return longest * random.uniform(0.5, 1.0)


def _is_cancelled() -> bool:
    """Whether it is the present task itself that is to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
