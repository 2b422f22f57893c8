"""Every wait of the system: who waits, for whom, in which words, and what ends it.

A place in the code that waits names a kind of this file (``common.waits.register``), or the state
that it is about is read when somebody asks (``learner.coordination.outstanding``, ``actors.link``);
there is no wait without a kind. tests/unit/test_waits.py holds that each is used and provoked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """What can wait, or be waited for; the value is how it is called."""

    LEARNER = "learner"
    ACTOR = "actor"
    SERVER = "policy server"
    ACTORS = "actors"
    SERVERS = "policy servers"
    COORDINATOR = "coordinator"
    WATCH = "watch over"
    BATCH = "batch"
    GROUP = "group"
    EVALUATION = "held-out evaluation"
    LEASE = "lease"
    PUBLISH = "publish of version"
    RANKS = "learner's ranks"
    DISK = "disk"
    BOUND = "room"
    POOL = "kernel pool of"
    ZYGOTE = "parent of kernels of"
    KERNEL = "kernel"
    TOOL = "tool"
    JUDGE = "judge of"
    MODEL_JUDGE = "grading model of"
    VLLM = "vLLM of"
    PERSON = "somebody"


class WaitKind(StrEnum):
    """The waits, by name."""

    BATCH = "batch"
    LACKED_GROUP = "lacked_group"
    LACKED_LEASE = "lacked_lease"
    HELD_LEASE = "held_lease"
    UNCLAIMED_LEASE = "unclaimed_lease"
    HAND_OUT = "hand_out"
    NO_ACTOR = "no_actor"
    NO_SERVER = "no_server"
    UNASKED_SERVER = "unasked_server"
    NO_ROOM = "no_room"
    EVALUATION = "evaluation"
    JOURNAL = "journal"
    CHECKPOINT = "checkpoint"
    STEP = "step"
    AGREEMENT = "agreement"
    EARLIER_PUBLISH = "earlier_publish"
    STAGED = "staged"
    ORDER = "order"
    SERVER_BACK = "server_back"
    FAREWELL = "farewell"
    TASK = "task"
    WELCOME = "welcome"
    ACK = "ack"
    ROTATION = "rotation"
    GENERATION = "generation"
    ASK_AGAIN = "ask_again"
    KERNEL = "kernel"
    LAUNCH = "launch"
    CELL = "cell"
    TOOL = "tool"
    FILES = "files"
    MENDING = "mending"
    JUDGE = "judge"
    GRADING = "grading"
    ENGINE_START = "engine_start"
    ENGINE_AGAIN = "engine_again"
    SAMPLING = "sampling"
    LOADING = "loading"


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownWait:
    """What is known of a kind of wait.

    Attributes:
        who: parts that wait so.
        on: what they wait for.
        words: after "waits 3 s for"; ``{on}`` is whom, ``{detail}`` what is added where it waits.
        ends: what ends it, and by when it ends anyway.
        joint: how it follows a wait for its ``who`` in a sentence, if not as ", which waits 3 s for
            ..."; ``{s}`` are its seconds.
        is_last_resort: followed only where its ``who`` names no other wait.
    """

    who: tuple[Part, ...]
    on: Part
    words: str
    ends: str
    joint: str = ""
    is_last_resort: bool = False


_LEARNER, _LEASE = (Part.LEARNER,), (Part.LEASE,)
_PUBLISH, _SERVER = (Part.PUBLISH,), (Part.SERVER,)
_UPDATERS = (Part.LEARNER, Part.PUBLISH, Part.WATCH)
_WANTING = (Part.BATCH, Part.GROUP, Part.EVALUATION)

CATALOGUE: Mapping[WaitKind, KnownWait] = {
    # ---- the learner's first rank, as it says itself
    WaitKind.BATCH: KnownWait(
        who=_LEARNER, on=Part.BATCH, words="{on}",
        ends="the trajectory that completes it; learner.batch_timeout_s while an actor is there",
    ),
    WaitKind.EVALUATION: KnownWait(
        who=_LEARNER, on=Part.EVALUATION, words="the {on}",
        ends="its last trajectory; learner.batch_timeout_s while an actor is there",
    ),
    WaitKind.JOURNAL: KnownWait(
        who=(Part.LEARNER, Part.COORDINATOR), on=Part.DISK,
        words="the {on} to take {detail} into the journal",
        ends="the journal's writer; a disk that fails ends it at once",
    ),
    WaitKind.CHECKPOINT: KnownWait(
        who=_LEARNER, on=Part.DISK, words="the {on} to take the checkpoint under way",
        ends="the checkpoint's writer, or its end",
    ),
    WaitKind.STEP: KnownWait(
        who=_LEARNER, on=Part.RANKS, words="the {on} to compute step {detail}",
        ends="the step; a rank that is missing ends it by torch's own time-out",
    ),
    WaitKind.AGREEMENT: KnownWait(
        who=_LEARNER, on=Part.RANKS, words="the other {on} to come to the same place",
        ends="the other ranks; torch's own time-out",
    ),
    WaitKind.EARLIER_PUBLISH: KnownWait(
        who=_LEARNER, on=Part.PUBLISH, words="the {on}",
        ends="the publish, which has a deadline for each server",
    ),
    WaitKind.FAREWELL: KnownWait(
        who=_LEARNER, on=Part.ACTORS, words="the {on} to finish and leave: {detail}",
        ends="the last goodbye; run.grace_s",
    ),
    WaitKind.STAGED: KnownWait(
        who=_UPDATERS, on=Part.SERVER, words="{on} to fetch the weights",
        ends="its host; 60 s, then the server is dead",
    ),
    WaitKind.ORDER: KnownWait(
        who=_UPDATERS, on=Part.SERVER, words="{on} to answer {detail}",
        ends="its host, or the end of that; 60 s, then it is in doubt or dead",
    ),
    WaitKind.SERVER_BACK: KnownWait(
        who=_PUBLISH, on=Part.SERVERS, words="one of the {on} to come back",
        ends="a server that has taken the weights; learner.batch_timeout_s",
    ),
    # ---- what the coordinator's books say
    WaitKind.LACKED_GROUP: KnownWait(
        who=(Part.BATCH,), on=Part.GROUP, words="{on} ({detail})",
        ends="the last member of the group", joint=", which lacks {on} ({detail})",
    ),
    WaitKind.LACKED_LEASE: KnownWait(
        who=_WANTING, on=Part.LEASE, words="{on} {detail}",
        ends="its trajectory; its deadline, then it is handed out again", joint=": {on} {detail}",
    ),
    WaitKind.HELD_LEASE: KnownWait(
        who=_LEASE, on=Part.ACTOR, words="{on}", joint="", is_last_resort=True,
        ends="the actor; the lease's deadline, or transport.silence_s without a word",
    ),
    WaitKind.UNCLAIMED_LEASE: KnownWait(
        who=_LEASE, on=Part.ACTOR, words="{on} to come back and claim it",
        ends="the actor's hello; transport.silence_s",
    ),
    WaitKind.HAND_OUT: KnownWait(
        who=_WANTING, on=Part.BOUND, words="{on} to hand its members out: {detail}",
        ends="an episode that ends, or a policy server that bears more",
        joint=", whose members wait to be handed out: {detail}",
    ),
    WaitKind.NO_ACTOR: KnownWait(
        who=_WANTING, on=Part.PERSON,
        words="{on} to bring an actor in: there is none (lzero join RUN/join.json --role actor)",
        joint=": there is no actor (lzero join RUN/join.json --role actor brings one in)",
        ends="an actor's hello",
    ),
    WaitKind.NO_SERVER: KnownWait(
        who=_WANTING, on=Part.SERVERS, words="one of the {on} that may be asked",
        joint=": none of the {on} may be asked",
        ends="a server that completes an update and its parity check",
    ),
    WaitKind.UNASKED_SERVER: KnownWait(
        who=(Part.SERVERS,), on=Part.SERVER, words="{on}", joint="; {on}",
        ends="its update and its parity check",
    ),
    WaitKind.NO_ROOM: KnownWait(
        who=_WANTING, on=Part.BOUND, words="{on} to begin another group: {detail}",
        joint=": no group may be begun: {detail}", ends="a batch that is taken, or a publish",
    ),
    # ---- actors
    WaitKind.TASK: KnownWait(
        who=(Part.ACTOR,), on=Part.COORDINATOR, words="the {on} to hand out a task",
        ends="a lease, or word to leave",
    ),
    WaitKind.WELCOME: KnownWait(
        who=(Part.ACTOR,), on=Part.COORDINATOR, words="the {on} to welcome it",
        ends="the welcome; 60 times transport.silence_s",
    ),
    WaitKind.ACK: KnownWait(
        who=_LEASE, on=Part.COORDINATOR, words="the {on} to acknowledge its trajectory",
        ends="the ack, once the journal has it on the disk; it is sent again",
    ),
    WaitKind.ROTATION: KnownWait(
        who=_LEASE, on=Part.SERVERS, words="one of the {on} that may be asked",
        ends="a rotation; agent.episode_timeout_s",
    ),
    WaitKind.GENERATION: KnownWait(
        who=_LEASE, on=Part.SERVER, words="{on}",
        ends="the answer; agent.episode_timeout_s; a rotation that calls it lost",
    ),
    WaitKind.ASK_AGAIN: KnownWait(
        who=_LEASE, on=Part.SERVER, words="{on} to be asked again: {detail}",
        ends="the clock, at most 4 s",
    ),
    WaitKind.KERNEL: KnownWait(
        who=_LEASE, on=Part.POOL, words="the {on}",
        ends="a launch; agent.episode_timeout_s",
    ),
    WaitKind.LAUNCH: KnownWait(
        who=(Part.POOL,), on=Part.KERNEL, words="a kernel to start",
        ends="the launch, or its own deadline",
    ),
    WaitKind.CELL: KnownWait(
        who=_LEASE, on=Part.KERNEL, words="{on} to end a cell",
        ends="the cell; kernel.cell_timeout_s",
    ),
    WaitKind.TOOL: KnownWait(
        who=(Part.KERNEL,), on=Part.TOOL, words="the {on}",
        ends="the tool, each of which has its own time-out; the cell's end",
    ),
    WaitKind.FILES: KnownWait(
        who=_LEASE, on=Part.DISK, words="the {on} of its actor to read the task's files",
        ends="the disk",
    ),
    WaitKind.MENDING: KnownWait(
        who=(Part.KERNEL,), on=Part.ZYGOTE, words="the {on}, which is started again: {detail}",
        ends="the clock, at most 60 s",
    ),
    WaitKind.JUDGE: KnownWait(
        who=_LEASE, on=Part.JUDGE, words="the {on}",
        ends="its answer; rewards.timeout_s, once a process is free",
    ),
    WaitKind.GRADING: KnownWait(
        who=_LEASE, on=Part.MODEL_JUDGE, words="the {on}",
        ends="its answer, or the time-out of the request",
    ),
    # ---- policy servers
    WaitKind.ENGINE_START: KnownWait(
        who=_SERVER, on=Part.VLLM, words="{on} to start",
        ends="vLLM, or its end",
    ),
    WaitKind.ENGINE_AGAIN: KnownWait(
        who=_SERVER, on=Part.VLLM, words="{on} to be started again: {detail}",
        ends="the clock, at most 60 s",
    ),
    WaitKind.SAMPLING: KnownWait(
        who=_SERVER, on=Part.VLLM, words="{on} to sample an answer",
        ends="vLLM, or its end; whoever asks gives up in time",
    ),
    WaitKind.LOADING: KnownWait(
        who=_SERVER, on=Part.VLLM, words="{on} to load version {detail}",
        ends="vLLM, or its end",
    ),
}  # fmt: skip
"""What is known of each."""
