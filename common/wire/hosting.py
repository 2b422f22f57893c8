"""What actors and the learner say to the host of a policy server, and what it answers.

Whoever speaks numbers what it asks, and the answer bears the number; answers come in any order. The
host answers everything but ``GiveUp`` exactly once, unless it dies.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from common.places import Address
from common.waits.records import WaitReport
from common.wire.records import Float32, Int32

MAX_REASON_CHARACTERS = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Generate:
    """Sample after a prompt: plain sampling, no top-p, no top-k, no penalties.

    Attributes:
        number: of the request, chosen by who asks.
        token_ids: [P] int32, the prompt.
        max_tokens: to sample at most.
        temperature: 0 takes the most likely token.
        stop_token_ids: tokens that end what is sampled; one that was sampled is part of it.
        stop_strings: texts that end it; only where there are some are tokens turned into text.
        seed: of the sampling; None for none.
    """

    number: int
    token_ids: Int32
    max_tokens: int
    temperature: float
    stop_token_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """What was sampled; see ``common.wire.generation.Generation``."""

    number: int
    token_ids: Int32
    logprobs: Float32
    versions: Int32
    finish_reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """Nobody waits for the answer to that request any more; there is no answer to this."""

    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Attach:
    """Fetch weights at this address from now on (of the learner alone)."""

    number: int
    publisher: Address


@dataclass(frozen=True, kw_only=True, slots=True)
class Swap:
    """Pause, load the staged weights of that version, go on (of the learner alone)."""

    number: int
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Guest:
    """Somebody who may ask a host: a member's name, and the public key that it proves."""

    name: str
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Admit:
    """Let these in as well from now on (of the learner alone)."""

    number: int
    guests: tuple[Guest, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AskState:
    """Say how you are."""

    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerLoad:
    """What a policy server has to do.

    Attributes:
        running: sequences that are being sampled.
        waiting: requests that wait for a place; not those that a pause put back.
        cache_share: part of its KV cache that is in use, 0 to 1.
        preemptions: sequences that lost their place for want of cache, since its start; those that
            a pause put back did not.
        sampled: tokens, since its start; none twice, however often their sequences were computed.
        busy_s: seconds since its start in which there was something to sample, without pauses.
    """

    running: int = 0
    waiting: int = 0
    cache_share: float = 0.0
    preemptions: int = 0
    sampled: int = 0
    busy_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerState:
    """The answer to ``AskState``: the label of the weights that it samples with, and its load.

    ``report`` is what its host waits for.
    """

    number: int
    version: str
    load: ServerLoad
    report: WaitReport = field(default_factory=WaitReport)


@dataclass(frozen=True, kw_only=True, slots=True)
class Obeyed:
    """An order was carried out; ``seconds_paused`` of it nothing was sampled."""

    number: int
    seconds_paused: float = 0.0


class Fate(StrEnum):
    """What became of what was not done."""

    WRONG = "wrong"
    """It will never be done."""
    FAILED = "failed"
    """Asked again, it may be done."""
    AWAY = "away"
    """vLLM ended, or is starting; it was not its turn yet, or is lost with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NotDone:
    """What was asked under that number is not going to happen, and why."""

    number: int
    fate: Fate
    reason: str


Question = Generate | GiveUp | Admit | Attach | Swap | AskState
Answer = Generated | ServerState | Obeyed | NotDone
HostMessage = Question | Answer
"""What travels between the host of a policy server and those who use it."""


def not_done(number: int, fate: Fate, reason: str) -> NotDone:
    """The same, with a long reason cut."""
    text = reason[:MAX_REASON_CHARACTERS].encode(errors="replace").decode()
    return NotDone(number=number, fate=fate, reason=text)
